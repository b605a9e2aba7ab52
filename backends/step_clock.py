"""The clock by which every backend times the parts of a training step."""

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
        """Start the clock of a step, or of its first part."""
        self._last = time.perf_counter()

    def mark(self, part: str) -> None:
        """Add the seconds since the last `begin` or `mark` to `part`; raise KeyError if it is none."""
        now = time.perf_counter()
        self._seconds[part] += now - self._last
        self._last = now

    def split(self, steps: int) -> StepSplit:
        """Return the mean seconds of each part over `steps` steps; a part without a mark has 0.0."""
        return StepSplit(
            steps=steps, **{f"{part}_s": seconds / steps for part, seconds in self._seconds.items()}
        )
