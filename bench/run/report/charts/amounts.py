"""The charts of what a row takes: memory, and energy."""

from collections.abc import Callable, Sequence

from bench.analysis.costs import CellCosts, read_costs
from bench.analysis.summary import CellSummary, Summary
from bench.analysis.sweep import leave_out_sweep
from bench.records.runs import Run
from bench.report.blocks import Chart, Table
from bench.report.chart import Axis, Bar, Bars
from bench.report.format import bytes_text, cell_name
from bench.run.report.charts.rows import Looks, cell_bar, groups_of, looks_of

_MEMORY_ABOUT = "The largest resident memory of the row's processes, up to the end of the timed windows."
_GPU_ABOUT = (
    "The most that the framework's own allocator held on the GPU, the largest of the row's processes."
)
_ENERGY_ABOUT = (
    "Energy for 1,000 training images, the median over the processes, with what the machine draws at rest."
)


def memory(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart of the memory of the processes for every group of rows that has any."""
    return _charts(
        run,
        summary,
        name="memory",
        what="memory",
        axis=Axis(title="peak memory of the process, less is better", unit="bytes"),
        about=_MEMORY_ABOUT,
        value=lambda one: one.peak_rss_bytes,
        text=lambda value: bytes_text(round(value)),
    )


def gpu_memory(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart of the frameworks' memory on the GPU for every group of rows that used any."""
    return _charts(
        run,
        summary,
        name="gpu-memory",
        what="memory on the GPU",
        axis=Axis(title="peak memory on the GPU, less is better", unit="bytes"),
        about=_GPU_ABOUT,
        value=lambda one: one.peak_device_bytes,
        text=lambda value: bytes_text(round(value)),
    )


def energy(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart for every group of rows whose energy was measured."""
    return _charts(
        run,
        summary,
        name="energy",
        what="energy",
        axis=Axis(title="joules for 1,000 images, less is better"),
        about=_ENERGY_ABOUT,
        value=lambda one: one.joules_per_1000,
        text=lambda value: f"{value:.3g} J",
    )


def _charts(
    run: Run,
    summary: Summary,
    *,
    name: str,
    what: str,
    axis: Axis,
    about: str,
    value: Callable[[CellCosts], float | None],
    text: Callable[[float], str],
) -> list[Chart]:
    values = {one.cell: value(one) for one in read_costs(run, summary).cells}
    looks = looks_of(run, summary)
    charts = []
    for group in groups_of(summary, leave_out_sweep(summary)):
        known = [(row, found) for row in group.rows if (found := values[row.cell]) is not None]
        if known:
            rows = sorted(group.rows, key=lambda row: _last_if_none(values[row.cell]))
            bars = [_use_bar(row, values[row.cell], text, looks, summary) for row in rows]
            charts.append(
                Chart(
                    name=group.name(name),
                    title=f"{group.title}: {_least_and_most(known, what, text, summary)}",
                    about=about,
                    drawn=Bars(axis=axis, bars=tuple(bars)),
                    table=Table(
                        heads=("framework", what),
                        rows=tuple((bar.name, bar.text) for bar in bars),
                        numbers=frozenset({1}),
                        tags=tuple(looks.tags(row.cell) for row in rows),
                    ),
                    tags=group.tags,
                )
            )
    return charts


def _last_if_none(value: float | None) -> float:
    return float("inf") if value is None else value


def _use_bar(
    row: CellSummary, value: float | None, text: Callable[[float], str], looks: Looks, summary: Summary
) -> Bar:
    said = "" if value is None else text(value)
    return cell_bar(row, looks, summary, value=value, text=said)


def _least_and_most(
    known: Sequence[tuple[CellSummary, float]], what: str, text: Callable[[float], str], summary: Summary
) -> str:
    ordered = sorted(known, key=lambda pair: pair[1])
    (first, least), (last, most) = ordered[0], ordered[-1]
    if len(known) > 1 and text(least) == text(most):
        return f"all rows take {text(least)} of {what}"
    if len(known) == 1:
        return f"{cell_name(first.cell, summary.titles)} takes {text(least)} of {what}"
    said = f"{cell_name(first.cell, summary.titles)} takes the least {what}, {text(least)}"
    return f"{said}; {cell_name(last.cell, summary.titles)} the most, {text(most)}"
