"""A plugin of pytest, for a test that runs pytest in a process of its own: it plays the workers there.

python -m pytest -p play_workers ...
"""

import pytest
from played import play, undisturbed

_PATCH = pytest.MonkeyPatch()


def pytest_configure(config: pytest.Config) -> None:
    play(_PATCH)
    undisturbed(_PATCH)


def pytest_unconfigure(config: pytest.Config) -> None:
    _PATCH.undo()
