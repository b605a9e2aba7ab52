"""A backend made slower on purpose, by a known share: what the self-test holds the measuring against."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.base import Backend


class Slowed:
    """Trains as the backend inside it does, and takes a share longer for it; all else is that backend's."""

    def __init__(self, backend: Backend, share: float) -> None:
        self._backend, self._share = backend, share

    def train_steps(
        self, order: npt.NDArray[np.int32], *draws: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Train; then keep a CPU busy for the share of the time that training took.

        A share of the time, not a fixed one: a step that does 5 % more work suffers 5 % more from whatever
        disturbs the machine meanwhile, and so does this one. It is not to be used right before a stretch that
        counts: while this waits the framework's threads fall asleep, and the stretch itself takes longer.
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
