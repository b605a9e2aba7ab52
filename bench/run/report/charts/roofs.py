"""The charts of the roofline: how much of what the machine allows each row reaches."""

from collections.abc import Iterable, Iterator, Sequence

from bench.analysis.costs import CellCosts, Place, read_costs, roof
from bench.analysis.summary import Summary
from bench.analysis.sweep import leave_out_sweep
from bench.records.runs import Run
from bench.report.blocks import Chart, Table
from bench.report.chart import Axis, Lines, Mark, Point, Series
from bench.report.format import NOTHING, cell_name, percent, scaled
from bench.report.names import chart_name
from bench.run.report.charts.rows import Looks, looks_of
from bench.workloads.instruments import Peak

_BLACK = 6
"""The hue of the roof."""
_ROOM = 0.45
"""How far the axis goes on below the lowest point, relative to what lies above."""
_ROOF_ABOUT = (
    "The line is the most that this machine allows, from the best matrix product and the best copy of this "
    "run. A point is a row: the nearer to the line, the less can be gained."
)


def roofline(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart for every device and precision of which the machine's peak was measured."""
    kept, looks = leave_out_sweep(summary), looks_of(run, summary)
    places: dict[Place, list[CellCosts]] = {}
    for one in read_costs(run, summary).cells:
        if one.cell in kept and one.work is not None and one.flops_per_s and one.ceiling is not None:
            places.setdefault((one.cell.device, one.cell.precision), []).append(one)
    return [_roofline(place, found, looks, summary) for place, found in places.items()]


def _roofline(place: Place, found: Sequence[CellCosts], looks: Looks, summary: Summary) -> Chart:
    ceiling = found[0].ceiling or Peak(flops_per_s=1.0, bytes_per_s=1.0)
    spots = [(one, one.work.intensity, one.flops_per_s or 1.0) for one in found if one.work]
    ridge = ceiling.flops_per_s / ceiling.bytes_per_s
    left = min(ridge, *(intensity for _, intensity, _ in spots)) / 4
    right = max(ridge, *(intensity for _, intensity, _ in spots)) * 4
    lowest, highest = min(reached for *_, reached in spots), ceiling.flops_per_s
    best = max(found, key=lambda one: one.share_of_roof or 0.0)
    line = Series(
        name="the machine's limit",
        points=tuple(Point(x=intensity, y=roof(ceiling, intensity)) for intensity in (left, ridge, right)),
        hue=_BLACK,
        marked=False,
    )
    return Chart(
        name=chart_name("roofline", *place),
        title=(
            f"On the {place[0].upper()} in {place[1]}, {cell_name(best.cell, summary.titles)} on "
            f"{best.cell.workload} is nearest to what the machine allows: {percent(best.share_of_roof, 0)}"
        ),
        about=_ROOF_ABOUT,
        drawn=Lines(
            x=Axis(title="operations for each byte moved (logarithmic)", log=True, low=left, high=right),
            y=Axis(
                title="operations per second (logarithmic)",
                unit="FLOP/s",
                log=True,
                # Below the points there is room for the names of the workloads.
                low=lowest * (lowest / max(highest, 2 * lowest)) ** _ROOM,
            ),
            series=(line, *_points(spots, looks, summary)),
            x_marks=_intensities(found),
        ),
        table=_roof_table(found, looks, summary),
        tags={"device": place[0], "precision": place[1]},
    )


def _points(
    spots: Iterable[tuple[CellCosts, float, float]], looks: Looks, summary: Summary
) -> Iterator[Series]:
    """Yield the points of each mode. `spots` are rows with their intensity and the FLOP/s they reached."""
    modes: dict[tuple[str, str], list[tuple[CellCosts, float, float]]] = {}
    for one, intensity, reached in spots:
        modes.setdefault((one.cell.backend, one.cell.mode), []).append((one, intensity, reached))
    for members in sorted(modes.values(), key=lambda members: looks.order(members[0][0].cell)):
        first = members[0][0].cell
        yield Series(
            name=cell_name(first, summary.titles),
            points=tuple(
                Point(
                    x=intensity,
                    y=reached,
                    text=f"{one.cell.workload}, {scaled(reached, 'FLOP/s')}, "
                    f"{percent(one.share_of_roof, 0)} of the roof",
                )
                for one, intensity, reached in members
            ),
            hue=looks.hue(first),
            shape=looks.shape(first),
            joined=False,
            tags=looks.tags(first),
        )


def _intensities(found: Sequence[CellCosts]) -> tuple[Mark, ...]:
    """Return a mark at the intensity of each workload; those of the same intensity share one."""
    names: dict[float, list[str]] = {}
    for one in found:
        if one.work is not None:
            known = names.setdefault(one.work.intensity, [])
            if one.cell.workload not in known:
                known.append(one.cell.workload)
    return tuple(Mark(value=value, text=", ".join(workloads)) for value, workloads in names.items())


def _roof_table(found: Sequence[CellCosts], looks: Looks, summary: Summary) -> Table:
    return Table(
        heads=("workload", "framework", "FLOP/byte", "reached", "of peak", "of the limit"),
        rows=tuple(
            (
                one.cell.workload,
                cell_name(one.cell, summary.titles),
                NOTHING if one.work is None else f"{one.work.intensity:.3g}",
                scaled(one.flops_per_s, "FLOP/s"),
                percent(one.share_of_peak, 1),
                percent(one.share_of_roof, 1),
            )
            for one in found
        ),
        numbers=frozenset({2, 3, 4, 5}),
        tags=tuple({"workload": one.cell.workload, **looks.tags(one.cell)} for one in found),
    )
