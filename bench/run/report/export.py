"""The rows of a run for other programs, as JSON: one object for each cell."""

import json

import msgspec

from bench.analysis.summary import Summary


def to_json(summary: Summary) -> str:
    """Return a list with one object for each cell: the fields of `CellSummary`, null if not measured.

    `carry_over` follows them where it was measured.
    """
    rows = msgspec.to_builtins(summary.cells)
    for row, cell in zip(rows, summary.cells, strict=True):
        if found := summary.carry_over.get(cell.cell):
            row["carry_over"] = msgspec.to_builtins(found)
    # Pure ASCII, so that no name can act on a terminal; NaN would be an error of ours, so it raises.
    return json.dumps(rows, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
