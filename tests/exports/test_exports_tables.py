"""The rows as CSV and as Parquet, read back by Python's csv and by PyArrow."""

import csv
import io
import json
import sys

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exported import COMMIT, HOSTILE, acts_on_a_terminal, full_run, hostile_run, with_commit
from hypothesis import example, given
from hypothesis import strategies as st
from synthetic import make_cell, make_header, make_job, make_parity, make_run

from bench.analysis.summary import CellSummary, summarise
from bench.errors import RecordError, UnavailableError
from bench.exports.tables import to_csv, to_parquet
from bench.records.runs import Run
from bench.run.report import export
from bench.text import clean

TORCH = make_cell()
NAMES = [field.name for field in msgspec.structs.fields(CellSummary)]


def csv_rows(run: Run) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(to_csv(run)), strict=True)
    rows = list(reader)
    assert reader.fieldnames == NAMES
    assert all(None not in row and None not in row.values() for row in rows), "each line has every column"
    return rows


def table(run: Run) -> pa.Table:
    return pq.read_table(pa.BufferReader(to_parquet(run)))


RUNS = {
    "empty": make_run(make_header([])),
    "planned only": make_run(make_header([TORCH])),
    "all crashed": make_run(make_header([TORCH]), [make_job(TORCH, status="crashed", rates=())]),
    "parity alone": make_run(make_header([TORCH]), [make_parity(TORCH, error=0.0)]),
    "full": full_run(),
    "hostile": hostile_run(),
}


# ---- CSV


def test_csv_has_the_same_values_as_json() -> None:
    run = full_run()
    for row, line in zip(json.loads(export.to_json(summarise(run))), csv_rows(run), strict=True):
        for key, value in row.items():
            expected = "" if value is None else value if isinstance(value, str) else json.dumps(value)
            assert line[key] == expected


@pytest.mark.parametrize("name", RUNS)
def test_every_planned_row_is_a_line_of_both_tables(name: str) -> None:
    run = RUNS[name]
    rows = table(run).to_pylist()
    assert msgspec.convert(rows, list[CellSummary]) == list(summarise(run).cells)
    assert len(csv_rows(run)) == len(rows) == len(run.header.cells)


@example("=1+1")
@given(st.text(max_size=30))
def test_text_comes_back_from_csv_as_one_clean_line_that_is_no_formula(name: str) -> None:
    (row,) = csv_rows(make_run(make_header([make_cell(backend=name)])))
    found = row["backend"]
    assert found == (f"'{clean(name)}" if clean(name).startswith(("=", "+", "-", "@")) else clean(name))
    assert acts_on_a_terminal(found) == []


# ---- Parquet


def test_columns_have_types_and_only_what_may_be_missing_is_null() -> None:
    schema = pq.read_schema(pa.BufferReader(to_parquet(full_run())))
    assert schema.names == NAMES
    kinds = {name: str(schema.field(name).type) for name in NAMES}
    assert kinds["samples_per_s"] == kinds["first_step_s"] == kinds["test_accuracy"] == "double"
    assert kinds["blocks"] == kinds["peak_rss_bytes"] == "int64"
    assert kinds["ranked"] == kinds["parity_ok"] == "bool"
    assert kinds["workload"] == kinds["device"] == kinds["status"] == kinds["why_not"] == "string"
    nullable = {name for name in NAMES if schema.field(name).nullable}
    assert {"samples_per_s", "why_not", "parity_ok", "mark", "peak_device_bytes"} <= nullable
    assert not {"workload", "status", "ranked", "blocks"} & nullable
    missing = next(row for row in table(full_run()).to_pylist() if row["status"] == "unavailable")
    assert missing["samples_per_s"] is missing["parity_ok"] is None
    column = table(full_run()).column("peak_device_bytes")
    assert (column.null_count, str(column.type)) == (len(column), "int64"), "only nulls, and yet a type"


def test_the_metadata_name_run_and_commit() -> None:
    metadata = pq.read_schema(pa.BufferReader(to_parquet(with_commit(full_run(), dirty=True)))).metadata
    assert metadata[b"samework.run_id"] == b"2026-05-01-quick"
    assert metadata[b"samework.commit"] == COMMIT.encode()
    assert metadata[b"samework.dirty"] == b"true"
    unknown = pq.read_schema(pa.BufferReader(to_parquet(with_commit(full_run(), None, dirty=None)))).metadata
    assert unknown[b"samework.commit"] == unknown[b"samework.dirty"] == b""
    assert table(hostile_run()).schema.metadata[b"samework.run_id"].decode() == HOSTILE


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))  # no record can hold half a character
def test_parquet_keeps_every_text_as_it_is(name: str) -> None:
    run = make_run(make_header([make_cell(backend=name)]))
    assert table(run).column("backend").to_pylist() == [name]


@pytest.mark.parametrize("count", [2**63, 10**30])
def test_a_number_that_no_column_holds_is_a_record_error(count: int) -> None:
    run = make_run(make_header([TORCH]), [make_parity(TORCH), make_job(TORCH, peak_rss_bytes=count)])
    with pytest.raises(RecordError, match="cannot be exported as Parquet"):
        to_parquet(run)


def test_without_pyarrow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnavailableError, match=r"pip install 'samework\[parquet\]'"):
        to_parquet(full_run())
