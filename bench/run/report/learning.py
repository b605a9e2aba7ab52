"""The page's sections on learning: whether it is the same in all frameworks, and the time to an accuracy."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from bench.analysis.accuracy import (
    EQUIVALENCE_ALPHA,
    EQUIVALENT,
    SEEDS_NEEDED,
    Convergence,
    DefaultsAgainstMatched,
    WorkloadConvergence,
)
from bench.analysis.convergence import FEWEST_SEEDS, LONG_ENOUGH, CellConvergence, CurvePoint, is_too_brief
from bench.analysis.first_steps import WorkloadFirstSteps, digits
from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.blocks import (
    Block,
    Chart,
    Code,
    Details,
    Group,
    Heading,
    Note,
    Paragraph,
    Table,
    bullets,
    number_table,
)
from bench.report.format import DASH, NOTHING, PLUS_MINUS, cell_name, percent, seconds_text
from bench.run.report.convergence import INTERVAL, accuracy_sentences, defaults_sentence
from bench.run.report.tables import TOO_BRIEF
from bench.run.report.tags import RowTags, place_tags
from bench.run.untrained import command_to_train, untrained
from bench.text import listed

_UNKNOWN = "not compared"


def learning(
    run: Run,
    summary: Summary,
    learned: Convergence,
    steps: Sequence[WorkloadFirstSteps],
    charts: Mapping[str, Sequence[Chart]],
) -> list[Block]:
    """Return the section on learning; `charts` has those of curves, of first steps and of own defaults."""
    found: list[Block] = [
        Heading(text="Learning"),
        Paragraph(
            text="All frameworks start from the same weights and train on the same batches in the same "
            "order. Two things show whether they learn the same: how closely the first losses agree with the "
            "reference, and whether the accuracies of whole training runs are equivalent."
        ),
    ]
    if learned.workloads or steps:
        found.append(_overview(learned, steps, summary))
    if steps:
        found.append(
            Paragraph(
                text="The reference trains as many steps as it can in a few seconds, so the last loss that "
                "is compared is an early one in a large network. The column on rounding shows how well the "
                "reference would agree there with itself, if nothing but rounding were added.",
                faint=True,
            )
        )
    found += _missing(run, learned)
    if charts.get("curves"):
        found += [
            Heading(text="Against epochs and against seconds", level=3),
            Paragraph(
                text="Against epochs, curves lie on each other if the frameworks learn the same. Against "
                "seconds, a curve further left trained faster. Each curve is that of processes that trained "
                "alone, so it can differ from the ranking, which compares in turns."
            ),
            Group(blocks=tuple(_paired(charts["curves"])), beside=True),
        ]
    if learned.workloads:
        found += [Heading(text="Accuracy after training", level=3), _accuracies(learned, summary)]
        found.append(Details(summary="How equivalence is judged", blocks=(bullets(_equivalence()),)))
    if charts.get("first_steps"):
        found.append(
            Details(
                summary="The losses of the first steps, step by step",
                blocks=(
                    Paragraph(
                        text="Each line is a framework's relative error of the loss against the reference. "
                        "Rounding errors grow from step to step, in the reference too. The grey band is a "
                        "reference with rounding errors alone: errors below its top are explained "
                        "by rounding."
                    ),
                    Group(blocks=tuple(charts["first_steps"]), beside=True),
                ),
            )
        )
    return [*found, *_defaults(learned.defaults, summary.titles, charts.get("defaults", ()))]


def _paired(charts: Sequence[Chart]) -> list[Chart]:
    """Return the charts with those of one workload one after another."""
    places = list(dict.fromkeys(tuple(chart.tags.items()) for chart in charts))
    return sorted(charts, key=lambda chart: places.index(tuple(chart.tags.items())))


def _overview(learned: Convergence, steps: Sequence[WorkloadFirstSteps], summary: Summary) -> Table:
    """Return what is shown of every workload, one row each."""
    first = {(one.workload, one.device, one.precision): one for one in steps}
    whole = {(one.workload, one.device, one.precision): one for one in learned.workloads}
    places = list(dict.fromkeys([*first, *whole]))
    return Table(
        heads=(
            "workload",
            "device",
            "first loss agrees to",
            "last loss compared agrees to",
            "rounding alone leaves",
            "accuracies",
        ),
        rows=tuple(
            (
                workload,
                f"{device} {precision}",
                *_agreement(first.get((workload, device, precision))),
                _said(whole.get((workload, device, precision)), summary.titles),
            )
            for workload, device, precision in places
        ),
        numbers=frozenset({2, 3, 4}),
        tags=tuple(place_tags(*place) for place in places),
    )


def _agreement(one: WorkloadFirstSteps | None) -> tuple[str, str, str]:
    if one is None:
        return _UNKNOWN, _UNKNOWN, NOTHING
    last = f"{_digits(one.error(one.steps))} (step {one.steps})" if one.steps > 1 else NOTHING
    return _digits(one.error(1)), last, _digits(one.rounding(one.steps))


def _digits(error: float) -> str:
    count = digits(error)
    return f"{count} digit{'' if count == 1 else 's'}"


def _said(workload: WorkloadConvergence | None, titles: Mapping[str, str]) -> str:
    if workload is None:
        return "not trained"
    return "; ".join(accuracy_sentences(workload, titles)) or NOTHING


def _missing(run: Run, learned: Convergence) -> Iterator[Block]:
    """Yield which workloads were not trained for accuracy, and the command that trains them."""
    if names := untrained(run):
        yield Note(
            text=f"Not trained for accuracy, because the budget left too little time: {listed(names)}. This "
            "command trains them:"
        )
        yield Code(text=command_to_train(run, names, seeds=run.header.seeds))
    elif not learned.workloads:
        yield Note(text="No training run of this run was completed, so there is no accuracy.")


def _accuracies(learned: Convergence, summary: Summary) -> Table:
    tags = RowTags(summary)
    rows = [(workload, cell, one) for workload in learned.workloads for cell, one in workload.cells.items()]
    return Table(
        heads=("workload", "framework", "device", "seeds", "epochs", "test accuracy", "95 % interval"),
        rows=tuple(
            (
                workload.workload if workload.matched else f"{workload.workload} (own defaults)",
                cell_name(cell, summary.titles),
                f"{workload.device} {workload.precision}",
                *_accuracy(one),
            )
            for workload, cell, one in rows
        ),
        numbers=frozenset({3, 4, 5, 6}),
        tags=tuple(tags.of(cell) for _, cell, _ in rows),
    )


def _accuracy(one: CellConvergence) -> tuple[str, str, str, str]:
    seeds = str(len(one.accuracies))
    spread = "" if one.accuracy_sd is None else f" {PLUS_MINUS} {100 * one.accuracy_sd:.2f}"
    brief = one.epochs is not None and is_too_brief(one.epochs)
    accuracy = NOTHING if one.accuracy is None else f"{100 * one.accuracy:.2f}{spread} %"
    return (
        f"{seeds}, {one.diverged} diverged" if one.diverged else seeds,
        NOTHING if one.epochs is None else f"{one.epochs:g}",
        TOO_BRIEF if brief else accuracy,
        NOTHING if brief else _range_text(one.accuracy_low, one.accuracy_high, 2),
    )


def _equivalence() -> list[str]:
    level = f"{100 * EQUIVALENCE_ALPHA:g} %"
    return [
        f"Accuracy is the mean over seeds {PLUS_MINUS} the standard deviation between seeds. The interval is "
        f"that of the mean, by Student's t, from {FEWEST_SEEDS} seeds on. A training run of less than "
        f"{LONG_ENOUGH:g} epoch is too brief to compare, so its accuracy is not shown.",
        f"Two frameworks are equivalent if their mean accuracies are shown to differ by less than "
        f"{100 * EQUIVALENT:g} points. That needs {SEEDS_NEEDED} seeds that both trained, the same number of "
        f"epochs, and two one-sided t tests at {level}, paired by seed (Schuirmann, 1987). The {INTERVAL} "
        "interval of the difference then lies within these points.",
        "Each framework is tested in its default mode. A claim is about its own pair, and the probability "
        f"that it is wrong is at most {level}. If every pair is equivalent, all are, at the same level "
        "(an intersection-union test; Berger, 1982).",
        "If equivalence is not shown, that does not mean that the accuracies differ.",
    ]


# ---- time to accuracy


def time_to_accuracy(learned: Convergence, summary: Summary, charts: Sequence[Chart]) -> list[Block]:
    """Return the section on the time to the target accuracy."""
    found: list[Block] = [Heading(text="Time to accuracy")]
    if all(workload.target is None for workload in learned.workloads):
        return [
            *found,
            Paragraph(
                text="No workload that was trained in this run has a target accuracy, so there is no time to "
                "one. This sets a target:"
            ),
            Code(text="bench run --target mnist-mlp=96% --seeds 10"),
        ]
    return [
        *found,
        Paragraph(
            text="Seconds of training, without evaluation and start-up, until the test accuracy reached the "
            "target. Less is better. The figure is the median over the seeds. A training run that never "
            "reached the target counts as later than all others."
        ),
        Group(blocks=tuple(charts), beside=True),
        _targets(learned, summary),
        Paragraph(
            text="Epochs to the target are interpolated between the evaluation before it and the one after. "
            "Their distance is in brackets: the error is smaller than that. Seconds are these epochs times "
            "the seconds of an epoch. The interval of the share is Wilson's.",
            faint=True,
        ),
    ]


def _targets(learned: Convergence, summary: Summary) -> Table:
    tags = RowTags(summary)
    rows = [
        (workload, workload.target, cell, one)
        for workload in learned.workloads
        if workload.target is not None
        for cell, one in workload.cells.items()
    ]
    return Table(
        heads=(
            "workload",
            "framework",
            "target",
            "epochs to target",
            "seconds to target",
            "reached by",
            "95 % interval of that share",
        ),
        rows=tuple(
            (workload.workload, cell_name(cell, summary.titles), percent(target, 1), *_to_target(one))
            for workload, target, cell, one in rows
        ),
        numbers=frozenset(range(2, 7)),
        tags=tuple(tags.of(cell) for _, _, cell, _ in rows),
    )


def _to_target(one: CellConvergence) -> tuple[str, str, str, str]:
    bracket = "" if one.bracket_epochs is None else f" [{one.bracket_epochs:.2g}]"
    trials = len(one.crossings)
    missed = "not reached" if trials else NOTHING
    return (
        missed if one.epochs_to_target is None else f"{one.epochs_to_target:.2f}{bracket}",
        missed if one.seconds_to_target is None else seconds_text(one.seconds_to_target),
        f"{one.successes} of {trials}" if trials else NOTHING,
        _range_text(one.success_low, one.success_high, 0),
    )


# ---- own defaults


def _defaults(
    pairs: Iterable[DefaultsAgainstMatched], titles: Mapping[str, str], charts: Sequence[Chart]
) -> list[Block]:
    """Return what the frameworks' own defaults change; nothing if the run has no pair of such workloads."""
    found: list[Block] = []
    for pair in pairs:
        rows = [
            (
                cell_name(row.matched, titles),
                _point(row.matched_point),
                _point(row.defaults_point),
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
            text="Each framework trains the same network twice: matched to the others, and with its own "
            "default initialisation, optimizer constants and order of the data. What differs only in the "
            "second column is due to the defaults. Each accuracy is the mean over the seeds at that epoch, "
            "with the lowest and the highest seed in brackets."
        ),
        Group(blocks=tuple(charts), beside=True),
        *found,
    ]


def _point(point: CurvePoint) -> str:
    low, high = 100 * point.accuracy_low, 100 * point.accuracy_high
    return f"{percent(point.test_accuracy, 2)} [{low:.2f}{DASH}{high:.2f}]"


def _range_text(low: float | None, high: float | None, digits_after: int) -> str:
    if low is None or high is None:
        return NOTHING
    return f"{100 * low:.{digits_after}f}{DASH}{100 * high:.{digits_after}f} %"
