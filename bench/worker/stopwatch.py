"""The clock of a worker."""

import time


class Stopwatch:
    """Counts the seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter_ns()

    def seconds(self) -> float:
        return (time.perf_counter_ns() - self._start) / 1e9
