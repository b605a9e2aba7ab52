"""The rows of a run for other programs, as JSON: one object a cell."""

import json

import msgspec

from bench.analysis.summary import Summary


def to_json(summary: Summary) -> str:
    """Return a list with one object a cell, its keys the fields of `CellSummary`; null where not measured."""
    # Pure ASCII, so that no name can act on a terminal; NaN would be an error of ours, so it raises.
    return json.dumps(msgspec.to_builtins(summary.cells), indent=2, ensure_ascii=True, allow_nan=False) + "\n"
