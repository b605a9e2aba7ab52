"""The charts of learning: accuracy against epochs, and against seconds of training."""

from collections.abc import Mapping
from types import MappingProxyType

from bench.analysis.accuracy import (
    EQUIVALENT,
    SEEDS_NEEDED,
    Conclusion,
    WorkloadConvergence,
    converge,
)
from bench.analysis.convergence import CellConvergence, CurvePoint, is_too_brief
from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.blocks import Chart, Table, lean
from bench.report.chart import Axis, Lines, Mark, Point, Series
from bench.report.format import DASH, NOTHING, PLUS_MINUS, cell_name, percent, seconds_text
from bench.report.names import chart_name
from bench.report.scales import whole_ticks
from bench.run.report.charts.rows import Looks, looks_of, place_tags
from bench.run.report.tables import TOO_BRIEF
from bench.text import listed
from bench.workloads.specs import Cell

_EPOCHS_ABOUT = "Every framework starts from the same weights and takes the same batches."
_SECONDS_ABOUT = "Seconds of training, without start-up and evaluation: further left is faster."
_SEVERAL_SEEDS = (
    " A line is the mean over the seeds, and its band reaches from the lowest seed to the highest."
)
_ONE_SEED = " A line is one training run, as there is one seed."
_HINDRANCES: Mapping[Conclusion, str] = MappingProxyType(
    {
        "too brief": "trained too briefly to compare accuracies",
        "diverged": "some trainings diverged, so nothing is claimed about accuracies",
        "unequal epochs": "trained for unequal numbers of epochs, so accuracies cannot be compared",
    }
)


def accuracy_epochs(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart of accuracy against epochs for every workload that was trained."""
    looks = looks_of(run, summary)
    return [_epochs(one, summary, looks) for one in _trained(run)]


def accuracy_seconds(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart of accuracy against seconds of training for every workload that was trained."""
    looks = looks_of(run, summary)
    return [_seconds(one, summary, looks) for one in _trained(run)]


def _trained(run: Run) -> list[WorkloadConvergence]:
    return [one for one in converge(run).workloads if any(cell.curve for cell in one.cells.values())]


def _tags(one: WorkloadConvergence) -> dict[str, str]:
    return place_tags(one.workload, one.device, one.precision)


def _name(question: str, one: WorkloadConvergence) -> str:
    return chart_name(question, one.workload, one.device, one.precision)


# ---- curves


def _epochs(one: WorkloadConvergence, summary: Summary, looks: Looks) -> Chart:
    low, high = _late_limits(one)
    last = max(point.epoch for cell in one.cells.values() for point in cell.curve)
    series = _curves(one, summary, looks, by_seconds=False)
    return Chart(
        name=_name("accuracy-epochs", one),
        title=f"{one.workload}: {_learned(one, summary)}",
        about=_EPOCHS_ABOUT + _lines(one),
        drawn=Lines(
            x=Axis(title="epochs of training", low=0.0, ticks=whole_ticks(0, last) if last >= 2 else None),
            y=Axis(title="test accuracy", unit="percent", low=low, high=high),
            series=series,
            marks=_target_marks(one),
        ),
        table=_accuracy_table(one, summary, looks),
        tags=_tags(one),
    )


def _seconds(one: WorkloadConvergence, summary: Summary, looks: Looks) -> Chart:
    low, high = _late_limits(one)
    return Chart(
        name=_name("accuracy-seconds", one),
        title=f"{one.workload}: {_soonest(one, summary)}",
        about=_SECONDS_ABOUT + _lines(one),
        drawn=Lines(
            x=Axis(title="seconds of training", unit="number", low=0.0),
            y=Axis(title="test accuracy", unit="percent", low=low, high=high),
            series=_curves(one, summary, looks, by_seconds=True),
            marks=_target_marks(one),
        ),
        table=_accuracy_table(one, summary, looks),
        tags=_tags(one),
    )


def _lines(one: WorkloadConvergence) -> str:
    """Say what a line is made of."""
    several = any(len(cell.accuracies) > 1 for cell in one.cells.values())
    return _SEVERAL_SEEDS if several else _ONE_SEED


def _curves(
    one: WorkloadConvergence, summary: Summary, looks: Looks, *, by_seconds: bool
) -> tuple[Series, ...]:
    wrong = {row.cell for row in summary.cells if row.parity_ok is False}
    found = []
    for cell in sorted(one.cells, key=looks.order):
        curve = one.cells[cell].curve
        if not curve:
            continue
        name = cell_name(cell, summary.titles) + (" (not comparable)" if cell in wrong else "")
        several = len(one.cells[cell].accuracies) > 1
        points = [_curve_point(point, by_seconds=by_seconds, several=several) for point in curve]
        found.append(
            Series(
                name=name,
                points=tuple(points),
                hue=looks.hue(cell),
                shape=looks.shape(cell),
                band=several,
                tags=looks.tags(cell),
            )
        )
    return tuple(found)


def _curve_point(point: CurvePoint, *, by_seconds: bool, several: bool) -> Point:
    accuracy, low, high = (
        100 * share for share in (point.test_accuracy, point.accuracy_low, point.accuracy_high)
    )
    seeds = f" ({low:.2f}{DASH}{high:.2f} over the seeds)" if several else ""
    return Point(
        x=point.train_s if by_seconds else point.epoch,
        y=accuracy,
        low=low if several else None,
        high=high if several else None,
        text=f"{accuracy:.2f} %{seeds} after {point.epoch:.3g} epochs, {seconds_text(point.train_s)}",
    )


def _late_limits(one: WorkloadConvergence) -> tuple[float, float]:
    """Return the ends of an axis with every seed after a quarter of the epochs, and the target.

    On an axis that includes the start, all seeds and frameworks would look like one line.
    """
    late = [
        100 * end
        for learned in one.cells.values()
        for point in learned.curve
        if 4 * point.epoch >= learned.curve[-1].epoch
        for end in (point.accuracy_low, point.accuracy_high)
    ]
    shown = late if one.target is None else [*late, 100 * one.target]
    room = 0.1 * max(max(shown) - min(shown), 0.1)
    return max(0.0, min(shown) - room), min(100.0, max(shown) + room)


def _target_marks(one: WorkloadConvergence) -> tuple[Mark, ...]:
    if one.target is None:
        return ()
    return (Mark(value=100 * one.target, text=f"target {target_text(one.target)}"),)


def target_text(target: float) -> str:
    """Return a target as a percentage: `97 %`, `62.5 %`."""
    return percent(target, 0 if round(1000 * target) % 10 == 0 else 1)


def _learned(one: WorkloadConvergence, summary: Summary) -> str:
    """Say whether the frameworks are proven to learn the same."""
    if not one.comparisons:
        return "one framework was trained, so there is nothing to compare it with"
    conclusions = {pair.conclusion for pair in one.comparisons}
    bound = f"{100 * EQUIVALENT:g} points"
    if conclusions == {"equivalent"}:
        seeds = min(pair.seeds for pair in one.comparisons)
        names = listed([summary.titles.get(cell.backend, cell.backend) for cell in one.representatives])
        return f"{names} learn the same: accuracies equal within {bound} ({seeds} seeds)"
    if conclusions <= {"equivalent", "not shown"}:
        proven = sum(pair.conclusion == "equivalent" for pair in one.comparisons)
        return f"accuracies are proven equal within {bound} for {proven} of {len(one.comparisons)} pairs"
    return _untested(one, conclusions)


def _untested(one: WorkloadConvergence, conclusions: set[Conclusion]) -> str:
    """Say why accuracies were not tested, for the pairs that were not."""
    for conclusion, why in _HINDRANCES.items():
        if conclusion in conclusions:
            return why
    finals = [100 * (one.cells[cell].accuracy or 0.0) for cell in one.representatives]
    seeds = min(pair.seeds for pair in one.comparisons)
    what, count = ("accuracies", "1 seed") if seeds == 1 else ("mean accuracies", f"{seeds} seeds")
    return (
        f"{what} differ by at most {max(finals) - min(finals):.2f} points; with {count} nothing is proven "
        f"({SEEDS_NEEDED} are needed)"
    )


def _soonest(one: WorkloadConvergence, summary: Summary) -> str:
    """Say which row ends its training first, and how long the others take: of tuned rows, if there are any.

    Rows as taught load their data in another way, so they are compared among themselves alone.
    """
    taught = {row.cell for row in summary.cells if row.level == "taught"}
    trained = {name: cell for name, cell in one.cells.items() if cell.curve}
    tuned = {name: cell for name, cell in trained.items() if name not in taught}
    compared = tuned or trained
    ends = sorted(
        (cell.curve[-1].train_s, cell_name(name, summary.titles), cell.curve[-1].epoch)
        for name, cell in compared.items()
    )
    first_s, first, epochs = ends[0]
    count = f"{epochs:.3g} epoch{'' if epochs == 1 else 's'}"
    seeds = min(len(cell.accuracies) for cell in compared.values())
    by = f"means over {seeds} seeds" if seeds > 1 else "one seed"
    if len(compared) < len(trained):
        by = f"tuned, {by}"
    if len(ends) == 1 or len({epochs for *_, epochs in ends}) > 1:
        return f"{first} trains {count} in {seconds_text(first_s)} ({by})"
    last_s, last, _ = ends[-1]
    times = f"after {seconds_text(first_s)}; {last} takes {seconds_text(last_s)}"
    return f"{first} ends {count} first, {times} ({by})"


def _accuracy_table(one: WorkloadConvergence, summary: Summary, looks: Looks) -> Table:
    cells = [cell for cell in sorted(one.cells, key=looks.order) if one.cells[cell].curve]
    table = Table(
        heads=("framework", "seeds", "epochs", "seconds", "test accuracy", "95 % interval"),
        rows=tuple(_accuracy_row(cell, one.cells[cell], summary) for cell in cells),
        numbers=frozenset(range(1, 6)),
        tags=tuple(looks.tags(cell) for cell in cells),
    )
    return lean(table, {"95 % interval": NOTHING})


def _accuracy_row(cell: Cell, learned: CellConvergence, summary: Summary) -> tuple[str, ...]:
    brief = learned.epochs is not None and is_too_brief(learned.epochs)
    spread = "" if learned.accuracy_sd is None else f" {PLUS_MINUS} {100 * learned.accuracy_sd:.2f}"
    accuracy = NOTHING if learned.accuracy is None else f"{100 * learned.accuracy:.2f}{spread} %"
    interval = NOTHING
    if learned.accuracy_low is not None and learned.accuracy_high is not None and not brief:
        interval = f"{100 * learned.accuracy_low:.2f}{DASH}{100 * learned.accuracy_high:.2f} %"
    return (
        cell_name(cell, summary.titles),
        str(len(learned.accuracies)),
        NOTHING if learned.epochs is None else f"{learned.epochs:g}",
        seconds_text(learned.curve[-1].train_s),
        TOO_BRIEF if brief else accuracy,
        interval,
    )
