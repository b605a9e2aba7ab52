"""The charts of where a step's time goes."""

from collections.abc import Sequence

from bench.analysis.costs import read_costs
from bench.analysis.summary import CellSummary, Summary
from bench.analysis.sweep import leave_out_sweep
from bench.records.runs import Run
from bench.report.blocks import Chart, Table
from bench.report.chart import Axis, Bar, Bars
from bench.report.format import cell_name, percent_text, short_time
from bench.run.report.charts.rows import Group, Looks, groups_of, looks_of
from bench.workloads.instruments import StepSplit

_PARTS = ("data", "transfer", "dispatch", "device")
_SPLIT_ABOUT = (
    "Shares of a step in which each part is finished before the next begins: means over the measured steps. "
    "On a CPU, dispatch may include the work of the device. The time at the end of a bar is their sum."
)


def step_split(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart for every group of rows whose steps were measured part by part."""
    splits = {one.cell: one.split for one in read_costs(run, summary).cells}
    looks = looks_of(run, summary)
    charts = []
    for group in groups_of(summary, leave_out_sweep(summary)):
        found = [(row, split) for row in group.rows if (split := splits[row.cell]) is not None]
        if found:
            charts.append(_step_split(group, found, looks, summary))
    return charts


def _parts(split: StepSplit) -> tuple[float, ...]:
    return split.data_s, split.transfer_s, split.dispatch_s, split.device_s


def _share(split: StepSplit, *parts: float) -> float:
    whole = sum(_parts(split))
    return sum(parts) / whole if whole else 0.0


def _step_split(
    group: Group, found: Sequence[tuple[CellSummary, StepSplit]], looks: Looks, summary: Summary
) -> Chart:
    row, most = max(found, key=lambda pair: _share(pair[1], pair[1].data_s, pair[1].transfer_s))
    waiting = percent_text(_share(most, most.data_s, most.transfer_s))
    return Chart(
        name=group.name("step-split"),
        title=(
            f"{group.title}: getting a batch to the device takes at most {waiting} of a step "
            f"({cell_name(row.cell, summary.titles)})"
        ),
        about=_SPLIT_ABOUT,
        drawn=Bars(
            axis=Axis(title="share of the step", unit="percent", high=100.0),
            parts=_PARTS,
            bars=tuple(
                Bar(
                    name=cell_name(row.cell, summary.titles),
                    parts=tuple(min(100.0, 100 * _share(split, part)) for part in _parts(split)),
                    text=short_time(sum(_parts(split))),
                    hue=looks.hue(row.cell),
                    shape=looks.hatch(row.cell),
                    tags=looks.tags(row.cell),
                )
                for row, split in found
            ),
        ),
        table=Table(
            heads=("framework", *_PARTS, "sum"),
            rows=tuple(
                (
                    cell_name(row.cell, summary.titles),
                    *map(short_time, _parts(split)),
                    short_time(sum(_parts(split))),
                )
                for row, split in found
            ),
            numbers=frozenset(range(1, len(_PARTS) + 2)),
            tags=tuple(looks.tags(row.cell) for row, _ in found),
        ),
        tags=group.tags,
    )
