"""The figures and words about two published runs stay what they are, however the code is arranged."""

from pathlib import Path

import pytest

from bench.analysis.summary import summarise
from bench.exports.tables import to_csv
from bench.records.runs import Run, read_run
from bench.report.blocks import charts_of
from bench.report.markdown import document
from bench.run.report import short
from bench.run.report.export import to_json

RESULTS = Path(__file__).parent.parent / "results"
GOLDEN = Path(__file__).parent / "golden"


def short_report(run: Run) -> str:
    blocks = short.in_markdown(run, summarise(run))
    return document(blocks, frozenset(chart.name for chart in charts_of(blocks)))


FORMS = {"json": lambda run: to_json(summarise(run)), "csv": to_csv, "md": short_report}


@pytest.mark.parametrize("path", sorted(GOLDEN.iterdir()), ids=lambda path: path.name)
def test_a_published_run_gives_the_same_figures_and_words(path: Path) -> None:
    (folder,) = (one for one in (RESULTS / path.stem, RESULTS / "campaign" / path.stem) if one.is_dir())
    run = read_run(folder)
    assert FORMS[path.suffix[1:]](run) == path.read_text(encoding="utf-8")
