"""A run in a few sentences: who is fastest, how sure that is, and if learning and work are the same."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from bench.analysis.accuracy import (
    EQUIVALENT,
    SEEDS_NEEDED,
    Conclusion,
    WorkloadConvergence,
    converge,
)
from bench.analysis.comparison import Verdict
from bench.analysis.first_steps import digits, first_steps
from bench.analysis.statistics import ALPHA
from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.blocks import Item
from bench.report.format import cell_name, ratio_text, workload_name
from bench.text import cut, listed

LONGEST_NAME = 48
"""Most characters of a name; the page has all of it."""
_BOUND = f"{100 * EQUIVALENT:g} points"


def answer(run: Run, summary: Summary) -> tuple[Item, ...]:
    """Return the answer: a line for each question, of one or two sentences."""
    lines = [*_fastest(summary), _certainty(summary.verdicts), _learning(run), _same_work(summary)]
    return tuple(line for line in lines if line.text) or (Item(text="Nothing was measured."),)


# ---- who is fastest


def _fastest(summary: Summary) -> list[Item]:
    """Return who is fastest on which workloads, and on which ones nobody is, each reason in a line."""
    winners: dict[str, list[str]] = {}
    without: dict[tuple[str, str], list[str]] = {}
    several = len({(verdict.device, verdict.precision) for verdict in summary.verdicts}) > 1
    for verdict in summary.verdicts:
        where = _where(verdict, several=several)
        if why := _why_no_winner(verdict, summary.titles):
            without.setdefault(why, []).append(where)
        else:
            name, times = _winner(verdict, summary.titles)
            winners.setdefault(name, []).append(f"{where} ({times})")
    found = "; ".join(f"{name} on {listed(places)}" for name, places in winners.items())
    return [
        Item(name="Fastest", text=f"{found}." if found else ""),
        *(Item(name=name, text=f"{listed(on)}{why}.") for (name, why), on in without.items()),
    ]


def _where(verdict: Verdict, *, several: bool) -> str:
    """Return what a verdict is about; with device and precision if the run has several of them."""
    name = workload_name(cut(verdict.workload, LONGEST_NAME), verdict.level, verdict.ranks, verdict.scaling)
    return f"{name} on {verdict.device} {verdict.precision}" if several else name


def _winner(verdict: Verdict, titles: Mapping[str, str]) -> tuple[str, str]:
    """Return the name of the winner, and how many times as fast it is as the next framework."""
    winner = verdict.winner
    if winner is None:
        raise ValueError(f"{verdict.workload} has no winner")
    beaten = [one for one in verdict.made.backends if one.faster == winner]
    next_best = min(beaten, key=lambda one: one.ratio)
    among = next((pick.among for pick in verdict.picks if pick.cell == winner), 1)
    name = cell_name(winner, titles) if among > 1 else titles.get(winner.backend, winner.backend)
    missing = [cut(titles.get(other, other), LONGEST_NAME) for other in verdict.unranked]
    without = f"; {listed(missing)} not ranked" if missing else ""
    return cut(name, LONGEST_NAME), f"{ratio_text(next_best.low, next_best.high)}{without}"


def _why_no_winner(verdict: Verdict, titles: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the words before and after the names of workloads that have no winner; None if it has one."""
    if not verdict.matched:
        return "Not ranked", ", where each framework has its own defaults: not the same work"
    if not verdict.order:
        return "Nothing ranked", ""
    if verdict.disturbed:
        held = verdict.screening.throttled.issuperset(verdict.screening.staying)
        why = "a CPU quota held the jobs back" if held else "something else disturbed the machine"
        return "Nothing claimed", f", as {why}"
    if verdict.winner is not None:
        return None
    ranked = dict.fromkeys(cell.backend for cell in verdict.order)
    if len(ranked) == 1:
        (only,) = ranked
        return f"Only {cut(titles.get(only, only), LONGEST_NAME)} ranked", ""
    return "No clear winner" if verdict.made.backends else "Too few blocks to compare", ""


def _certainty(verdicts: Sequence[Verdict]) -> Item:
    """Return how to read the intervals, and how likely a wrong claim is; no text if nothing is claimed."""
    said = (
        "The brackets give the speed relative to the next framework, as a 95 % interval. "
        f"The chance of a wrong claim is at most {100 * ALPHA:g} % for each workload."
    )
    return Item(name="How sure", text=said if any(verdict.winner for verdict in verdicts) else "")


# ---- whether it is the same learning


def _learning(run: Run) -> Item:
    """Return what is known about learning: the first losses, and the accuracies of those that trained."""
    said = []
    found = first_steps(run)
    if found:
        fewest = min(digits(one.error(1)) for one in found)
        said.append(f"The first losses agree with the float64 reference to {_counted(fewest, 'digit')}.")
    workloads = converge(run).workloads
    if workloads:
        said += _accuracies(workloads, {backend.name: backend.title for backend in run.header.backends})
    elif any(job.windows for job in run.jobs):
        said.append("No framework was trained for accuracy.")
    return Item(name="Same learning", text=" ".join(said))


def _accuracies(workloads: Sequence[WorkloadConvergence], titles: Mapping[str, str]) -> list[str]:
    """Return what is known about accuracies, what is tested first, and then why the others are not."""
    tested: dict[str, list[str]] = {}
    untested: dict[str, list[str]] = {}
    for workload in workloads:
        kinds = {one.conclusion for one in workload.comparisons}
        if kinds & {"equivalent", "not shown"}:
            tested.setdefault(_tested(kinds), []).append(workload.workload)
        for why in _hindrances(workload, titles):
            untested.setdefault(why, []).append(workload.workload)
    said = [f"{what} on {listed(_once(names))}." for what, names in tested.items()]
    # The commonest reason needs no names where nothing was tested.
    reasons = sorted(untested.items(), key=lambda pair: -len(pair[1]))
    parts = [
        f"{why} on {listed(_once(names))}" if tested or place else why
        for place, (why, names) in enumerate(reasons)
    ]
    return [*said, f"Accuracies cannot be compared: {'; '.join(parts)}."] if parts else said


def _tested(kinds: Collection[Conclusion]) -> str:
    if "equivalent" not in kinds:
        return f"Accuracies are not shown to be equal within {_BOUND}"
    some = "Accuracies" if len(kinds) == 1 else "Only some accuracies"
    return f"{some} are shown to be equal within {_BOUND}"


def _hindrances(workload: WorkloadConvergence, titles: Mapping[str, str]) -> Iterator[str]:
    """Yield why accuracies of a workload were not tested, each reason once."""
    if len(workload.representatives) == 1:
        backend = workload.representatives[0].backend
        yield f"only {cut(titles.get(backend, backend), LONGEST_NAME)} trained"
    for kind, one in {one.conclusion: one for one in workload.comparisons}.items():
        match kind:
            case "too few seeds":
                yield f"{_counted(one.seeds, 'seed')} instead of {SEEDS_NEEDED}"
            case "diverged":
                yield "a training diverged"
            case "unequal epochs":
                yield "different numbers of epochs"
            case "too brief":
                yield "less than an epoch"


def _once(names: Sequence[str]) -> list[str]:
    return [cut(name, LONGEST_NAME) for name in dict.fromkeys(names)]


# ---- whether it is the same work


def _same_work(summary: Summary) -> Item:
    """Return how many rows compute what the reference computes; no text if none was compared."""
    checked = [row for row in summary.standings if row.parity_ok is not None and not row.reference]
    wrong = sum(row.parity_ok is False for row in checked)
    rows = _counted(len(checked), "row")
    if not checked:
        said = ""
    elif not wrong:
        every = {1: "the row computes", 2: "both rows compute"}.get(len(checked), f"all {rows} compute")
        said = f"Yes, {every} what the float64 reference computes."
    else:
        others = "the other is" if wrong == 1 else f"the other {wrong} are"
        good = len(checked) - wrong
        said = f"{good} of {rows} compute what the float64 reference computes; {others} not ranked."
    return Item(name="Same work", text=said)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
