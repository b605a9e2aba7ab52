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
from bench.report.blocks import Block, Heading, Paragraph, Picture, bullets, number_table, section
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
    if not learned.workloads:
        none = "No job of this run completed its training, so there is no accuracy."
        return section("Does it learn the same thing?", none)
    return [
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
    found = f"{first} and {second}: no detectable difference; {first} is ahead by {by}"
    if test.difference == 0:
        found = f"{first} and {second}: no detectable difference ({_interval_text(test)})"
    if test.detectable is not None:
        low, high = map(_points, test.detectable)
        found += f"; the smallest difference found four times in five is between {low} and {high}"
    shown = "shown" if test.equivalent else "not shown"
    return f"{found}; equivalence within {_points(EQUIVALENT)} is {shown}."


def defaults_sentence(pair: DefaultsAgainstMatched) -> str:
    """Say in one sentence how much the frameworks differ, matched and with their own defaults."""
    return (
        f"{pair.matched}: matched, the frameworks' mean accuracies differ by at most "
        f"{_points(pair.matched_spread)}; with their own defaults by at most {_points(pair.defaults_spread)}."
    )


def render_targets(targets: Sequence[ProposedTarget], console: Console) -> None:
    """Print the table of `bench targets`: each workload's target, and the figures from which it follows."""
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
        f"The target is the mean minus {TARGET_SDS} standard deviations of the final test accuracies of all "
        f"frameworks and seeds, rounded down to 0.1 points. It needs {FEWEST_SEEDS} seeds."
    )
    heads = ("workload", "seeds", "trainings", "epochs", "mean", "sd", "target")
    print_blocks([number_table(heads, rows), Paragraph(text=said, faint=True)], console)


def _curves() -> list[Block]:
    """Return the learning curves, and how to read them."""
    captions = {
        "accuracy_epochs": "Test accuracy by epochs, by workload",
        "accuracy_seconds": "Test accuracy by seconds of training, by workload",
        "loss_epochs": "Test loss by epochs, by workload",
        "loss_seconds": "Test loss by seconds of training, by workload",
    }
    return section(
        "Does it learn the same thing?",
        "On a matched workload every framework starts from the same weights and trains with the same batches "
        "in the same order, once for every seed. Curves that coincide therefore mean that the frameworks "
        "learn the same; by seconds of training, the faster one is ahead. A curve is the mean over the "
        "seeds, its band reaches from the lowest seed to the highest, and there is a marker at every whole "
        "epoch. The axis of accuracy by epochs starts at the lowest training after a quarter of the epochs; "
        "if it included the start, all curves would look the same. Evaluation, on the whole test split, is "
        "never included in the seconds.",
        *(Picture(name=name, caption=caption) for name, caption in captions.items()),
    )


def _to_target(learned: Convergence, titles: Mapping[str, str]) -> list[Block]:
    found = section(
        "Accuracy, and the time to the target",
        f"Accuracy is shown as mean {PLUS_MINUS} standard deviation between seeds; the interval is that of "
        f"the mean, by Student's t, from {FEWEST_SEEDS} seeds on. Epochs to target are the median over the "
        "seeds, interpolated between the evaluation before and the one after the target. Their distance is "
        "in brackets: the error is smaller than that. Seconds to target are these epochs times the seconds "
        "of an epoch. A training that never reached the target counts as later than all others; if the "
        "median falls on one, the table says 'not reached'. The interval of the rate is Wilson's.",
        Picture(name="to_target", caption="Seconds of training to the target, every seed a dot, by workload"),
        level=3,
    )
    for workload in learned.workloads:
        rows = [_row(cell, one, titles) for cell, one in workload.cells.items()]
        found += [Heading(text=_heading(workload), level=4), number_table(_HEADS, rows)]
    return found


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
    return section(
        "Does accuracy differ between frameworks?",
        "The final accuracies of two frameworks are compared seed by seed, each framework in its "
        "default mode, by a paired t test. Holm's method sets the levels over the pairs of a workload, "
        "and the interval of a difference has the level of its test. Two frameworks are called "
        "equivalent only if two one-sided tests show that they differ by less than "
        f"{_points(EQUIVALENT)}. A difference that was not found is not yet equivalence.",
        *found,
        level=3,
    )


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
    return section(
        "Is it the framework, or its defaults?",
        "Each framework trains the same network twice: matched, with the weights, batches and "
        "constants that all share, and with its own default initialisation, optimizer constants and "
        "order of the data. A difference between frameworks in the second column that is not in the "
        "first is due to the defaults. Each accuracy is the mean over the seeds at that epoch, with the "
        "lowest and the highest seed in brackets.",
        Picture(name="defaults", caption="Test accuracy matched, and with the frameworks' own defaults"),
        *found,
        level=3,
    )


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
