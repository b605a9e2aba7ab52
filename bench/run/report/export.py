"""The rows of a run for other programs, as JSON: one object for each cell."""

import json

import msgspec

from bench.analysis.first_steps import first_steps
from bench.analysis.summary import Summary
from bench.records.runs import Run


def to_json(summary: Summary, run: Run | None = None) -> str:
    """Return a list with one object for each cell: the fields of `CellSummary`, null if not measured.

    With the run, a cell whose first losses were compared also has `first_steps`: the relative errors of the
    losses, step by step, and those of the disturbed reference.
    """
    compared = {cell: steps for one in (first_steps(run) if run else ()) for cell, steps in one.cells.items()}
    rows = [
        msgspec.to_builtins(row)
        | ({"first_steps": msgspec.to_builtins(compared[row.cell])} if row.cell in compared else {})
        for row in summary.cells
    ]
    # Pure ASCII, so that no name can act on a terminal; NaN would be an error of ours, so it raises.
    return json.dumps(rows, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
