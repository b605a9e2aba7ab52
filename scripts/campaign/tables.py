"""Tables of a campaign's run for README and docs, as Markdown; `campaign.figures` puts them into pages.

A table begins and ends with an empty line, so that it can stand between two marks.
"""

from collections.abc import Mapping, Sequence

from bench.analysis.accuracy import AccuracyComparison, converge, proposed_targets
from bench.analysis.comparison import Verdict
from bench.analysis.convergence import CellConvergence
from bench.analysis.scaling import read_scaling
from bench.analysis.summary import CellSummary, Summary
from bench.records.runs import Run
from bench.report.format import NOTHING
from bench.report.markdown import grid
from bench.run.report.scaling_words import speed_up_text
from campaign.records import FRAMEWORKS

RANKED = "times as fast as"
HIGHEST = " (highest)"


def ranking(summary: Summary, *, level: str = "tuned") -> str:
    """Return the speed of each framework on each workload, in its default mode, and the fastest one."""
    names = _titles(summary)
    rows = []
    for verdict in (one for one in summary.verdicts if one.level == level):
        cells = {cell.backend: cell for cell in summary.cells if cell.group == verdict.group}
        speeds = [_speed(cells.get(name)) for name in FRAMEWORKS]
        rows.append((verdict.workload, *speeds, _answer(verdict, summary.titles)))
    heads = ("workload", *(f"{names[name]}, samples/s" for name in FRAMEWORKS), "the fastest")
    return f"\n\n{grid(heads, rows, numbers=frozenset({1, 2, 3}))}\n\n"


def _titles(summary: Summary) -> dict[str, str]:
    return {name: summary.titles.get(name, name) for name in FRAMEWORKS}


def _speed(cell: CellSummary | None) -> str:
    if cell is None or cell.samples_per_s is None:
        return NOTHING
    margin = "" if cell.half_width is None else f" ± {100 * cell.half_width:.2g} %"
    return f"{cell.samples_per_s:,.0f}{margin}"


def modes(summaries: Sequence[Summary]) -> str:
    """Return every mode's speed, a column for each workload; a framework's highest rate is marked."""
    names = _titles(summaries[0])
    workloads = [workload for one in summaries for workload in dict.fromkeys(c.workload for c in one.cells)]
    cells = {(cell.backend, cell.mode, cell.workload): cell for one in summaries for cell in one.cells}
    rows = []
    for backend, mode in sorted({key[:2] for key in cells}, key=lambda row: _place(row, cells, workloads)):
        speeds = []
        for workload in workloads:
            cell = cells.get((backend, mode, workload))
            rest = [_rate(one) for key, one in cells.items() if (key[0], key[2]) == (backend, workload)]
            fastest = cell is not None and 0 < _rate(cell) == max(rest)
            speeds.append(f"{_speed(cell)}{HIGHEST if fastest else ''}")
        rows.append((names.get(backend, backend), mode, *speeds))
    heads = ("framework", "mode", *(f"{name}, samples/s" for name in workloads))
    return f"\n\n{grid(heads, rows, numbers=frozenset(range(2, len(heads))))}\n\n"


def _place(
    row: tuple[str, str], cells: Mapping[tuple[str, str, str], CellSummary], workloads: Sequence[str]
) -> tuple[int, float]:
    """Return where a row stands: by framework, the fastest on the first workload first."""
    backend, mode = row
    first = cells.get((backend, mode, workloads[0]))
    return FRAMEWORKS.index(backend), -(_rate(first) if first else 0.0)


def _rate(cell: CellSummary) -> float:
    return cell.samples_per_s or 0.0


def _answer(verdict: Verdict, names: Mapping[str, str]) -> str:
    """Say which framework is the fastest, and by how much it is ahead of the next."""
    if verdict.winner is None:
        return "none is proven"
    ahead = [one for one in verdict.made.backends if one.faster == verdict.winner]
    closest = min(ahead, key=lambda one: one.ratio)
    winner, behind = (names.get(one.backend, one.backend) for one in (closest.faster, closest.slower))
    return f"{winner}: {closest.low:.2f}\N{EN DASH}{closest.high:.2f} {RANKED} {behind}"


def speed_ups(run: Run, summary: Summary) -> str:
    """Return each framework's speed-up over one plain process, by workload and number of ranks."""
    names = _titles(summary)
    found: dict[tuple[str, str], dict[str, str]] = {}
    for series in read_scaling(run, summary):
        workload = f"{series.workload}{' (weak)' if series.scaling == 'weak' else ''}"
        for point in series.points:
            found.setdefault((workload, str(point.ranks)), {})[series.backend] = speed_up_text(point)
    rows = [
        (*key, *(by_backend.get(name, NOTHING) for name in FRAMEWORKS)) for key, by_backend in found.items()
    ]
    heads = ("workload", "ranks", *(names[name] for name in FRAMEWORKS))
    return f"\n\n{grid(heads, rows, numbers=frozenset(range(1, len(heads))))}\n\n"


def accuracies(runs: Sequence[Run]) -> str:
    """Return the accuracy that each framework reached, ± its scatter over seeds, and which are equivalent."""
    rows = []
    for run in runs:
        for learned in converge(run).workloads:
            cells = {cell.backend: learned.cells[cell] for cell in learned.representatives}
            reached = [_accuracy(cells.get(name)) for name in FRAMEWORKS]
            some = next(iter(cells.values()))
            rows.append(
                (
                    learned.workload,
                    f"{some.epochs:g}",
                    str(len(some.accuracies)),
                    *reached,
                    _equivalent(learned.comparisons),
                )
            )
    titles = {backend.name: backend.title for run in runs for backend in run.header.backends}
    shown = (f"{titles.get(name, name)}, %" for name in FRAMEWORKS)
    heads = ("workload", "epochs", "seeds", *shown, "equivalent within 0.5 points")
    return f"\n\n{grid(heads, rows, numbers=frozenset(range(1, 6)))}\n\n"


def _accuracy(learned: CellConvergence | None) -> str:
    if learned is None or learned.accuracy is None:
        return NOTHING
    scatter = "" if learned.accuracy_sd is None else f" ± {100 * learned.accuracy_sd:.2f}"
    return f"{100 * learned.accuracy:.2f}{scatter}"


def _equivalent(comparisons: Sequence[AccuracyComparison]) -> str:
    shown = sum(one.conclusion == "equivalent" for one in comparisons)
    if comparisons and all(one.conclusion == "too few seeds" for one in comparisons):
        return "not asked: too few seeds"
    return f"{shown} of {len(comparisons)} pairs"


def targets(runs: Sequence[Run]) -> str:
    """Return the accuracies that `bench targets` proposes from runs: the mean minus three deviations."""
    rows = [
        (
            one.workload,
            f"{one.epochs:g}",
            str(one.trainings),
            f"{100 * one.mean:.2f}",
            NOTHING if one.sd is None else f"{100 * one.sd:.2f}",
            NOTHING if one.target is None else f"{100 * one.target:.1f}",
        )
        for run in runs
        for one in proposed_targets(run, FRAMEWORKS)
    ]
    heads = ("workload", "epochs", "trainings", "mean, %", "standard deviation, points", "target, %")
    return f"\n\n{grid(heads, rows, numbers=frozenset(range(1, len(heads))))}\n\n"
