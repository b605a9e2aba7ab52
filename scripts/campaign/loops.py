"""Part 8: each mode against its loop by hand, pooled over processes.

    PYTHONPATH=scripts python -m campaign.loops [FOLDER]

Every file `loops-N.json` of FOLDER holds one process of each cell. A process is one observation: the ratio of
a cell is the geometric mean over processes, with a t interval over them. What a benchmark measured once more,
because it was below its bound, does not count: only low figures are repeated, and that would bias the mean.
"""

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, stdev

import msgspec

from bench.errors import RecordError
from bench.report.markdown import grid
from campaign.agreement import quantile
from campaign.plan import DUELS

FOLDER = Path("results/campaign/own-loops")


class Loops(msgspec.Struct, frozen=True, kw_only=True):
    """A cell over all its processes."""

    cell: str
    ratios: tuple[float, ...]
    bound: float

    @property
    def ratio(self) -> float:
        return math.exp(fmean(map(math.log, self.ratios)))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval over processes; None for one."""
        if len(self.ratios) < 2:
            return None
        logs = [math.log(one) for one in self.ratios]
        half = quantile(len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
        return self.ratio * math.exp(-half), self.ratio * math.exp(half)

    @property
    def below(self) -> bool:
        """Whether the whole interval lies below the bound."""
        return self.interval is not None and self.interval[1] < self.bound


class _Result(msgspec.Struct):
    """What the benchmark adds; nothing where a loop ended with an error."""

    cell: str = ""
    ratio: float = 0.0
    bound: float = 0.0


class _Benchmark(msgspec.Struct):
    extra_info: _Result


class _File(msgspec.Struct):
    benchmarks: list[_Benchmark]


def pool(files: Iterable[bytes]) -> tuple[Loops, ...]:
    """Return each cell over all files, in the order of the first; a process that failed is not counted."""
    ratios: dict[str, list[float]] = {}
    bounds: dict[str, float] = {}
    for content in files:
        for one in msgspec.json.decode(content, type=_File).benchmarks:
            if not one.extra_info.cell:
                continue
            cell = one.extra_info.cell.partition(" (")[0]  # the best of a framework names its modes
            ratios.setdefault(cell, []).append(one.extra_info.ratio)
            bounds[cell] = one.extra_info.bound
    return tuple(
        Loops(cell=cell, ratios=tuple(values), bound=bounds[cell]) for cell, values in ratios.items()
    )


def report(found: Iterable[Loops]) -> str:
    """Return a table as Markdown, what is below its bound marked."""
    rows = [
        (one.cell, str(len(one.ratios)), f"{one.ratio:.3f}",
         "{:.3f} to {:.3f}".format(*one.interval) if one.interval else "", f"{one.bound:g}",
         "BELOW" if one.below else "")
        for one in found
    ]  # fmt: skip
    heads = ("cell", "processes", "backend / by hand", "95 % interval", "bound", "")
    return "# Each mode against its loop by hand\n\n" + grid(heads, rows) + "\n"


def main(folder: Path) -> None:
    files = sorted(folder.glob("loops-*.json"))
    if len(files) < DUELS:
        raise RecordError(f"{folder} has {len(files)} of {DUELS} processes.")
    (folder / "LOOPS.md").write_text(report(pool(path.read_bytes() for path in files)), encoding="utf-8")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
    except RecordError as error:
        sys.exit(f"loops: {error}")
