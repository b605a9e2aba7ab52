"""The published reports of the campaign are what its records give, and were not changed by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.analysis.summary import summarise
from bench.recipes.report import full
from bench.records.runs import read_run
from bench.report.blocks import charts_of
from bench.report.markdown import document
from bench.run.report import short
from bench.selftest import report as selftest_report
from bench.selftest.calibration import calibrate
from bench.selftest.records import read_selftest
from campaign import gates, log, loops, overall, recipes
from campaign.plan import PARTS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / log.FOLDER
GUESTS = sorted(FOLDER.parent.glob("guest-*"))
DONE = [name for name, record in log.read_parts(FOLDER, PARTS).items() if record.status == "done"]


def of_a_run(folder: Path) -> str:
    run = read_run(folder)
    blocks = short.in_markdown(run, summarise(run))
    return document(blocks, frozenset(chart.name for chart in charts_of(blocks)))


def of_a_selftest(folder: Path) -> str:
    test = read_selftest(folder)
    blocks = selftest_report.whole(test, calibrate(test))
    return document(blocks, frozenset(chart.name for chart in charts_of(blocks)))


def of_notebooks(folder: Path) -> str:
    """Return the report but for its pictures, which need models that are not published."""
    return document(full(recipes.read([folder]), [], []), frozenset())


def of_the_gate(folder: Path) -> str:
    return gates.proof().report(folder)


def of_loops(folder: Path) -> str:
    return loops.report(loops.pool(path.read_bytes() for path in sorted(folder.glob("loops-*.json"))))


REPORTS: dict[str, Callable[[Path], str]] = {
    "REPORT.md": of_a_run,
    "SELFTEST.md": of_a_selftest,
    "NOTEBOOKS.md": of_notebooks,
    "GATE.md": of_the_gate,
    "LOOPS.md": of_loops,
}


@pytest.mark.parametrize("name", DONE)
def test_the_report_of_a_part_is_what_its_records_give(name: str) -> None:
    found = [path for path in (FOLDER / name).glob("*.md") if path.name in REPORTS]
    for path in found:
        again = REPORTS[path.name](path.parent)
        text = path.read_text(encoding="utf-8")
        assert (text if path.name != "NOTEBOOKS.md" else text[: len(again.rstrip())] + "\n") == again
    assert found or name.startswith("validation-") or name == "own-costs"


@pytest.mark.parametrize("folder", GUESTS, ids=lambda path: path.name)
def test_the_report_of_another_machine_is_what_its_records_give(folder: Path) -> None:
    assert (folder / "REPORT.md").read_text(encoding="utf-8") == of_a_run(folder)


def test_a_report_over_several_parts_is_what_their_records_give() -> None:
    """Reports that are not written yet have parts that are left."""
    left = {part.name for part in PARTS} - set(DONE)
    written = [name for name in overall.REPORTS if (FOLDER / name).is_file()]
    assert written == list(overall.REPORTS) or left
    for name in written:
        assert overall.REPORTS[name](FOLDER, PARTS) == (FOLDER / name).read_text(encoding="utf-8")
