"""The rows and verdicts of a run as JSON: complete, and safe whatever the records hold."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from broken_runs import (
    BROKEN,
    HOSTILE,
    hostile_run,
)
from synthetic import (
    realistic_run,
)

from bench.analysis.summary import CellSummary, Summary, summarise
from bench.records.runs import Run
from bench.report.markdown import document
from bench.run.outlook import outlook
from bench.run.report import export, short


@pytest.fixture(scope="module")
def realistic() -> tuple[Run, Summary]:
    run = realistic_run()
    return run, summarise(run)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_run_has_its_rows_and_verdicts_as_json(name: str, tmp_path: Path) -> None:
    run = BROKEN[name](tmp_path)
    summary = summarise(run)
    rows = json.loads(export.to_json(summary), parse_constant=pytest.fail)
    assert len(rows) == len(run.header.cells)
    told = json.loads(export.verdicts_to_json(run, summary), parse_constant=pytest.fail)
    assert len(told["verdicts"]) == len(summary.verdicts)


def test_the_verdicts_are_told_as_json(realistic: tuple[Run, Summary]) -> None:
    run, summary = realistic
    told = json.loads(export.verdicts_to_json(run, summary))
    assert [one["workload"] for one in told["verdicts"]] == [one.workload for one in summary.verdicts]
    verdict, told_verdict = summary.verdicts[0], told["verdicts"][0]
    assert [pick["block"] for pick in told_verdict["picks"]] == [None, 0, None]
    for family in ("backends", "modes", "tuning"):
        for one, told_one in zip(
            getattr(verdict.made, family), told_verdict["comparisons"][family], strict=True
        ):
            assert told_one["faster"]["mode"] == one.faster.mode
            assert (told_one["ratio"], told_one["plain"]) == (one.ratio, one.plain)
            assert told_one["half_width"] == one.half_width
    found = outlook(run, summary)
    assert found is not None
    assert told["outlook"]["blocks"] == found.blocks
    assert told["outlook"]["words"] in document(short.in_markdown(run, summary), frozenset())


# ---- export


def test_json_has_one_object_a_planned_cell_with_the_fields_of_a_row(realistic):
    run, summary = realistic
    rows = json.loads(export.to_json(summary))
    assert len(rows) == len(run.header.cells)
    fields = [field.name for field in msgspec.structs.fields(CellSummary)]
    assert all(list(row) == fields for row in rows)
    missing = next(row for row in rows if row["status"] == "unavailable")
    assert missing["samples_per_s"] is None
    assert missing["parity_ok"] is None
    assert msgspec.convert(rows, list[CellSummary]) == list(summary.cells)


def test_json_escapes_what_acts_on_a_terminal_and_loses_nothing(tmp_path):
    text = export.to_json(summarise(hostile_run(tmp_path)))
    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text)[0]["workload"] == HOSTILE


# ---- imports


def test_summary_and_json_load_neither_matplotlib_nor_rich():
    code = (
        "import sys; import bench.analysis.summary, bench.run.report.export;"
        "sys.exit(bool({'matplotlib', 'rich', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=300).returncode == 0
