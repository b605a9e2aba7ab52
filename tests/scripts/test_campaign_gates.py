"""The gates of part 7: every try counts, and an interruption repeats none."""

from pathlib import Path

import pytest

from bench.errors import RecordError
from campaign import gates


def made(folder: Path, kind: str, name: str, *, judged: bool = True) -> None:
    place = folder / kind / name
    place.mkdir(parents=True)
    (place / "ab.json").write_text("{}")
    if judged:
        (place / "AB.md").write_text("verdict")


def test_only_what_is_left_is_tried(tmp_path):
    made(tmp_path, "slower", "ab-0")
    tried = []

    def attempt(folder, kind, tries, options):
        tried.append((kind, tries, options))
        made(folder, kind, f"ab-{len(tried)}")

    gates.make(tmp_path, "slower", 3, ["--budget", "10m"], attempt)
    assert tried == [("slower", 1, ["--budget", "10m"])] * 2
    gates.make(tmp_path, "slower", 3, [], attempt)
    assert len(tried) == 2


def test_an_interrupted_try_is_kept_aside(tmp_path):
    made(tmp_path, "rate", "ab-cut", judged=False)
    gates.make(tmp_path, "rate", 1, [], lambda folder, kind, tries, options: made(folder, kind, "ab-new"))
    assert [path.name for path in (tmp_path / "interrupted").iterdir()] == ["ab-cut"]
    assert [path.name for path in gates.judged(tmp_path, "rate")] == ["ab-new"]


def test_a_try_that_ends_without_a_verdict_is_a_failure(tmp_path):
    with pytest.raises(RecordError, match="without a verdict"):
        gates.make(tmp_path, "labels", 2, [], lambda *_: None)


def test_the_heads_are_those_of_the_gates_own_proof():
    module = gates.proof()
    assert callable(module.main)
    assert set(module.KINDS) == {"unchanged", "slower", "rate", "labels"}
