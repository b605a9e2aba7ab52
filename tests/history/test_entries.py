"""The file of a history: every run once, nothing lost to a damaged line, and the line of a run."""

import codecs
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from histories import BEGUN, CELL, line_of, make_entry, make_run_of, write_run
from hypothesis import given
from hypothesis import strategies as st
from synthetic import (
    REFERENCE,
    make_block,
    make_cell,
    make_header,
    make_job,
    make_parity,
    make_run,
    make_workload,
)

from bench.analysis.summary import summarise
from bench.errors import RecordError, UsageError
from bench.history.entries import History, add, entry_of, read, read_file
from bench.machine.environment import Environment, Gpu
from bench.machine.gpu import GpuInUse
from bench.records.runs import Run
from bench.workloads.specs import Cell


def changed_header(run: Run, **changes: Any) -> Run:
    return msgspec.structs.replace(run, header=msgspec.structs.replace(run.header, **changes))


# From a run to a line


def test_a_line_holds_the_figures_of_the_runs_report() -> None:
    run = make_run_of("r", rate=2450.0)
    (row,), entry = summarise(run).cells, entry_of(run)
    (figures,) = entry.cells
    for name in (
        "cell", "ranked", "why_not", "samples_per_s", "samples_per_s_low", "samples_per_s_high", "blocks",
        "first_step_s", "epochs", "test_accuracy", "trained_jobs", "peak_rss_bytes", "peak_device_bytes",
    ):  # fmt: skip
        assert getattr(figures, name) == getattr(row, name), name
    assert row.samples_per_s == pytest.approx(2450, rel=0.01), "otherwise all of them could be None"
    assert (entry.run_id, entry.created_at, entry.mark) == ("r", BEGUN, None)
    assert (entry.commit, entry.dirty, entry.version) == ("da23250c0ffee", True, "0.1.0")
    assert entry.machine.hostname == "box"
    assert entry.machine.words == run.header.environment.in_words()
    assert entry.frameworks[0].versions == {"torch": "2.13.0"}


OWN = make_workload("mnist-mlp-defaults", matched=False)


@pytest.mark.parametrize(
    ("cell", "error", "jobs", "ranked", "counts"),
    [
        pytest.param(CELL, 0.0, 3, True, True, id="ranked"),
        pytest.param(CELL, 0.0, 2, False, False, id="too few blocks"),
        pytest.param(CELL, 1.0, 3, False, False, id="parity lost"),
        pytest.param(CELL, None, 3, False, False, id="parity not verified"),
        pytest.param(make_cell(backend=REFERENCE, mode="float64"), 0.0, 3, False, True, id="reference"),
        pytest.param(make_cell(OWN.name), 0.0, 3, False, True, id="own defaults"),
    ],
)
def test_what_counts_has_enough_blocks_and_parity(
    cell: Cell, error: float | None, jobs: int, ranked: bool, counts: bool
) -> None:
    workload = OWN if cell.workload == OWN.name else make_workload()
    records = [] if error is None else [make_parity(cell, error=error)]
    records += [make_block([cell], block) for block in range(3)]
    records += [make_job(cell, block, workload=workload) for block in range(jobs)]
    (figures,) = entry_of(make_run(make_header([cell], workloads=[workload]), records)).cells
    assert (figures.ranked, figures.counts) == (ranked, counts)


@pytest.mark.parametrize("created", ["yesterday", "", "0001-01-01T00:00:00+14:00"])
def test_a_run_without_a_date_is_refused(created: str) -> None:
    with pytest.raises(RecordError, match=r"which is not a date\. Correct created_at") as refused:
        entry_of(changed_header(make_run_of("r\x1b[31m"), created_at=created))
    assert "\x1b" not in str(refused.value)


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
def test_a_date_without_zone_is_taken_as_utc() -> None:
    run = changed_header(make_run_of("r"), created_at="2026-05-01T10:00:00")
    assert entry_of(run).created_at == BEGUN


def test_an_impossible_value_is_refused() -> None:
    run = make_run_of("r")
    jobs = [msgspec.structs.replace(job, first_step_s=1e30) for job in run.jobs]
    with pytest.raises(RecordError, match="has an impossible value"):
        entry_of(msgspec.structs.replace(run, records=(*run.parity, *run.blocks, *jobs)))


# The machine's key

ENVIRONMENT = make_run_of("r").header.environment
CHANGES: dict[str, Any] = {
    "hostname": "other", "system": "Darwin", "python": "CPython 3.13", "cpu_model": "Another CPU",
    "cpu_flags": (), "logical_cpus": 2, "usable_cpus": 2, "cpu_quota": 2.5, "worker_threads": 2,
    "memory_bytes": 2**30,
    "gpus": (Gpu(name="X, 80 GB", memory_mib=81920),), "gpu_driver": "1.2",
    "gpu": GpuInUse(name="X", uuid="GPU-2-b"), "load_average": 9.0,
    "variables": {}, "version": "9", "commit": None, "dirty": None,
}  # fmt: skip


@given(names=st.sets(st.sampled_from(sorted(CHANGES))))
def test_two_machines_share_a_key_exactly_if_they_are_the_same(names: set[str]) -> None:
    other = msgspec.structs.replace(ENVIRONMENT, **{name: CHANGES[name] for name in names})
    assert (other.key() == ENVIRONMENT.key()) is other.same_machine(ENVIRONMENT)


def test_every_field_of_an_environment_is_among_the_changes() -> None:
    assert CHANGES.keys() == {field.name for field in msgspec.structs.fields(Environment)}


def test_with_a_fixed_name_a_machine_with_a_new_name_each_time_stays_one() -> None:
    """Such machines have another GPU each time, too."""
    named = [
        msgspec.structs.replace(
            ENVIRONMENT, hostname=f"runner-{one}", gpu=GpuInUse(name="X", uuid=f"GPU-{one}-a")
        )
        for one in (1, 2)
    ]
    runs = [changed_header(make_run_of(f"r{one.hostname}"), environment=one) for one in named]
    apart, together = ({entry_of(run, host).machine.key for run in runs} for host in (None, "ci"))
    assert (len(apart), len(together)) == (2, 1)


# The file


def test_a_run_is_added_once(tmp_path: Path) -> None:
    path = tmp_path / "carried" / "history.jsonl"
    entry = make_entry()
    assert read_file(path) == History(entries=())
    assert [add(path, entry), add(path, entry)] == [True, False]
    assert path.read_bytes() == line_of(entry)
    assert add(path, make_entry(1))
    assert read_file(path) == History(entries=(entry, make_entry(1)))


@pytest.mark.parametrize("kept", [1, 20, 200])
def test_a_line_that_was_cut_off_is_named_and_the_next_is_not_lost(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(line_of(make_entry()) + line_of(make_entry(1))[:kept])
    found = read_file(path)
    assert [entry.run_id for entry in found.entries] == ["run-000"]
    assert [line.partition(": ")[0] for line in found.rejected] == ["history.jsonl line 2"]
    assert add(path, make_entry(1))
    found = read_file(path)
    assert [entry.run_id for entry in found.entries] == ["run-000", "run-001"]
    assert len(found.rejected) == 1


@pytest.mark.parametrize("kept", [1, 5, 10, 100])
def test_a_file_cut_off_in_its_first_line_can_be_appended_to(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for mark in (b"", codecs.BOM_UTF8):
        path.write_bytes(mark + line_of(make_entry())[:kept])
        assert add(path, make_entry(1))
        assert len(read_file(path).entries) == 1


def test_a_byte_order_mark_hides_no_run_and_the_file_can_be_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + line_of(make_entry()).replace(b"\n", b"\r\n"))
    assert not add(path, make_entry())
    assert add(path, make_entry(1))
    assert read_file(path) == History(entries=(make_entry(), make_entry(1)))


@pytest.mark.parametrize("content", [b"# Read me\n", b"\xff\xfe\x00", b'{"name": "package"}\n', b"[]\n"])
def test_a_file_that_is_something_else_is_not_appended_to(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not a history"):
        add(path, make_entry())
    assert path.read_bytes() == content


def changed(**changes: Any) -> bytes:
    """Return a line in which fields of the run, or of its one row, are changed."""
    line = json.loads(line_of(make_entry()))
    for name, value in changes.items():
        (line if name in line else line["cells"][0])[name] = value
    return json.dumps(line).encode() + b"\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (changed(schema=2), "it has schema 2; this version reads schema 1"),
        (changed(schema="1"), "schema"),
        (changed(created_at="yesterday"), "created_at"),
        (changed(created_at="2026-05-01T10:00:00"), "created_at"),
        (changed(samples_per_s=0), "samples_per_s"),
        (changed(samples_per_s=-1), "samples_per_s"),
        (changed(samples_per_s="fast"), "samples_per_s"),
        (changed(samples_per_s=1e300), "samples_per_s"),
        (changed(first_step_s=float("nan")), "malformed"),
        (changed(test_accuracy=1.1), "test_accuracy"),
        (changed(peak_rss_bytes=-1), "peak_rss_bytes"),
        (changed(cell={"workload": "w"}), "backend"),
        (b"{}\n", "schema"),
        (b"\x00\x1b[31m\n", "malformed"),
    ],
)
def test_a_line_that_is_no_run_is_named_and_left_out(line: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(line_of(make_entry()) + line + line_of(make_entry(1)))
    found = read_file(path)
    assert len(found.entries) == 2
    (rejected,) = found.rejected
    assert rejected.startswith("history.jsonl line 2: ")
    assert said in rejected


@given(order=st.permutations([*range(5), 0]))
def test_order_and_repetition_of_lines_do_not_matter(
    order: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A line stands twice where two jobs appended the same run at the same time."""
    entries = [make_entry(day) for day in range(4)]
    entries.append(make_entry(3, run_id="another"))  # of the same moment
    path = tmp_path_factory.mktemp("history") / "history.jsonl"
    path.write_bytes(b"".join(line_of(entries[place]) for place in order))
    assert [entry.run_id for entry in read_file(path).entries] == [
        "run-000", "run-001", "run-002", "another", "run-003",
    ]  # fmt: skip


# Folders of runs


def test_a_folder_of_runs_and_the_file_made_of_them_are_one_history(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "results", f"r{day}", 1000.0 + day, day) for day in range(3)]
    path = tmp_path / "history.jsonl"
    for run in runs:
        add(path, entry_of(run))
    assert read(tmp_path / "results") == read(path)
    assert [entry.run_id for entry in read(runs[1].folder).entries] == ["r1"]


def test_a_run_that_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, "good")
    damaged = write_run(tmp_path, "damaged").folder
    (damaged / "run.json").write_text("{")
    cut = write_run(tmp_path, "cut").folder
    with (cut / "records.jsonl").open("ab") as file:
        file.write(b'{"record":')
    found = read(tmp_path)
    assert {entry.run_id for entry in found.entries} == {"good", "cut"}
    assert sorted(line.partition(": ")[0] for line in found.rejected) == [
        f"cannot read {damaged / 'run.json'}",
        "cut/records.jsonl line 8",
    ]
