"""The rows of a run for other programs, as JSON: one object a cell."""

import json

import msgspec

from bench.analysis.summary import summarise
from bench.records.runs import Run


def to_json(run: Run) -> str:
    """Return a list with one object a cell, its keys the fields of `CellSummary`; null where not measured."""
    cells = summarise(run).cells
    # Pure ASCII, so that no name can act on a terminal; NaN would be an error of ours, so it raises.
    return json.dumps(msgspec.to_builtins(cells), indent=2, ensure_ascii=True, allow_nan=False) + "\n"
