"""How figures and rows are written: ratios, percentages, names."""

from collections.abc import Mapping

from backends.info import Level
from bench.records.runs import Run
from bench.records.schema import RunHeader
from bench.workloads.ranks import Scaling
from bench.workloads.specs import Cell

TIMES = "\N{MULTIPLICATION SIGN}"

DASH = "\N{EN DASH}"


def workload_name(workload: str, level: Level, ranks: int = 1, scaling: Scaling = "strong") -> str:
    """Return the name of a workload, with the level of its rows if they are not tuned, and their ranks."""
    name = f"{workload} as taught" if level == "taught" else workload
    return f"{name} with {said}" if (said := ranks_text(ranks, scaling)) else name


def cell_name(cell: Cell, titles: Mapping[str, str]) -> str:
    """Return the name of a cell within its workload: the backend's title, the mode, and several ranks."""
    return f"{titles.get(cell.backend, cell.backend)} {mode_name(cell)}"


def mode_name(cell: Cell) -> str:
    """Return the name of a cell within its workload and backend: the mode, and several ranks."""
    ranks = ranks_text(cell.ranks, cell.scaling)
    return f"{cell.mode} {ranks}" if ranks else cell.mode


def ranks_text(ranks: int, scaling: Scaling) -> str:
    """Return ranks and scaling in words, such as `2 ranks (weak)`; empty for one rank in strong scaling."""
    if ranks == 1 and scaling == "strong":
        return ""
    count = "1 rank" if ranks == 1 else f"{ranks} ranks"
    return f"{count} (weak)" if scaling == "weak" else count


def ratio_text(low: float, high: float) -> str:
    """Return an interval of ratios, with enough digits to tell its ends apart and from 1."""
    for digits in (2, 3, 4):
        ends = f"{low:.{digits}f}", f"{high:.{digits}f}"
        if "1." + "0" * digits not in ends and ends[0] != ends[1]:
            break
    return f"{ends[0]}{TIMES}" if ends[0] == ends[1] else f"{ends[0]}{DASH}{ends[1]}{TIMES}"


def percent_text(share: float) -> str:
    """Return a share as a percentage with about two digits: `0.8 %`, `12 %`."""
    percent = 100 * share
    if percent > 1000:
        return "over 1000 %"
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.1f} %"


def range_text(low: float, high: float) -> str:
    """Return a range of shares as percentages: `6.1 % and 24 %`."""
    return f"{percent_text(low)} and {percent_text(high)}"


PLUS_MINUS = "\N{PLUS-MINUS SIGN}"

NOTHING = DASH
"""What a table shows instead of a missing figure."""


def versions_text(header: RunHeader) -> str:
    """Return the version of every distribution, in the backends' order."""
    return "; ".join(
        f"{backend.title}: " + ", ".join(f"{name} {version}" for name, version in backend.versions.items())
        for backend in header.backends
        if backend.versions
    )


def commit_text(run: Run) -> str:
    """Return the version and the commit of this program, and whether there were uncommitted changes."""
    environment = run.header.environment
    if environment.commit is None:
        return f"{environment.version}, commit not known"
    changed = " with changes that were not committed" if environment.dirty else ""
    return f"{environment.version}, commit {environment.commit[:12]}{changed}"


def rate_text(rate: float | None) -> str:
    if rate is None:
        return NOTHING
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def seconds_text(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    return (
        f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s" if seconds < 100 else f"{seconds:,.0f} s"
    )


def bytes_text(count: int | None) -> str:
    return NOTHING if count is None else f"{count / 2**20:,.0f} MiB"


def width_text(half_width: float | None) -> str:
    """Return the half-width of an interval relative to its middle: `1.2 %`, `12 %`."""
    return percent(half_width, 0 if half_width is not None and half_width >= 0.0995 else 1)


def percent(share: float | None, digits: int) -> str:
    return NOTHING if share is None else f"{100 * share:.{digits}f} %"


def short_time(seconds: float | None) -> str:
    """Return a time of any size to three digits with its unit: `12.3 µs`, `4.56 ms`, `1.23 s`."""
    if seconds is None:
        return NOTHING
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} \N{MICRO SIGN}s"


def scaled(value: float | None, unit: str) -> str:
    """Return a figure to three digits with a decimal prefix: `12.3 GFLOP/s`."""
    if value is None:
        return NOTHING
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= scale:
            return f"{value / scale:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
