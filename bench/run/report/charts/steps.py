"""The charts of the losses of the first steps, against the float64 reference."""

from bench.analysis.first_steps import WorkloadFirstSteps, digits
from bench.analysis.first_steps import first_steps as read_first_steps
from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.blocks import Chart, Table
from bench.report.chart import Axis, Lines, Point, Series
from bench.report.format import cell_name
from bench.report.names import chart_name
from bench.report.scales import whole_ticks
from bench.run.report.charts.rows import Looks, looks_of, place_tags

_GREY = 6
"""The hue of the disturbed reference."""
_STEPS_ABOUT = (
    "Relative error of the loss at each step, against a reference in float64. The band shows the same "
    "reference with rounding errors alone: they explain a line inside it."
)


def first_steps(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart for every workload whose losses were compared with the reference."""
    looks = looks_of(run, summary)
    return [_first_steps(one, looks, summary) for one in read_first_steps(run)]


def _first_steps(found: WorkloadFirstSteps, looks: Looks, summary: Summary) -> Chart:
    # A logarithmic axis has no 0: an error of 0 is drawn at the lower end.
    errors = [error for cell in found.cells.values() for error in (*cell.errors, *cell.rounding)]
    bottom = min((error for error in errors if error > 0), default=1e-9) / 2
    rounding = max(found.cells.values(), key=lambda cell: len(cell.rounding)).rounding
    cells = sorted(found.cells, key=looks.order)
    disturbed = Series(
        name="disturbed reference",
        points=tuple(
            Point(x=step, y=max(error, bottom), low=bottom, high=max(error, bottom))
            for step, error in enumerate(rounding, start=1)
        ),
        hue=_GREY,
        marked=False,
        band=True,
    )
    lines = [
        Series(
            name=cell_name(cell, summary.titles),
            points=tuple(
                Point(x=step, y=max(error, bottom), text=f"step {step}, error {error:.1e}")
                for step, error in enumerate(found.cells[cell].errors, start=1)
            ),
            hue=looks.hue(cell),
            shape=looks.shape(cell),
            tags=looks.tags(cell),
        )
        for cell in cells
    ]
    last = max(len(rounding), *(len(one.points) for one in lines))
    return Chart(
        name=chart_name("first-steps", found.workload, found.device, found.precision),
        title=f"{found.workload}: {_agreement(found)}",
        about=_STEPS_ABOUT,
        drawn=Lines(
            x=Axis(title="training step", low=0.5, high=last + 0.5, ticks=whole_ticks(1, last)),
            y=Axis(title="relative error of the loss (logarithmic)", log=True),
            series=(disturbed, *lines),
        ),
        table=Table(
            heads=("framework", "error at step 1", "steps", "error at the last step", "rounding alone"),
            rows=tuple(
                (
                    cell_name(cell, summary.titles),
                    f"{found.cells[cell].errors[0]:.1e}",
                    str(len(found.cells[cell].errors)),
                    f"{found.cells[cell].errors[-1]:.1e}",
                    f"{found.cells[cell].rounding[-1]:.1e}",
                )
                for cell in cells
            ),
            numbers=frozenset({1, 2, 3, 4}),
            tags=tuple(looks.tags(cell) for cell in cells),
        ),
        tags=place_tags(found.workload, found.device, found.precision),
    )


def _agreement(found: WorkloadFirstSteps) -> str:
    last = found.steps
    first = f"losses agree with the reference to {_digits(found.error(1))} at step 1"
    if last == 1:
        return f"{first}; rounding alone gives {_digits(found.rounding(1))}"
    return (
        f"{first} and to {_digits(found.error(last))} at step {last}, where rounding alone leaves "
        f"{_digits(found.rounding(last))}"
    )


def _digits(error: float) -> str:
    count = digits(error)
    return f"{count} digit{'' if count == 1 else 's'}"
