"""A run for other programs, as JSON: its rows, or its verdicts."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from bench.analysis.comparison import Comparison, Comparisons, Verdict
from bench.analysis.first_steps import first_steps
from bench.analysis.scaling import ScalingSeries, read_scaling
from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.run.outlook import in_words, outlook


def to_json(summary: Summary, run: Run | None = None) -> str:
    """Return a list with one object for each cell: the fields of `CellSummary`, null if not measured.

    `carry_over` follows them where it was measured. With the run, a cell whose first losses were compared
    also has `first_steps`: the relative errors of the losses, step by step, and those of the disturbed
    reference.
    """
    compared = {cell: steps for one in (first_steps(run) if run else ()) for cell, steps in one.cells.items()}
    rows = [
        msgspec.to_builtins(row)
        | ({"carry_over": msgspec.to_builtins(found)} if (found := summary.carry_over.get(row.cell)) else {})
        | ({"first_steps": msgspec.to_builtins(compared[row.cell])} if row.cell in compared else {})
        for row in summary.cells
    ]
    return _dumped(rows)


def verdicts_to_json(run: Run, summary: Summary) -> str:
    """Return an object with every verdict and its comparisons, and the time that narrow intervals take.

    In a run with ranks it also has `scaling`, a list of `ScalingSeries`.
    """
    found = outlook(run, summary)
    about = None
    if found is not None:
        about = msgspec.to_builtins(found) | {"beyond": found.beyond, "words": in_words(found)}
    placebo = None if summary.placebo is None else _comparisons([summary.placebo])[0]
    verdicts = [_verdict(verdict) for verdict in summary.verdicts]
    scaling = [_series(one) for one in read_scaling(run, summary)]
    content = {"verdicts": verdicts, "placebo": placebo, "outlook": about}
    return _dumped(content | ({"scaling": scaling} if run.header.ranks else {}))


def _verdict(verdict: Verdict) -> dict[str, Any]:
    dropped = verdict.with_dropped
    return {
        "workload": verdict.workload,
        "level": verdict.level,
        "device": verdict.device,
        "precision": verdict.precision,
        "ranks": verdict.ranks,
        "scaling": verdict.scaling,
        "winner": msgspec.to_builtins(verdict.winner),
        "disturbed": verdict.disturbed,
        "unranked": list(verdict.unranked),
        "picks": msgspec.to_builtins(verdict.picks),
        "comparisons": _families(verdict.made),
        "with_dropped_blocks": None if dropped is None else _families(dropped),
    }


def _series(one: ScalingSeries) -> dict[str, Any]:
    points = [
        msgspec.to_builtins(point)
        | {"comparison": _comparisons([point.comparison])[0] if point.comparison else None}
        | {"proven": point.proven}
        for point in one.points
    ]
    return {**msgspec.to_builtins(one), "points": points}


def _families(made: Comparisons) -> dict[str, Any]:
    return {
        "backends": _comparisons(made.backends),
        "modes": _comparisons(made.modes),
        "tuning": _comparisons(made.tuning),
    }


def _comparisons(found: Iterable[Comparison]) -> list[dict[str, Any]]:
    return [
        msgspec.to_builtins(one) | {"half_width": one.half_width, "trimming_matters": one.trimming_matters}
        for one in found
    ]


def _dumped(content: Any) -> str:
    # Pure ASCII, so that no name can act on a terminal; NaN would be an error of ours, so it raises.
    return json.dumps(content, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
