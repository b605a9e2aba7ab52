"""The clock by which a worker times what it does."""

import time


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter_ns()

    def seconds(self) -> float:
        return (time.perf_counter_ns() - self._start) / 1e9
