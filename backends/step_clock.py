"""The clock that splits training steps into their parts, for every backend."""

import time

from bench.records import StepSplit

PARTS = ("data", "transfer", "dispatch", "device")


class StepClock:
    """Sums the seconds of each part over several steps."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self.begin()

    def begin(self) -> None:
        """Start the clock: at the start of a step or of its first part."""
        self._since_s = time.perf_counter()

    def mark(self, part: str) -> None:
        """Add the seconds since the last begin or mark to a part; raise KeyError if it is none of `PARTS`."""
        now_s = time.perf_counter()
        self._seconds[part] += now_s - self._since_s
        self._since_s = now_s

    def split(self, steps: int) -> StepSplit:
        """Return the mean seconds per step of each part; a part that was never marked has 0.0."""
        return StepSplit(
            steps=steps, **{f"{part}_s": seconds / steps for part, seconds in self._seconds.items()}
        )
