"""Presets, the expected times of a run, and the epochs that fit the budget."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import msgspec

from bench.errors import unknown
from bench.measuring.design import FEWEST_OF_LONG, WINDOW_S, WINDOWS, windows_asked
from bench.records.schema import Plan
from bench.workloads.catalog import SWEPT, base_name
from bench.workloads.schedule import evaluation_steps
from bench.workloads.specs import Cell, Device

SEVERAL_EPOCHS = 3
"""Fewest epochs that a run trains for accuracy. Accuracies after one epoch may be compared, but several show
where they lead."""
FEWEST_TO_STOP = 6
"""Blocks of a workload before the width of an interval decides anything.

If a run stops because an interval is narrow, it stops more often where the scatter seems smaller than it is,
and too few such intervals hold the truth. The fewer blocks, the worse. Up to this number the blocks depend on
time alone, and the intervals hold the truth as often as they say. Source: Chow and Robbins, On the asymptotic
theory of fixed-width sequential confidence intervals for the mean (1965); Starr, The performance of a
sequential procedure for the fixed-width interval estimation of the mean (1966). docs/trials.md has
simulations."""
MOST_BLOCKS = 30
"""The most blocks of a workload in a run."""


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """How much a run measures, and in which modes."""

    name: str
    summary: str
    budget_s: float
    modes: str
    """A group of modes: `default` or `all`."""
    taught_on: str | None = None
    """The workload that is also trained as taught, so that the run shows what tuning is worth. Keras's `fit`
    trains it too, where it is installed."""
    min_blocks: int
    windows: int
    """Fewest timed windows of a job: rounds of turns in a block."""
    window_s: float
    epochs: int
    """Most epochs that are trained for accuracy, if the budget allows."""
    seeds: int
    """Number of blocks whose jobs also train for accuracy, each with a seed of its own."""
    least_epochs: int = SEVERAL_EPOCHS
    """Fewest epochs of such a training: a workload for which the budget has no time for them trains none."""
    target_half_width: float = 0.015
    fewest_to_stop: int = FEWEST_TO_STOP
    """Blocks of a workload before the width of its intervals decides anything."""
    lessons: bool = False
    """Whether each backend that has lessons gives them at the end."""


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            Preset(
                name="quick",
                summary="the default modes, mnist-mlp also as taught and by Keras, 3 blocks, 20 minutes",
                budget_s=20 * 60, modes="default", taught_on="mnist-mlp", min_blocks=3, windows=WINDOWS,
                window_s=WINDOW_S, epochs=5, seeds=1, lessons=True,
            ),
            Preset(
                name="standard", summary="every mode, 8 blocks, 2 hours",
                budget_s=2 * 3600, modes="all", taught_on="mnist-mlp", min_blocks=8, windows=WINDOWS,
                window_s=WINDOW_S, epochs=10, seeds=3, lessons=True,
            ),
            Preset(
                name="full", summary="every mode, 10 blocks, 8 hours",
                budget_s=8 * 3600, modes="all", taught_on="mnist-mlp", min_blocks=10, windows=WINDOWS,
                window_s=WINDOW_S, epochs=20, seeds=5, lessons=True,
            ),
        )
    }
)  # fmt: skip

START_GUESS_S: Mapping[Device, float] = MappingProxyType({"cpu": 6.0, "gpu": 16.0})
PARITY_GUESS_S: Mapping[Device, float] = MappingProxyType({"cpu": 4.0, "gpu": 6.0})
"""Expected times of starting and ending a worker, and of checking one cell's parity, before anything has run.
On an H200 they took 7 to 30 s and 6 s, because compilers for GPUs try many kernels before they choose."""
FLOPS_GUESS: Mapping[Device, float] = MappingProxyType({"cpu": 1e11, "gpu": 1e13})
"""Expected operations a second of a large network, on two cores and on an H200."""
ROUND_GUESS = 1.4
"""Time of a turn divided by that of its window: a turn has a lead, and the machine is read between rounds."""
LESSONS_GUESS_S = 30.0
"""Expected time of one backend's lessons."""
LESSONS_SHARE = 0.1
"""The largest share of the budget that lessons may take. A shorter run gives none and says so."""
TRAINING_SHARE = 0.6
"""Share of the time left after the required windows that is given to training for accuracy."""


PLACEBO_SHARE = 0.05
"""A run has a placebo if that is expected to take no more than this share of its budget."""


def lessons_seconds(backends: int, budget_s: float) -> float:
    """Return the seconds that a run keeps for the lessons of so many backends; 0: it has no time for them."""
    seconds = backends * LESSONS_GUESS_S
    return seconds if seconds <= LESSONS_SHARE * budget_s else 0.0


def find_preset(name: str) -> Preset:
    """Return the preset of that name; raise UsageError where there is none."""
    if name not in PRESETS:
        raise unknown("preset", name, list(PRESETS), "bench list shows all")
    return PRESETS[name]


def plan_epochs(
    training_s: Mapping[str, Callable[[int], float]], available_s: float, *, least: int, most: int
) -> dict[str, int]:
    """Return the epochs that each workload trains, so that all together fit `available_s`.

    `training_s` gives the seconds that a number of epochs takes in all cells of a workload together. A
    training of fewer than `least` epochs says nothing, so a workload trains so many or none. The quickest
    come first: that is the largest number of workloads that can be trained. Time that is left then goes to
    one more epoch of each in turn, the quickest first, up to `most`. The choice depends on times alone.
    """
    left = available_s
    epochs = dict.fromkeys(training_s, 0)
    for name in sorted(training_s, key=lambda name: training_s[name](least)):
        if training_s[name](least) <= left:
            epochs[name] = least
            left -= training_s[name](least)
    chosen = [name for name in epochs if epochs[name]]
    for count in range(least + 1, most + 1):
        for name in sorted(chosen, key=lambda name: training_s[name](count)):
            more = training_s[name](count) - training_s[name](count - 1)
            if epochs[name] == count - 1 and more <= left:
                epochs[name] = count
                left -= more
    return epochs


def training_seconds(rate: float, epochs: float, *, train: int, test: int, batch_size: int) -> float:
    """Return the seconds that a training is expected to take, evaluations included.

    `rate` is in samples/s; `train` and `test` are numbers of images. To evaluate an image is expected to take
    a third of the time to train on it.
    """
    steps_per_epoch = max(1, train // batch_size)
    evaluations = len(evaluation_steps(round(epochs * steps_per_epoch), steps_per_epoch))
    return (epochs * train + evaluations * test / 3) / rate


def make_plan(
    cells: Sequence[Cell],
    *,
    step_flops: Mapping[str, float],
    min_blocks: int,
    windows: int,
    window_s: float,
    budget_s: float,
    seeds: int,
    lessons_s: float = 0.0,
) -> Plan:
    """Return the expected times of a run, before anything is known about the machine.

    `step_flops` are the operations of a training step of each workload. `lessons_s` is kept for lessons.
    """
    jobs = len(cells) * min_blocks
    proven = {
        (base_name(cell.workload), cell.backend, cell.mode, cell.ranks): _starting(cell, PARITY_GUESS_S)
        for cell in cells
    }
    parity_s = sum(proven.values())
    block_s = 0.0
    for cell in cells:
        # The lead of a window has at least one step, so a long step is taken twice.
        stretch = max(1.0, step_flops[cell.workload] / FLOPS_GUESS[cell.device] / window_s)
        turn_s = window_s * max(ROUND_GUESS, 2 * stretch if stretch > 1 else 0.0)
        asked = windows_asked(windows, [stretch], FEWEST_OF_LONG)
        block_s += _starting(cell, START_GUESS_S) + asked * turn_s
    blocks_s = min_blocks * block_s
    left_s = max(0.0, budget_s - lessons_s - parity_s - blocks_s)
    trains = seeds > 0 and any(SWEPT not in cell.workload for cell in cells)
    training_s = left_s * TRAINING_SHARE if trains else 0.0
    return Plan(
        jobs=jobs,
        parity_s=parity_s,
        blocks_s=blocks_s,
        training_s=training_s,
        refining_s=left_s - training_s,
        lessons_s=lessons_s,
    )


def _starting(cell: Cell, guess_s: Mapping[Device, float]) -> float:
    """Return the seconds that a cell's processes take to start; those of a CPU compete for its memory."""
    return guess_s[cell.device] * (cell.ranks if cell.device == "cpu" else 1)
