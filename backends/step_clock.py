"""The clock with which every backend times the parts of a training step."""

import time

from bench.workloads.instruments import StepSplit

PARTS = ("data", "transfer", "dispatch", "device")
"""The parts of a step, as `StepSplit` describes them."""


class StepClock:
    """Adds up the seconds of each part of some training steps; it does not wait for the device."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self.begin()

    def begin(self) -> None:
        """Start to time the first part of a step, or of several steps."""
        self._last = time.perf_counter()

    def mark(self, part: str) -> None:
        """Add the seconds since the last `begin` or `mark` to `part`; raise KeyError for any other part."""
        now = time.perf_counter()
        self._seconds[part] += now - self._last
        self._last = now

    def split(self, steps: int) -> StepSplit:
        """Return the mean seconds of each part over `steps` steps; 0.0 for a part that was never marked."""
        return StepSplit(
            steps=steps, **{f"{part}_s": seconds / steps for part, seconds in self._seconds.items()}
        )
