"""Packing raw values where the program finds them, the limit of size, and the README of the folder."""

import lzma
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from followed import due_figures, make_header, write_training
from synthetic import make_cell, simple_run
from test_campaign_run import make_command, make_part, record_of

from bench import store
from bench.errors import RecordError
from bench.recipes.catalog import RECIPES
from bench.recipes.records import read_training
from bench.records.runs import append_record, create_run, read_run
from campaign import execute, log, pack
from campaign.cuts import CUT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a campaign with a run of its own, as its part leaves it, and a part with folders in it."""
    folder = tmp_path / "results" / "campaign"
    run = simple_run({make_cell(): [1000.0, 1010.0, 990.0]})
    made = create_run(folder, run.header)
    for record in run.records:
        append_record(made, record)
    made.rename(folder / "run-default-1")
    for seed in range(2):
        (folder / "notebooks" / f"seed-{seed}").mkdir(parents=True)
        (folder / "notebooks" / f"seed-{seed}" / "figures.jsonl").write_text(f"{seed}\n")
    return folder


def test_raw_values_go_where_the_program_finds_them(folder):
    before = read_run(folder / "run-default-1")
    assert pack.pack(folder) == [folder / "notebooks/records.tar.xz", folder / "records.tar.xz"]
    assert list(folder.rglob("*.jsonl")) == []
    assert read_run(folder / "run-default-1") == before
    assert len(before.records) > 3
    assert store.content(folder / "notebooks/seed-1/figures.jsonl") == b"1\n"
    assert set(store.archived(folder / "records.tar.xz")) == {"run-default-1/records.jsonl"}


@pytest.mark.parametrize(("seed", "whole"), [(pack.WHOLE_SEEDS - 1, True), (pack.WHOLE_SEEDS, False)])
def test_of_later_seeds_the_figures_are_kept_without_the_losses_of_steps(tmp_path, seed, whole):
    header = make_header(RECIPES["notebook-one-layer"], "torch", seed)
    made = write_training(tmp_path / "notebooks-softmax" / "training", header, due_figures(header))
    assert made.finished
    assert len(made.losses) == header.steps
    pack.pack(tmp_path)
    again = read_training(made.folder)
    if whole:
        assert again == made
    else:
        assert again.finished
        assert len(again.losses) == 0
        for one, before in zip(again.figures, made.figures, strict=True):
            assert one == msgspec.structs.replace(before, losses=b"", distributions={})
    assert pack.pack(tmp_path) == []


def test_of_a_training_that_is_not_finished_all_is_kept(tmp_path):
    header = make_header(RECIPES["notebook-one-layer"], "torch", pack.WHOLE_SEEDS)
    made = write_training(tmp_path / "notebooks-softmax" / "training", header, due_figures(header)[:-1])
    pack.pack(tmp_path)
    assert read_training(made.folder) == made


def test_a_report_says_where_the_packed_values_are(folder):
    pack.write_reports(folder)
    report = folder / "run-default-1" / "REPORT.md"
    assert "](records.jsonl)" in report.read_text()
    pack.pack(folder)
    pack.write_reports(folder)
    assert "](../records.tar.xz)" in report.read_text()


def test_packing_again_keeps_what_is_there_and_changes_no_byte(folder):
    pack.pack(folder)
    first = (folder / "notebooks/records.tar.xz").read_bytes()
    assert pack.pack(folder) == []
    (folder / "notebooks/seed-2").mkdir()
    (folder / "notebooks/seed-2/figures.jsonl").write_text("2\n")
    pack.pack(folder)
    held = store.archived(folder / "notebooks/records.tar.xz")
    assert held == {f"seed-{seed}/figures.jsonl": f"{seed}\n".encode() for seed in range(3)}
    del_one = {name: content for name, content in held.items() if "seed-2" not in name}
    assert pack.packed(del_one) == first


def test_a_run_that_is_gone_on_with_after_packing_loses_nothing(folder):
    pack.pack(folder)
    store.append_line(folder / "notebooks/seed-0/figures.jsonl", b"more")
    pack.pack(folder)
    assert store.content(folder / "notebooks/seed-0/figures.jsonl") == b"0\nmore\n"


def test_a_part_that_is_begun_again_takes_its_packed_values_along(folder):
    before = read_run(folder / "run-default-1")
    pack.pack(folder)
    kept = execute.set_aside(folder, "run-default-1")
    assert kept.name == "run-default-1-try-1"
    assert read_run(kept).records == before.records
    assert not (folder / "notebooks/seed-0/figures.jsonl").exists()
    pack.pack(folder)
    assert read_run(kept).records == before.records


def test_a_part_that_is_begun_again_reads_nothing_of_what_was_packed(folder):
    (folder / "validation-1").mkdir()
    store.append_line(folder / "validation-1/processes.jsonl", b"before")
    pack.pack(folder)
    kept = execute.set_aside(folder, "validation-1")
    (folder / "validation-1").mkdir()
    assert store.content(folder / "validation-1/processes.jsonl") == b""
    assert store.content(kept / "processes.jsonl") == b"before\n"
    assert "validation-1/processes.jsonl" not in store.archived(folder / store.ARCHIVE)
    assert "run-default-1/records.jsonl" in store.archived(folder / store.ARCHIVE)


def test_files_stay_if_the_archive_does_not_hold_them(folder, monkeypatch):
    monkeypatch.setattr(pack, "packed", lambda members: lzma.compress(b"\0" * 10240))
    with pytest.raises(RecordError, match="does not hold what was packed"):
        pack.pack(folder)
    assert len(list(folder.rglob("*.jsonl"))) == 3


def test_too_much_is_refused_with_the_largest_files(folder):
    results = folder.parent
    (results / "large.html").write_bytes(b"x" * 5000)
    (folder / "notebooks/seed-0/model.safetensors").write_bytes(b"x" * 10**6)
    total = pack.refuse_too_large(results)
    assert 5000 < total < 10**6
    with pytest.raises(RecordError, match=r"large\.html"):
        pack.refuse_too_large(results, most=total)


def test_the_readme_lists_every_part_what_failed_and_what_was_cut(folder):
    parts = [make_part(make_command(), name=name) for name in ("good", "bad", "left")]
    header = log.begin(folder, parts, state="s" * 64, method="m", commit="c" * 40)
    records = {
        "good": record_of(parts[0], "done", datetime.now(UTC)),
        "bad": record_of(parts[1], "failed", datetime.now(UTC)),
    }
    text = pack.readme(header, records, parts, {})
    assert "| good | reference runs | done |" in text
    assert "| bad | reference runs | failed |" in text
    assert "| left | reference runs | left |  | 10 min planned |" in text
    assert all(one.asked in text for one in CUT)
    assert "sssssss" in text
    assert "tries" not in text
    assert "has not begun" in pack.readme(None, {}, parts, {})


def test_the_readme_lists_what_was_kept_when_a_part_began_again(folder):
    part = make_part(make_command(), name="run-default-1")
    log.write_part(folder, record_of(part, "done", datetime.now(UTC)))
    execute.set_aside(folder, part.name)
    text = pack.write_readme(folder, [part]).read_text()
    assert "| run-default-1 | reference runs | left |" in text
    assert "## Earlier tries" in text
    assert "| run-default-1-try-1 | done |" in text


def test_a_change_of_the_plan_that_several_parts_share_is_one_entry():
    changes = [("a", "first"), ("b", "second"), ("c", "first")]
    amendments = [
        log.Amendment(part=part, reason=reason, at=f"at {part}", commit="c" * 40, before="", after="")
        for part, reason in changes
    ]
    header = log.CampaignHeader(
        state="s", method="m", commit="c", began_at="t", plan={}, amendments=tuple(amendments)
    )
    text = pack.readme(header, {}, [], {})
    assert "\n- a, c, at a, commit `cccccccccc`: first\n" in text
    assert "\n- b, at b, commit `cccccccccc`: second\n" in text
