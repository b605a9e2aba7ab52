"""Imports NumPy so that its products take one thread: two of them wait for each other on a busy machine.

OpenBLAS reads the variable when it is loaded. What the tests start must not inherit it.
"""

import os
from unittest import mock

with mock.patch.dict(os.environ, {"OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1")}):
    import numpy as np  # noqa: F401
