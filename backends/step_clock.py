"""A clock for the parts of training steps, which the backends of all frameworks share."""

import time

from bench.records import StepSplit


class StepClock:
    """Adds up the seconds that each part of the training steps takes.

    The clock waits for no device: the caller does so before it marks a part.
    """

    def __init__(self) -> None:
        self._seconds = {"data": 0.0, "transfer": 0.0, "dispatch": 0.0, "device": 0.0}
        self.begin()

    def begin(self) -> None:
        """Start a step, or its first part."""
        self._last_s = time.perf_counter()

    def mark(self, part: str) -> None:
        """Add the seconds since the last `begin` or `mark` to `part`; raise KeyError for any other part."""
        now_s = time.perf_counter()
        self._seconds[part] += now_s - self._last_s
        self._last_s = now_s

    def split(self, steps: int) -> StepSplit:
        """Return the mean seconds of each part in one of so many steps; a part without a mark took 0.0."""
        means = {f"{part}_s": seconds / steps for part, seconds in self._seconds.items()}
        return StepSplit(steps=steps, **means)
