"""What a run is to do: presets, the cells that were asked for, the order of a block, the epochs that fit."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from types import MappingProxyType

import msgspec

from backends.info import BackendInfo
from bench.errors import UsageError, unknown
from bench.records import Plan
from bench.specs import Cell, Device, Precision
from bench.workloads import SWEPT, base_name


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured, and what of it."""

    name: str
    summary: str
    budget_s: float
    modes: str
    """`taught`: the mode each framework's documentation teaches; `all`: every mode."""
    min_blocks: int
    windows: int
    """Timed windows a job at least: rounds of turns in a block."""
    window_s: float
    epochs: float
    """Epochs trained for accuracy at most, where the budget allows."""
    seeds: int
    """Blocks whose jobs also train for accuracy, each with a seed of its own."""
    target_half_width: float = 0.015


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            Preset(
                name="quick", summary="the taught modes, 3 blocks, 15 minutes",
                budget_s=15 * 60, modes="taught", min_blocks=3, windows=60, window_s=0.05,
                epochs=3, seeds=1,
            ),
            Preset(
                name="standard", summary="every mode, 8 blocks, 2 hours",
                budget_s=2 * 3600, modes="all", min_blocks=8, windows=60, window_s=0.05,
                epochs=10, seeds=3,
            ),
            Preset(
                name="full", summary="every mode, 10 blocks, 8 hours",
                budget_s=8 * 3600, modes="all", min_blocks=10, windows=80, window_s=0.05,
                epochs=20, seeds=5,
            ),
        )
    }
)  # fmt: skip

START_GUESS_S: Mapping[Device, float] = MappingProxyType({"cpu": 6.0, "gpu": 16.0})
PARITY_GUESS_S: Mapping[Device, float] = MappingProxyType({"cpu": 4.0, "gpu": 6.0})
"""What starting a worker and ending it, and proving one cell's parity, is thought to take before anything has
run. On an H200 they took 7 to 30 s and 6: compilers there try many kernels before they choose."""
FLOPS_GUESS: Mapping[Device, float] = MappingProxyType({"cpu": 1e11, "gpu": 1e13})
"""Operations a second of a network whose steps last longer than a window, on two cores and on an H200."""
ROUND_GUESS = 1.4
"""A turn over its window: what leads to it, and what is read of the machine between rounds."""
FEWEST_OF_LONG = 0.5
"""Share of a preset's windows that a run takes also where calls last long: see `windows_asked`."""
TRAINING_SHARE = 0.6
"""Share of the time left after the required windows that is given to training for accuracy."""
BLOCKS_ANEW = 3
"""Blocks whose jobs compile all anew, so that the time to compile is known; later ones take what is there."""
SMALLEST_TRAINING = 0.05
"""Less than this part of an epoch teaches nothing worth a row."""


def find_preset(name: str) -> Preset:
    """Return the preset of that name; raise UsageError where there is none."""
    if name not in PRESETS:
        raise unknown("preset", name, list(PRESETS), "bench list shows all")
    return PRESETS[name]


def parse_budget(text: str) -> float:
    """Return the seconds of a budget such as `90s`, `15m` or `2h`; raise UsageError if it makes no sense."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1:]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = float("nan")
    if not 10.0 <= seconds <= 7 * 24 * 3600.0:  # also false for NaN
        raise UsageError(f"budget {text!r} is not a time from 10s to 168h; write 90s, 15m or 2h.")
    return seconds


def parse_precision(text: str) -> float:
    """Return the relative half-width in `1.5%` or `0.015`; raise UsageError if it makes no sense."""
    number, scale = (text[:-1], 0.01) if text.endswith("%") else (text, 1.0)
    try:
        width = float(number) * scale
    except ValueError:
        width = float("nan")
    if not 0.0005 <= width <= 0.5:  # also false for NaN
        raise UsageError(f"precision {text!r} is not a share from 0.05% to 50%; write 1.5% or 0.015.")
    return width


def parse_sweep(text: str) -> tuple[int, ...]:
    """Return the batch sizes in `batch=16..1024`, doubling, or `batch=16,100`; raise UsageError if none."""
    what, equals, sizes = text.partition("=")
    first, dots, last = sizes.partition("..")
    words = [first, last] if dots else sizes.split(",")
    if (
        what != "batch"
        or not equals
        or not all(word.isdecimal() and 1 <= int(word) <= 65536 for word in words)
    ):
        raise UsageError(
            f"sweep {text!r} is not batch=FIRST..LAST or batch=A,B,C with sizes from 1 to 65536."
        )
    if not dots:
        return tuple(sorted({int(word) for word in words}))
    found = [int(first)]
    while found[-1] * 2 <= int(last):
        found.append(found[-1] * 2)
    if int(last) < int(first):
        raise UsageError(f"sweep {text!r} ends before it begins.")
    return tuple(found)


def choose_modes(info: BackendInfo, asked: Sequence[str], preset_modes: str, device: Device) -> list[str]:
    """Return the modes of one backend that are to run there: those asked for, else those of the preset.

    `all`, `taught` and `pipeline` may be asked for in place of names.
    """
    wanted = set(asked) or {preset_modes}
    return [
        mode.name
        for mode in info.modes
        if device in mode.devices
        and (
            mode.name in wanted
            or "all" in wanted
            or (mode.taught and "taught" in wanted)
            or (mode.pipeline and "pipeline" in wanted)
        )
    ]


def choose_cells(
    *,
    workloads: Sequence[str],
    backends: Sequence[BackendInfo],
    modes: Sequence[str],
    preset_modes: str,
    device: Device,
    precision: Precision,
    named: bool,
) -> tuple[Cell, ...]:
    """Return the cells to run; raise UsageError where a mode is nobody's, or not that of a backend named.

    `named` says whether the backends were named by the user, rather than being all there are.
    """
    here = {mode.name for info in backends for mode in info.modes if device in mode.devices}
    known = sorted(here | {"all", "taught", "pipeline"})
    for mode in modes:
        if mode not in known:
            whose = f"modes of {', '.join(info.name for info in backends)} on the {device.upper()}"
            raise unknown("mode", mode, known, whose)
    chosen = {info.name: choose_modes(info, modes, preset_modes, device) for info in backends}
    for info in backends:
        if named and not chosen[info.name]:
            own = ", ".join(choose_modes(info, ["all"], preset_modes, device))
            raise UsageError(f"backend {info.name!r} has no mode {', '.join(modes)}; it has: {own}.")
    return tuple(
        Cell(workload=workload, backend=backend, mode=mode, device=device, precision=precision)
        for workload in workloads
        for backend, names in chosen.items()
        for mode in names
    )


def balanced_order(size: int, number: int) -> list[int]:
    """Return the order of `size` jobs in a round of turns: row `number` of a Williams design, going round.

    Over a whole design each job stands in each place, and follows each other job, equally often (Williams,
    1949). For two it is AB, BA. The rows of an odd size come in two mirrored squares.
    """
    first = [0]
    low, high = 1, size - 1
    while low <= high:
        first.append(low)
        if low < high:
            first.append(high)
        low, high = low + 1, high - 1
    square, row = divmod(number % (size * (1 + size % 2)), size)
    order = [(place + row) % size for place in first]
    return order[::-1] if square else order


def windows_asked(windows: int, stretches: Sequence[float], fewest: float) -> int:
    """Return how many windows each job of a block is asked for, of the `windows` of a preset.

    `stretches` are how much longer than meant a window of each job takes, 1 or more: it holds whole calls.
    The time stays what was meant, over all jobs, but for the share `fewest` of the windows, which is taken in
    any case. Long windows scatter less, and the time is worth more as a further block.
    """
    return math.ceil(windows * max(fewest, 1 / fmean(stretches or [1.0])))


def plan_epochs(seconds_per_epoch: Mapping[str, float], available_s: float, most: float) -> dict[str, float]:
    """Return the epochs each workload trains, so that all together fit `available_s`.

    `seconds_per_epoch` is the time one epoch takes in all cells of a workload together, evaluation included.
    Time is shared equally; what a quick workload does not need goes to the slower ones. Whole epochs where at
    least one fits, else twentieths; 0 where even the smallest training does not fit.
    """
    left, epochs = max(0.0, available_s), {}
    waiting = sorted(seconds_per_epoch, key=lambda name: seconds_per_epoch[name])
    for number, name in enumerate(waiting):
        share = left / (len(waiting) - number)
        fitting = min(most, share / seconds_per_epoch[name])
        epochs[name] = (
            float(int(fitting)) if fitting >= 1 else int(fitting / SMALLEST_TRAINING) * SMALLEST_TRAINING
        )
        left -= epochs[name] * seconds_per_epoch[name]
    return epochs


def make_plan(
    cells: Sequence[Cell],
    *,
    step_flops: Mapping[str, float],
    min_blocks: int,
    windows: int,
    window_s: float,
    budget_s: float,
    seeds: int,
) -> Plan:
    """Return what a run is thought to take, before anything is known of the machine.

    `step_flops` are the operations of a training step of each workload.
    """
    jobs = len(cells) * min_blocks
    proven = {(base_name(cell.workload), cell.backend, cell.mode): cell.device for cell in cells}
    parity_s = sum(PARITY_GUESS_S[device] for device in proven.values())
    block_s = 0.0
    for cell in cells:
        # What leads to a window is a step at least, so a long one comes twice.
        stretch = max(1.0, step_flops[cell.workload] / FLOPS_GUESS[cell.device] / window_s)
        turn_s = window_s * max(ROUND_GUESS, 2 * stretch if stretch > 1 else 0.0)
        asked = windows_asked(windows, [stretch], FEWEST_OF_LONG)
        block_s += START_GUESS_S[cell.device] + asked * turn_s
    blocks_s = min_blocks * block_s
    left_s = max(0.0, budget_s - parity_s - blocks_s)
    trains = seeds > 0 and any(SWEPT not in cell.workload for cell in cells)
    training_s = left_s * TRAINING_SHARE if trains else 0.0
    return Plan(
        jobs=jobs, parity_s=parity_s, blocks_s=blocks_s, training_s=training_s, refining_s=left_s - training_s
    )
