"""A backend that is made slower on purpose by a known share, for the self-test of the measurement."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.base import Backend


class Slowed:
    """Trains as the backend inside it does, but takes longer by a share; all else is that backend's."""

    def __init__(self, backend: Backend, share: float) -> None:
        self._backend, self._share = backend, share

    def train_steps(
        self, order: npt.NDArray[np.int32], *draws: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Train; then keep a CPU busy for the share of the time that training took.

        It is a share and not a fixed time: a disturbance of the machine makes a step that does 5 % more work
        wait 5 % longer, and so it does here. Do not train so right before a window that counts: the
        framework's threads fall asleep during the wait, and the window would take longer.
        """
        began = time.perf_counter_ns()
        losses = self._backend.train_steps(order, *draws)
        now = time.perf_counter_ns()
        until = now + round((now - began) * self._share)
        while time.perf_counter_ns() < until:
            pass
        return losses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)
