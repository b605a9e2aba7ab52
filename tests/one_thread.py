"""A plugin of pytest that imports NumPy so that its products take one thread.

Two threads wait for each other on a busy machine: a test that takes three seconds then takes a minute.
OpenBLAS reads the variable when it is loaded. Other plugins import NumPy too, so `addopts` in pyproject.toml
names this one: pytest loads it first. What the tests start must not inherit the variable.
"""

import os
import sys
from unittest import mock

if "numpy" in sys.modules:
    raise ImportError("NumPy was imported before one_thread, so its products may take several threads.")

with mock.patch.dict(os.environ, {"OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1")}):
    import numpy as np  # noqa: F401
