"""The rows of a run as tables, CSV and Parquet: a line for every planned row, the columns of `CellSummary`.

Spreadsheets read CSV, so its texts are single lines without control characters, and none is a formula.
Programs read Parquet, so it keeps every text unchanged, and types. A value that was not measured is null in
Parquet and empty in CSV.
"""

import csv
import io
import types
import typing
from typing import Any

import msgspec

from bench.analysis.summary import CellSummary, summarise
from bench.errors import RecordError, UnavailableError
from bench.records.runs import Run
from bench.text import clean

_FORMULA = ("=", "+", "-", "@")
"""A spreadsheet takes text with one of these beginnings for a formula."""
_TYPES = {str: "string", bool: "bool", int: "int64", float: "float64"}
"""Parquet's type for each type of a field."""


def to_csv(run: Run) -> str:
    """Return a header line and one line for each row; values that were not measured are empty."""
    file = io.StringIO()
    names = [field.name for field in msgspec.structs.fields(CellSummary)]
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    for row in summarise(run).cells:
        writer.writerow({name: _csv_value(getattr(row, name)) for name in names})
    return file.getvalue()


def to_parquet(run: Run) -> bytes:
    """Return a Parquet file whose metadata name run and commit.

    Raise UnavailableError without PyArrow, and RecordError if a value fits no column.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UnavailableError(
            f"Parquet needs PyArrow, which cannot be imported ({error}). "
            "Install it with: pip install 'samework[parquet]'"
        ) from error
    rows = [msgspec.structs.asdict(row) for row in summarise(run).cells]
    environment = run.header.environment
    about = {
        "samework.run_id": run.header.run_id,
        "samework.created_at": run.header.created_at,
        "samework.version": environment.version,
        "samework.commit": environment.commit or "",
        "samework.dirty": "" if environment.dirty is None else str(environment.dirty).lower(),
    }
    columns = [pa.field(name, kind, nullable=nullable) for name, kind, nullable in _columns()]
    try:
        table = pa.Table.from_pylist(rows, schema=pa.schema(columns, metadata=about))
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        raise RecordError(f"the run cannot be exported as Parquet: {clean(str(error))}.") from error
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _columns() -> list[tuple[str, str, bool]]:
    """Return the name, the type, and whether it may be null, of every column."""
    found = []
    for name, hint in typing.get_type_hints(CellSummary).items():
        choices = set(typing.get_args(hint)) if isinstance(hint, types.UnionType) else {hint}
        (kind,) = choices - {type(None)}
        if typing.get_origin(kind) is typing.Literal:
            kind = str
        found.append((name, _TYPES[kind], type(None) in choices))
    return found


def _csv_value(value: object) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
