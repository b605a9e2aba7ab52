"""What the charts of a run share: groups of rows, their names and tags, and how a row looks."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import msgspec

from backends.info import Level
from bench.analysis.comparison import GroupKey, Verdict
from bench.analysis.summary import CellSummary, Summary
from bench.records.runs import Run
from bench.report.chart import Bar, Tags
from bench.report.format import cell_name, mode_name, workload_name
from bench.report.names import chart_name
from bench.run.report.tables import state
from bench.run.report.tags import group_tags, has_ranks, rank_tags
from bench.workloads.specs import Cell


class Looks(msgspec.Struct, frozen=True, kw_only=True):
    """The hue of every backend and the shapes of every row, the same in all charts of a run."""

    backends: tuple[str, ...]
    modes: Mapping[str, tuple[str, ...]]
    """The measured modes of each backend, in its order; a mode with several ranks is another one."""
    levels: Mapping[tuple[str, str], Level]
    """By backend and mode."""
    ranks: bool
    """Whether some row has several ranks."""

    def hue(self, cell: Cell) -> int:
        return self.backends.index(cell.backend)

    def hatch(self, cell: Cell) -> int:
        """Return the shape of a bar: it tells modes apart, as every bar has its name beside it."""
        return self.modes[cell.backend].index(mode_name(cell))

    def shape(self, cell: Cell) -> int:
        """Return the shape of a line or a dot: another one for every row, as far as there are enough."""
        rows = sorted(
            (place, self.backends.index(backend), mode)
            for backend, modes in self.modes.items()
            for place, mode in enumerate(modes)
        )
        return rows.index((self.hatch(cell), self.hue(cell), mode_name(cell)))

    def order(self, cell: Cell) -> tuple[int, int]:
        """Return a key that sorts cells by backend, mode and ranks."""
        return self.hue(cell), self.hatch(cell)

    def tags(self, cell: Cell) -> Tags:
        """Return what a row can be chosen by inside a chart."""
        tags = cell_tags(cell) | {"level": self.levels.get((cell.backend, cell.mode), "tuned")}
        return tags | (rank_tags(cell) if self.ranks else {})


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one group, in the summary's order."""

    key: GroupKey
    rows: tuple[CellSummary, ...]
    tags: Tags

    @property
    def title(self) -> str:
        """What the title of a chart begins with: `mnist-cnn`, or `mnist-cnn as taught`."""
        return workload_name(self.key.workload, self.key.level, self.key.ranks, self.key.scaling)

    def name(self, question: str) -> str:
        """Return the name of the chart that answers a question about the group."""
        key = self.key
        ranks = (str(key.ranks), key.scaling) if key.ranks > 1 else ()
        return chart_name(question, key.workload, key.device, key.precision, key.level, *ranks)

    def verdict(self, summary: Summary) -> Verdict:
        """Return the verdict on the group's rows."""
        return next(one for one in summary.verdicts if one.group == self.key)


def looks_of(run: Run, summary: Summary) -> Looks:
    known = {backend.name: tuple(backend.modes) for backend in run.header.backends}
    measured: dict[str, dict[str, str]] = {name: {} for name in known}
    for row in summary.cells:
        modes = measured.setdefault(row.backend, {})
        modes[mode_name(row.cell)] = row.mode
    return Looks(
        backends=tuple(measured),
        modes={
            name: tuple(sorted(modes, key=lambda said: _place_of(modes[said], known.get(name, ()))))
            for name, modes in measured.items()
        },
        levels={(row.backend, row.mode): row.level for row in summary.cells},
        ranks=has_ranks(summary),
    )


def _place_of(mode: str, modes: Sequence[str]) -> int:
    """Return the place of a mode; one that its backend does not name comes last."""
    return modes.index(mode) if mode in modes else len(modes)


def groups_of(summary: Summary, kept: frozenset[Cell] | None = None) -> list[Group]:
    """Return the groups of a run that have rows; with `kept`, of these rows only."""
    rows = [row for row in summary.cells if kept is None or row.cell in kept]
    return [
        Group(key=key, rows=tuple(found), tags=group_tags(key, summary))
        for key, found in groupby(rows, key=lambda row: row.group)
    ]


def place_tags(workload: str, device: str, precision: str) -> dict[str, str]:
    return {"workload": workload, "device": device, "precision": precision}


def cell_tags(cell: Cell) -> dict[str, str]:
    return {"backend": cell.backend, "mode": cell.mode}


def missing(row: CellSummary) -> str:
    """Return why a row has no bar, in a few words."""
    return state(row) if row.samples_per_s is None else "not measured"


def cell_bar(
    row: CellSummary,
    looks: Looks,
    summary: Summary,
    *,
    value: float | None,
    text: str,
    low: float | None = None,
    high: float | None = None,
) -> Bar:
    """Return the bar of a row, pale if the row is not ranked; without a value it says why."""
    said = f"{text}, {state(row)}" if not row.ranked else text
    return Bar(
        name=cell_name(row.cell, summary.titles),
        parts=(value,),
        text=missing(row) if value is None else said,
        low=low,
        high=high,
        hue=looks.hue(row.cell),
        shape=looks.hatch(row.cell),
        ranked=row.ranked,
        tags=looks.tags(row.cell),
    )


def same_units(groups: Sequence[Group]) -> bool:
    """Say whether all groups have one device and precision, so that a title need not name them."""
    return len({(group.key.device, group.key.precision) for group in groups}) <= 1
