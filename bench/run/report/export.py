"""The rows of a run for other programs, as JSON: one object for each cell."""

import json

import msgspec

from bench.analysis.summary import Summary


def to_json(summary: Summary) -> str:
    """Return a list with one object for each cell: the fields of `CellSummary`, null if not measured."""
    # Pure ASCII, so that no name can act on a terminal; NaN would be an error of ours, so it raises.
    return json.dumps(msgspec.to_builtins(summary.cells), indent=2, ensure_ascii=True, allow_nan=False) + "\n"
