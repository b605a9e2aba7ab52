"""The rows of a run for other programs: JSON and CSV, one object or line a cell."""

import csv
import io
import json

import msgspec

from bench.report import clean
from bench.runs import Run
from bench.summary import CellSummary, summarise

_FORMULA = ("=", "+", "-", "@")
"""A spreadsheet takes text that begins so for a formula."""


def to_json(run: Run) -> str:
    """Return a list with one object a cell, its keys the fields of `CellSummary`; null where not measured."""
    cells = summarise(run).cells
    # Pure ASCII, so that no name can act on a terminal; NaN would be an error of ours, so it raises.
    return json.dumps(msgspec.to_builtins(cells), indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def to_csv(run: Run) -> str:
    """Return a header line and one line a cell, the columns as in JSON; empty where not measured."""
    file = io.StringIO()
    names = [field.name for field in msgspec.structs.fields(CellSummary)]
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    for row in summarise(run).cells:
        writer.writerow({name: _csv_value(getattr(row, name)) for name in names})
    return file.getvalue()


def _csv_value(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
