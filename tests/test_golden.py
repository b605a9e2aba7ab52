"""The figures of the reference run stay what they are, however the code is arranged."""

from pathlib import Path

import pytest

from bench.analysis.summary import summarise
from bench.records.runs import read_run
from bench.run.report.export import to_json

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.json")))
def test_a_published_run_gives_the_same_figures(name: str) -> None:
    figures = to_json(summarise(read_run(ROOT / "results" / name)))
    assert figures == (GOLDEN / f"{name}.json").read_text(encoding="utf-8")
