"""How the rows of a run look in its plots."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import msgspec

from bench.analysis.summary import CellSummary, Summary
from bench.records.runs import Run
from bench.report.charts import COLOURS
from bench.report.format import workload_name
from bench.workloads.specs import Cell

Group: TypeAlias = tuple[str, list[CellSummary]]
"""A panel's title and its rows."""


class Style(msgspec.Struct, frozen=True, kw_only=True):
    """How every backend and mode of a run looks."""

    backends: tuple[str, ...]
    modes: Mapping[str, tuple[str, ...]]
    """The modes of each backend, in the order in which they get their looks."""

    def colour(self, cell: Cell) -> str:
        return COLOURS[self.backends.index(cell.backend) % len(COLOURS)]

    def look(self, cell: Cell, looks: Sequence[Any]) -> Any:
        return looks[self.modes[cell.backend].index(cell.mode) % len(looks)]

    def place(self, cell: Cell) -> tuple[int, int]:
        return self.backends.index(cell.backend), self.modes[cell.backend].index(cell.mode)

    def line_width(self, cell: Cell) -> float:
        """Return a width that shrinks from backend to backend, so that equal curves all stay visible."""
        return max(1.0, 3.6 - 1.1 * self.backends.index(cell.backend))


def groups_of(summary: Summary) -> list[Group]:
    """Return the rows of each workload, device, precision and level; each group is one panel."""
    return [
        (f"{workload_name(workload, level)} ({device} {precision})", list(rows))
        for (workload, device, precision, level), rows in groupby(
            summary.cells, key=lambda row: (row.workload, row.device, row.precision, row.level)
        )
    ]


def style_of(run: Run, summary: Summary) -> Style:
    cells = [row.cell for row in summary.cells]
    here = {backend.name: tuple(backend.modes) for backend in run.header.backends}
    backends = tuple(dict.fromkeys([*here, *sorted(cell.backend for cell in cells)]))
    modes = {
        name: tuple(
            dict.fromkeys([*here.get(name, ()), *sorted(cell.mode for cell in cells if cell.backend == name)])
        )
        for name in backends
    }
    return Style(backends=backends, modes=modes)
