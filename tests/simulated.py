"""Simulated self-tests: windows whose noise and truth are known, for the tests of what is made of them."""

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from synthetic import make_conditions, make_header

from bench.records.schema import Status
from bench.selftest.records import SIDES, SelfTest, SelfTestBlock, SelfTestHeader, SideRecord, Timing
from bench.workloads.catalog import find_workload
from bench.workloads.specs import Cell

CELL = Cell(workload="mnist-softmax", backend="even", mode="only", device="cpu", precision="fp32")
TRUTHS = {side.name: side.injected or 0.0 for side in SIDES}


def make_header_of(groups: int, blocks: int, windows: int = 20) -> SelfTestHeader:
    return SelfTestHeader(
        run_id="selftest-x", created_at="2026-01-01T00:00:00+00:00", command=("bench", "selftest"),
        groups=(CELL,) * groups, blocks=blocks, windows=windows, window_s=0.1,
        workloads=(find_workload("mnist-softmax"),), backends=(),
        environment=make_header([CELL]).environment,
    )  # fmt: skip


def make_side(name: str, seconds: Sequence[float], status: Status = "ok") -> SideRecord:
    return SideRecord(
        side=name, injected=next(side.injected for side in SIDES if side.name == name), hash_seed=0,
        status=status, error=None, windows=tuple(Timing(10, 1000, value) for value in seconds),
    )  # fmt: skip


def make_block(group: int, block: int, sides: Sequence[SideRecord]) -> SelfTestBlock:
    return SelfTestBlock(
        group=group, block=block, started_at="2026-01-01T00:00:00+00:00", wall_s=60.0, rounds=20,
        conditions=make_conditions(), sides=tuple(sides),
    )  # fmt: skip


@functools.cache
def simulate(
    *, groups: int = 20, blocks: int = 10, windows: int = 20, process_sd: float = 0.01, mood_sd: float = 0.1,
    window_sd: float = 0.01, seed: int = 0, understated: float = 0.0,
) -> SelfTest:  # fmt: skip
    """Return a self-test with three sources of noise, each the standard deviation of a logarithm of seconds.

    A process draws once how fast it is; a round has a mood that all its sides share; a window has its own
    noise. `understated` is a share by which slowed sides are slowed less than they are said to be.
    """
    rng = np.random.default_rng(seed)
    made = []
    for group in range(groups):
        for block in range(blocks):
            moods = rng.normal(0, mood_sd, windows)
            sides = []
            for side in SIDES:
                slowed = math.log1p(TRUTHS[side.name] * (1 - understated))
                logs = rng.normal(0, process_sd) + moods + rng.normal(0, window_sd, windows) + slowed
                sides.append(make_side(side.name, (0.1 * np.exp(logs)).tolist()))
            made.append(make_block(group, block, sides))
    return SelfTest(folder=Path(), header=make_header_of(groups, blocks, windows), blocks=tuple(made))
