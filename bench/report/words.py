"""How figures and rows are written: ratios, percentages, names."""

from collections.abc import Mapping

from bench.specs import Cell

TIMES = "\N{MULTIPLICATION SIGN}"

DASH = "\N{EN DASH}"


def cell_name(cell: Cell, titles: Mapping[str, str]) -> str:
    """Return what a cell is called inside its workload: the backend's title and the mode."""
    return f"{titles.get(cell.backend, cell.backend)} {cell.mode}"


def ratio_text(low: float, high: float) -> str:
    """Return an interval of ratios with the digits it takes to keep its ends apart and off 1."""
    for digits in (2, 3, 4):
        ends = f"{low:.{digits}f}", f"{high:.{digits}f}"
        if "1." + "0" * digits not in ends and ends[0] != ends[1]:
            break
    return f"{ends[0]}{TIMES}" if ends[0] == ends[1] else f"{ends[0]}{DASH}{ends[1]}{TIMES}"


def percent_text(share: float) -> str:
    """Return a share as a percentage of two digits or so: `0.8 %`, `12 %`."""
    percent = 100 * share
    if percent > 1000:
        return "over 1000 %"
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.1f} %"
