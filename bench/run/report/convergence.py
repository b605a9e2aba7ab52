"""Learning in a run: the section of the report, its short form, and the table of `bench targets`."""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console

from bench.analysis.accuracy import (
    EQUIVALENCE_ALPHA,
    EQUIVALENT,
    SEEDS_NEEDED,
    TARGET_SDS,
    AccuracyComparison,
    Convergence,
    DefaultsAgainstMatched,
    ProposedTarget,
    WorkloadConvergence,
    converge,
)
from bench.analysis.convergence import FEWEST_SEEDS, LONG_ENOUGH, CellConvergence, CurvePoint, is_too_brief
from bench.analysis.first_steps import first_steps
from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.blocks import Block, Heading, Paragraph, Picture, bullets, number_table, section
from bench.report.format import DASH, NOTHING, PLUS_MINUS, cell_name, percent, seconds_text
from bench.report.terminal import print_blocks
from bench.run.report import first_steps as steps
from bench.run.report.tables import TOO_BRIEF
from bench.run.untrained import command_to_train, untrained
from bench.text import listed
from bench.workloads.specs import Cell

INTERVAL = f"{100 * (1 - 2 * EQUIVALENCE_ALPHA):g} %"
"""The confidence of the interval that belongs to two one-sided tests."""

_HEADS = ("framework", "seeds", "epochs", "test accuracy", "95 % interval")
_TARGET_HEADS = (
    "epochs to target",
    "seconds to target",
    "reached it",
    "95 % interval of that rate",
)


def blocks(run: Run, summary: Summary) -> list[Block]:
    """Return the section on learning."""
    learned = converge(run)
    missing = [_untrained_sentence(run)]
    if not learned.workloads:
        missing.append("No job of this run completed its training, so there is no accuracy.")
    return [
        *section(
            "Does it learn the same thing?",
            "There are three answers: how long the first steps agree with the reference, whether long "
            "trainings end at equivalent accuracies, and which trainings are too brief to compare.",
        ),
        *steps.blocks(first_steps(run)),
        *(Paragraph(text=text) for text in missing if text),
        *_curves(learned),
        *_accuracies(learned, summary.titles),
        *_tests(learned, summary.titles),
        *_defaults(learned.defaults, summary.titles),
    ]


def answer(run: Run, titles: Mapping[str, str]) -> list[str]:
    """Say whether the frameworks learn the same on each workload, and which workloads were not trained.

    Workloads of which the same is said share a line.
    """
    places: dict[str, list[str]] = {}
    for one in first_steps(run):
        places.setdefault(steps.sentence(one), []).append(steps.place(one))
    for workload in converge(run).workloads:
        for sentence in accuracy_sentences(workload, titles):
            places.setdefault(sentence, []).append(_place(workload))
    lines = [f"{listed(found)}: {sentence}." for sentence, found in places.items()]
    missing = _untrained_sentence(run)
    return [*lines, missing] if missing else lines


def _untrained_sentence(run: Run) -> str | None:
    """Say which workloads were not trained, and which command trains them; None if all were."""
    names = untrained(run)
    if not names:
        return None
    return (
        f"Not trained for accuracy, because the budget left too little time: {listed(names)}. Train with: "
        f"{command_to_train(run, names, seeds=run.header.seeds)}"
    )


def accuracy_sentences(workload: WorkloadConvergence, titles: Mapping[str, str]) -> list[str]:
    """Say what the accuracies of a workload show: one sentence for each pair, or one for all of them."""
    if not workload.comparisons:
        names = [titles.get(cell.backend, cell.backend) for cell in workload.representatives]
        return [f"only {names[0]} was trained, so there is no accuracy to compare"] if names else []
    hindrances = [_hindrance(one) for one in workload.comparisons]
    if hindrances[0] is not None and len(set(hindrances)) == 1:
        return [hindrances[0]]
    return [comparison_sentence(one, titles) for one in workload.comparisons]


def comparison_sentence(one: AccuracyComparison, titles: Mapping[str, str]) -> str:
    """Say in one sentence what is shown about the accuracies of two frameworks."""
    first, second = (cell_name(cell, titles) for cell in (one.first, one.second))
    if one.test is None:
        return f"{first} and {second}: {_hindrance(one)}"
    low, high = (f"{100 * end:+.2f}" for end in (one.test.low, one.test.high))
    found = f"{first} - {second}: {low} to {high}, {INTERVAL} interval, {one.seeds} seeds"
    bound = f"{100 * EQUIVALENT:g} points"
    if one.test.shown:
        return f"{first} and {second}: equivalent within {bound} ({found})"
    return f"{first} and {second}: not shown to be equivalent within {bound} ({found})"


def _hindrance(one: AccuracyComparison) -> str | None:
    """Say why two accuracies were not tested; None if they were."""
    match one.conclusion:
        case "too brief":
            return f"trained too briefly to compare: {_epochs(min(one.epochs))}"
        case "unequal epochs":
            return f"trained for {one.epochs[0]:g} and {_epochs(one.epochs[1])}, which cannot be compared"
        case "diverged":
            return f"{_count(one.diverged, 'training')} diverged, so nothing is claimed about accuracies"
        case "too few seeds":
            return (
                f"{_count(one.seeds, 'seed')}: too few to claim that accuracies are equivalent "
                f"({SEEDS_NEEDED} are needed)"
            )
        case _:
            return None


def defaults_sentence(pair: DefaultsAgainstMatched) -> str:
    """Say in one sentence how much the frameworks differ, matched and with their own defaults."""
    return (
        f"{pair.matched}: matched, the frameworks' mean accuracies differ by at most "
        f"{_points(pair.matched_spread)}; with their own defaults by at most {_points(pair.defaults_spread)}."
    )


def render_targets(
    targets: Sequence[ProposedTarget], run: Run, titles: Mapping[str, str], console: Console
) -> None:
    """Print the table of `bench targets`: each workload's target, and the figures from which it follows.

    `titles` gives a framework's title by its name.
    """
    rows = [
        (
            one.workload,
            str(min(one.seeds.values())),
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
        "frameworks and seeds, rounded down to 0.1 points, for trainings of so many epochs. It needs "
        f"{SEEDS_NEEDED} seeds of every framework, and {_epochs(LONG_ENOUGH)} at least."
    )
    heads = ("workload", "seeds", "trainings", "epochs", "mean", "sd", "target")
    refused = [_refusal(one, run, titles) for one in targets if one.target is None]
    print_blocks(
        [
            number_table(heads, rows),
            Paragraph(text=said, faint=True),
            *([bullets(refused)] if refused else []),
        ],
        console,
    )


def _refusal(one: ProposedTarget, run: Run, titles: Mapping[str, str]) -> str:
    """Say why a workload gets no target, and how to get one."""
    if one.too_brief:
        why = f"trained too briefly: {_epochs(one.epochs)}"
    else:
        few = [
            f"{_count(count, 'seed')} of {titles.get(name, name)}"
            for name, count in one.seeds.items()
            if count < SEEDS_NEEDED
        ]
        why = f"{listed(few)}, where {SEEDS_NEEDED} are needed"
    command = command_to_train(run, [one.workload], seeds=SEEDS_NEEDED, frameworks=len(one.seeds))
    return f"{one.workload}: no target: {why}. Train with: {command}"


def _curves(learned: Convergence) -> list[Block]:
    """Return the learning curves, and how to read them; nothing if nothing was trained."""
    if not learned.workloads:
        return []
    captions = {
        "accuracy_epochs": "Test accuracy by epochs, by workload",
        "accuracy_seconds": "Test accuracy by seconds of training, by workload",
        "loss_epochs": "Test loss by epochs, by workload",
        "loss_seconds": "Test loss by seconds of training, by workload",
    }
    return section(
        "Learning curves",
        "On a matched workload every framework starts from the same weights and trains with the same batches "
        "in the same order, once for every seed. By seconds of training, the faster framework is ahead. A "
        "curve is the mean over the seeds, its band reaches from the lowest seed to the highest, and there "
        "is a marker at every whole epoch. The axis of accuracy by epochs starts at the lowest training "
        "after a quarter of the epochs; if it included the start, all curves would look the same. "
        "Evaluation, on the whole test split, is never included in the seconds.",
        *(Picture(name=name, caption=caption) for name, caption in captions.items()),
        level=3,
    )


def _accuracies(learned: Convergence, titles: Mapping[str, str]) -> list[Block]:
    """Return a table of accuracies for each workload, with the way to the target if there is one."""
    if not learned.workloads:
        return []
    targets = any(workload.target is not None for workload in learned.workloads)
    text = (
        f"Accuracy is shown as mean {PLUS_MINUS} standard deviation between seeds; the interval is that of "
        f"the mean, by Student's t, from {FEWEST_SEEDS} seeds on. A training of less than "
        f"{_epochs(LONG_ENOUGH)} is too brief to compare, so its accuracy is not shown here."
    )
    if targets:
        text += (
            " Epochs to target are the median over the "
            "seeds, interpolated between the evaluation before and the one after the target. Their distance "
            "is in brackets: the error is smaller than that. Seconds to target are these epochs times the "
            "seconds of an epoch. A training that never reached the target counts as later than all others; "
            "if the median falls on one, the table says 'not reached'. The interval of the rate is Wilson's."
        )
    found = section("Accuracy, and the time to the target" if targets else "Accuracy", text, level=3)
    if targets:
        caption = "Seconds of training to the target, every seed a dot, by workload"
        found.append(Picture(name="to_target", caption=caption))
    for workload in learned.workloads:
        has_target = workload.target is not None
        rows = [
            (*_row(cell, one, titles), *(_to_target(one) if has_target else ()))
            for cell, one in workload.cells.items()
        ]
        heads = (*_HEADS, *_TARGET_HEADS) if has_target else _HEADS
        found += [Heading(text=_heading(workload), level=4), number_table(heads, rows)]
    return found


def _place(workload: WorkloadConvergence) -> str:
    return f"{workload.workload} ({workload.device} {workload.precision})"


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
    brief = learned.epochs is not None and is_too_brief(learned.epochs)
    accuracy = NOTHING if learned.accuracy is None else f"{100 * learned.accuracy:.2f}{spread} %"
    return [
        cell_name(cell, titles),
        f"{seeds}, {learned.diverged} diverged" if learned.diverged else seeds,
        NOTHING if learned.epochs is None else f"{learned.epochs:g}",
        TOO_BRIEF if brief else accuracy,
        NOTHING if brief else _range_text(learned.accuracy_low, learned.accuracy_high, 2),
    ]


def _to_target(learned: CellConvergence) -> list[str]:
    bracket = "" if learned.bracket_epochs is None else f" [{learned.bracket_epochs:.2g}]"
    trials = len(learned.crossings)
    missed = "not reached" if trials else NOTHING
    return [
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
            found.append(bullets(f"{one}." for one in accuracy_sentences(workload, titles)))
    if not found:
        return []
    level = f"{100 * EQUIVALENCE_ALPHA:g} %"
    return section(
        "Are the accuracies equivalent?",
        f"Two frameworks are equivalent if their mean accuracies differ by less than {100 * EQUIVALENT:g} "
        f"points. It is claimed only if two one-sided t tests (Schuirmann, 1987), each at {level} and with "
        f"Welch's degrees of freedom, show it over at least {SEEDS_NEEDED} seeds of each framework at the "
        f"same epoch. That is so exactly if the {INTERVAL} interval of the difference lies within these "
        "points. Each framework is tested in its default mode. A claim covers its own pair: the probability "
        f"that it is wrong is at most {level}. That all frameworks are equivalent may be claimed at the same "
        "level if every pair is, because each test must then succeed (an intersection-union test; Berger, "
        "1982). If some pairs are called equivalent and others not, the probability that one of these claims "
        "is wrong is larger. That equivalence is not shown does not mean that accuracies differ.",
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


def _epochs(count: float) -> str:
    return f"{count:.2g} epoch{'' if count == 1 else 's'}"
