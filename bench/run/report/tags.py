"""What a reader of a run's page can choose by, such as the workload or the framework."""

from collections.abc import Sequence

from backends.info import Level
from bench.analysis.comparison import GroupKey
from bench.analysis.summary import Summary
from bench.report.chart import Tags
from bench.report.page import Choice
from bench.workloads.specs import Cell, Device, Precision


def choices(summaries: Sequence[Summary]) -> tuple[Choice, ...]:
    """Return every choice on a page about these runs, in the order in which the page offers them."""
    titles = {name: title for summary in summaries for name, title in summary.titles.items()}
    return (
        Choice(key="run", label="Run"),
        Choice(key="workload", label="Workload"),
        Choice(key="level", label="Level", names={"taught": "as taught"}),
        Choice(key="backend", label="Framework", names=titles),
        Choice(key="mode", label="Mode"),
        Choice(key="device", label="Device", names={"cpu": "CPU", "gpu": "GPU"}),
        Choice(key="precision", label="Precision"),
        Choice(key="ranks", label="Ranks"),
        Choice(key="scaling", label="Scaling"),
        Choice(key="metric", label="Metric"),
    )


def place_tags(
    workload: str, device: Device, precision: Precision, level: Level | None = None
) -> dict[str, str]:
    """Return the tags of what is about a workload on a device, at one level or at all."""
    tags: dict[str, str] = {"workload": workload, "device": device, "precision": precision}
    return tags if level is None else tags | {"level": level}


def group_tags(key: GroupKey, summary: Summary) -> dict[str, str]:
    """Return the tags of what is about a group of rows."""
    tags = place_tags(key.workload, key.device, key.precision, key.level)
    return tags | (rank_tags(key) if has_ranks(summary) else {})


def has_ranks(summary: Summary) -> bool:
    """Whether some row of a run has several ranks, so that a reader can choose by their number."""
    return any(row.ranks > 1 for row in summary.cells)


def rank_tags(one: Cell | GroupKey) -> dict[str, str]:
    """Return the tags of ranks; one rank trains the same in either scaling, so it fits both."""
    ranks = {"ranks": str(one.ranks)}
    return ranks if one.ranks == 1 else ranks | {"scaling": one.scaling}


class RowTags:
    """The tags of rows, for a run whose summary tells the level of each."""

    def __init__(self, summary: Summary) -> None:
        self._levels: dict[Cell, Level] = {row.cell: row.level for row in summary.cells}
        self._has_ranks = has_ranks(summary)

    def of(self, cell: Cell) -> Tags:
        """Return the tags of a row; without a level if the run did not plan the row."""
        place = place_tags(cell.workload, cell.device, cell.precision, self._levels.get(cell))
        mode = {"backend": cell.backend, "mode": cell.mode}
        return place | mode | (rank_tags(cell) if self._has_ranks else {})
