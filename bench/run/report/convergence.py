"""Learning in a run: the section of the report, and the table of `bench targets`."""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console

from bench.analysis.accuracy import (
    EQUIVALENT,
    TARGET_SDS,
    AccuracyComparison,
    AccuracyTest,
    Convergence,
    DefaultsAgainstMatched,
    ProposedTarget,
    WorkloadConvergence,
    converge,
)
from bench.analysis.convergence import FEWEST_SEEDS, CellConvergence, CurvePoint
from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.blocks import Block, Heading, Paragraph, Picture, bullets, number_table
from bench.report.format import DASH, NOTHING, PLUS_MINUS, cell_name, percent, seconds_text
from bench.report.terminal import print_blocks
from bench.workloads.specs import Cell

_HEADS = (
    "framework",
    "seeds",
    "epochs",
    "test accuracy",
    "95 % interval",
    "epochs to target",
    "seconds to target",
    "reached it",
    "95 % interval of that rate",
)


def blocks(run: Run, summary: Summary) -> list[Block]:
    """Return the section on learning."""
    learned = converge(run)
    heading = Heading(text="Does it learn the same thing?")
    if not learned.workloads:
        none = "No job of this run trained to its end, so there is no accuracy."
        return [heading, Paragraph(text=none)]
    return [
        heading,
        *_curves(),
        *_to_target(learned, summary.titles),
        *_tests(learned, summary.titles),
        *_defaults(learned.defaults, summary.titles),
    ]


def comparison_sentence(comparison: AccuracyComparison, titles: Mapping[str, str]) -> str:
    """Say in one sentence what the test of two frameworks' accuracies found."""
    first, second = (cell_name(cell, titles) for cell in (comparison.first, comparison.second))
    test = comparison.test
    if test is None:
        return f"{first} and {second}: not tested: {_count(comparison.seeds, 'shared seed')}."
    by = f"{_points(test.difference)} ({_interval_text(test)})"
    if test.differs:
        small = f", and less than {_points(EQUIVALENT)}" if test.equivalent else ""
        return f"{first} is more accurate than {second} by {by}{small}."
    found = f"{first} and {second}: no detectable difference; {first} is ahead by {by}; "
    if test.difference == 0:
        found = f"{first} and {second}: no detectable difference ({_interval_text(test)}); "
    found += f"one of {_points(test.detectable)} would have been found four times in five"
    shown = "shown" if test.equivalent else "not shown"
    return f"{found}; equivalence within {_points(EQUIVALENT)} is {shown}."


def defaults_sentence(pair: DefaultsAgainstMatched) -> str:
    """Say in one sentence how far the frameworks lie apart, matched and with their own defaults."""
    return (
        f"{pair.matched}: matched, the frameworks' mean accuracies lie within {_points(pair.matched_spread)} "
        f"of each other; with their own defaults within {_points(pair.defaults_spread)}."
    )


def render_targets(targets: Sequence[ProposedTarget], console: Console) -> None:
    """Print the table of `bench targets`: each workload's target, and the figures it is made of."""
    rows = [
        (
            one.workload,
            str(one.seeds),
            str(one.trainings),
            f"{one.epochs:g}",
            percent(one.mean, 2),
            percent(one.sd, 2),
            percent(one.target, 1),
        )
        for one in targets
    ]
    said = (
        f"The target is the mean less {TARGET_SDS} standard deviations of the final test accuracies of all "
        f"frameworks and seeds, rounded down to 0.1 points; it takes {FEWEST_SEEDS} seeds."
    )
    heads = ("workload", "seeds", "trainings", "epochs", "mean", "sd", "target")
    print_blocks([number_table(heads, rows), Paragraph(text=said, faint=True)], console)


def _curves() -> list[Block]:
    """Return how the curves are read, and the curves."""
    return [
        Paragraph(
            text="Where a workload is matched, every framework starts from the same weights and trains with "
            "the same batches in the same order, once for every seed, so curves that lie on each other mean "
            "that the frameworks learn the same; against seconds of training the faster one runs ahead. A "
            "curve is the mean over the seeds, its band reaches from the lowest seed to the highest, and a "
            "marker stands at every whole epoch. Against epochs, accuracy is shown from where the lowest "
            "training stood after a quarter of them, since on an axis with the start all would lie on one "
            "line. Evaluation, on the whole test split, is never part of the seconds."
        ),
        *(
            Picture(name=name, caption=f"{what}, by workload")
            for name, what in (
                ("accuracy_epochs", "Test accuracy against epochs"),
                ("accuracy_seconds", "Test accuracy against seconds of training"),
                ("loss_epochs", "Test loss against epochs"),
                ("loss_seconds", "Test loss against seconds of training"),
            )
        ),
    ]


def _to_target(learned: Convergence, titles: Mapping[str, str]) -> list[Block]:
    head: list[Block] = [
        Heading(text="Accuracy, and the way to the target", level=3),
        Paragraph(
            text=f"Read the accuracy as mean {PLUS_MINUS} standard deviation between seeds; its interval is "
            f"that of the mean, by Student's t, given from {FEWEST_SEEDS} seeds on. Epochs to target are "
            "medians over the seeds, interpolated between the two evaluations on either side of the target, "
            "whose distance stands in brackets: the figure is off by less than that. Seconds to target are "
            "these epochs times the seconds of an epoch. A training that never reached the target counts as "
            "later than all others, and where the median falls on one it is given as not reached. The "
            "interval of the rate is Wilson's."
        ),
        Picture(name="to_target", caption="Seconds of training to the target, every seed a dot, by workload"),
    ]
    for workload in learned.workloads:
        rows = [_row(cell, found, titles) for cell, found in workload.cells.items()]
        head += [Heading(text=_heading(workload), level=4), number_table(_HEADS, rows)]
    return head


def _heading(workload: WorkloadConvergence) -> str:
    said = [f"{workload.device} {workload.precision}"]
    if workload.target is not None:
        said.append(f"target {percent(workload.target, 1)}")
    if not workload.matched:
        said.append("own defaults")
    return f"{workload.workload} ({', '.join(said)})"


def _row(cell: Cell, learned: CellConvergence, titles: Mapping[str, str]) -> list[str]:
    seeds = str(len(learned.accuracies))
    spread = "" if learned.accuracy_sd is None else f" {PLUS_MINUS} {100 * learned.accuracy_sd:.2f}"
    bracket = "" if learned.bracket_epochs is None else f" [{learned.bracket_epochs:.2g}]"
    trials = len(learned.crossings)
    missed = "not reached" if trials else NOTHING
    return [
        cell_name(cell, titles),
        f"{seeds}, {learned.diverged} diverged" if learned.diverged else seeds,
        NOTHING if learned.epochs is None else f"{learned.epochs:g}",
        NOTHING if learned.accuracy is None else f"{100 * learned.accuracy:.2f}{spread} %",
        _range_text(learned.accuracy_low, learned.accuracy_high, 2),
        missed if learned.epochs_to_target is None else f"{learned.epochs_to_target:.2f}{bracket}",
        missed if learned.seconds_to_target is None else seconds_text(learned.seconds_to_target),
        f"{learned.successes} of {trials}" if trials else NOTHING,
        _range_text(learned.success_low, learned.success_high, 0),
    ]


def _tests(learned: Convergence, titles: Mapping[str, str]) -> list[Block]:
    found: list[Block] = []
    for workload in learned.workloads:
        if workload.comparisons:
            found.append(Heading(text=_heading(workload), level=4))
            found.append(bullets(comparison_sentence(one, titles) for one in workload.comparisons))
    if not found:
        return []
    return [
        Heading(text="Does accuracy differ between frameworks?", level=3),
        Paragraph(
            text="Final accuracies of two frameworks are compared seed by seed, each framework in the mode "
            "that its documentation teaches: a paired t test, the levels set by Holm's method over the pairs "
            "of a workload, and the interval of the difference made at its own level. Two frameworks are "
            f"called equivalent only where two one-sided tests show that less than {_points(EQUIVALENT)} "
            "lies between them; a difference that was not found is not yet equivalence."
        ),
        *found,
    ]


def _defaults(pairs: Iterable[DefaultsAgainstMatched], titles: Mapping[str, str]) -> list[Block]:
    found: list[Block] = []
    for pair in pairs:
        rows = [
            (
                cell_name(row.matched, titles),
                _point_text(row.matched_point),
                _point_text(row.defaults_point),
                f"{100 * (row.defaults_point.test_accuracy - row.matched_point.test_accuracy):+.2f}",
            )
            for row in pair.rows
        ]
        where = f"{pair.device} {pair.precision}, epoch {pair.epoch:g}"
        found += [
            Heading(text=f"{pair.matched} ({where})", level=4),
            number_table(("framework", pair.matched, pair.defaults, "difference in points"), rows),
            Paragraph(text=defaults_sentence(pair)),
        ]
    if not found:
        return []
    return [
        Heading(text="Is it the framework, or its defaults?", level=3),
        Paragraph(
            text="Each framework trains the same network twice: matched, with the weights, batches and "
            "constants that all share, and with its own default initialisation, optimizer constants and "
            "order of the data. What lies between frameworks in the second column and not in the first is "
            "the work of defaults. Each accuracy is the mean over the seeds at that epoch, the lowest and "
            "the highest seed in brackets."
        ),
        Picture(
            name="defaults", caption="Test accuracy matched, and with the frameworks' own defaults"
        ),
        *found,
    ]


def _interval_text(test: AccuracyTest) -> str:
    low, high = (f"{100 * end:+.2f}" for end in (test.low, test.high))
    return f"{percent(1 - test.alpha, 1)} interval {low} to {high}, adjusted p {test.p_adjusted:.2g}"


def _points(share: float) -> str:
    return f"{100 * share:.2f} points"


def _point_text(point: CurvePoint) -> str:
    low, high = 100 * point.accuracy_low, 100 * point.accuracy_high
    return f"{percent(point.test_accuracy, 2)} [{low:.2f}{DASH}{high:.2f}]"


def _range_text(low: float | None, high: float | None, digits: int) -> str:
    if low is None or high is None:
        return NOTHING
    return f"{100 * low:.{digits}f}{DASH}{100 * high:.{digits}f} %"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
