"""What is written is read back, and what a crash left half written costs that one record and no other."""

import os
from pathlib import Path

import fakes
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.errors import RecordError, UsageError
from bench.machine.environment import Environment
from bench.records.runs import (
    HEADER,
    QUARANTINE,
    RECORDS,
    append_record,
    create_run,
    find_run,
    quarantine_rejected,
    read_run,
)
from bench.records.schema import (
    SCHEMA,
    EpochPoint,
    JobRecord,
    ParityCheck,
    ParityRecord,
    Plan,
    Record,
    RunHeader,
    UnmeasuredRecord,
    Window,
)
from bench.workloads.specs import Cell

ENVIRONMENT = Environment(
    hostname="box", system="Linux", python="CPython 3.11.9", cpu_model="Example CPU", cpu_flags=("avx2",),
    logical_cpus=2, usable_cpus=2, memory_bytes=2**34, gpus=(), gpu_driver=None, load_average=0.1,
    variables={}, version="0.1.0", commit=None, dirty=None,
)  # fmt: skip
PLAN = Plan(jobs=3, parity_s=4.0, blocks_s=30.0, training_s=10.0, refining_s=16.0)
CELL = Cell(workload=fakes.WORKLOAD, backend="steady", mode="only", device="cpu", precision="fp32")


def header(run_id: str = "run-1", created_at: str = "2026-05-01T10:00:00+00:00") -> RunHeader:
    return RunHeader(
        run_id=run_id, created_at=created_at, command=("bench", "run"), preset="quick", budget_s=60,
        min_blocks=3,
        target_half_width=0.015, seeds=1, planned=PLAN,
        seed=1, dataset_limit=None, sample=True, cells=(CELL,), workloads=(),
        backends=(), environment=ENVIRONMENT,
    )  # fmt: skip


def unmeasured(error: str) -> UnmeasuredRecord:
    return UnmeasuredRecord(cell=CELL, status="not_measured", error=error)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)  # a lone surrogate is no UTF-8
numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**53)
windows = st.builds(Window, steps=counts, samples=counts, seconds=numbers, round_steal=st.none() | numbers)
points = st.builds(
    EpochPoint, epoch=numbers, steps=counts, train_s=numbers, train_loss=st.none() | numbers,
    test_loss=numbers, test_accuracy=numbers,
)  # fmt: skip
jobs = st.builds(
    JobRecord,
    spec=st.just(fakes.task_for(fakes.STEADY).spec),
    status=st.sampled_from(["ok", "crashed", "no_steady_state"]),
    error=st.none() | texts,
    stderr_tail=st.lists(texts, max_size=3).map(tuple),
    started_at=texts,
    wall_s=numbers,
    windows=st.lists(windows, max_size=4).map(tuple),
    points=st.lists(points, max_size=3).map(tuple),
    peak_rss_bytes=st.none() | counts,
    described=st.dictionaries(texts, st.none() | texts | counts | st.booleans() | numbers, max_size=3),
)
checks = st.builds(ParityCheck, kind=st.just("logits"), error=numbers, tolerance=numbers, worst=texts)
parities = st.builds(
    ParityRecord, cell=st.just(CELL), optimizer=texts, status=st.just("ok"), error=st.none() | texts,
    steps=counts, checks=st.lists(checks, max_size=2).map(tuple),
)  # fmt: skip
records = st.lists(jobs | parities | st.builds(unmeasured, texts), min_size=1, max_size=4)
fast = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder: Path, what: list[Record]) -> Path:
    """Write a run of these records, over the one that an earlier example left."""
    run = folder / "run-1"
    if not run.exists():
        create_run(folder, header())
    for name in (RECORDS, QUARANTINE):
        (run / name).unlink(missing_ok=True)
    for record in what:
        append_record(run, record)
    return run


def test_a_header_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    run = read_run(create_run(tmp_path / "results", header()))
    assert run.header == header()
    assert run.records == ()
    assert sorted(path.name for path in run.folder.iterdir()) == [HEADER]


@fast
@given(what=records)
def test_every_record_is_read_back_as_it_was_written(what: list[Record], tmp_path: Path) -> None:
    run = read_run(written(tmp_path, what))
    assert list(run.records) == what
    assert run.rejected == ()


@fast
@given(what=records, data=st.data())
def test_a_file_cut_off_anywhere_loses_one_record_at_most(
    what: list[Record], data: st.DataObject, tmp_path: Path
) -> None:
    """And once the rest of it is moved aside, what is appended then is not lost either."""
    folder = written(tmp_path, what)
    content = (folder / RECORDS).read_bytes()
    last_line = content[:-1].rfind(b"\n") + 1
    cut = data.draw(st.integers(last_line, len(content)), label="cut")
    (folder / RECORDS).write_bytes(content[:cut])
    run = read_run(folder)
    assert list(run.records[: len(what) - 1]) == what[:-1]
    assert len(run.rejected) == (0 if cut in (last_line, len(content) - 1, len(content)) else 1)

    assert quarantine_rejected(folder) == run.rejected
    append_record(folder, unmeasured("after the crash"))
    again = read_run(folder)
    assert again.records == (*run.records, unmeasured("after the crash"))
    assert again.rejected == ()


def test_a_record_that_lacks_only_its_newline_is_kept_apart_from_the_next(tmp_path: Path) -> None:
    folder = written(tmp_path, [unmeasured("one")])
    (folder / RECORDS).write_bytes((folder / RECORDS).read_bytes().rstrip(b"\n"))
    assert quarantine_rejected(folder) == ()
    append_record(folder, unmeasured("two"))
    run = read_run(folder)
    assert (run.records, run.rejected) == ((unmeasured("one"), unmeasured("two")), ())


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\xfe",
        b"{}",
        b'{"record":"strange"}',
        b"null",
        b'{"record":"unmeasured","cell":"\xff"}',
        b'"',
    ],
)
def test_garbage_in_the_middle_is_named_and_the_rest_is_read(garbage: bytes, tmp_path: Path) -> None:
    folder = written(tmp_path, [unmeasured("one")])
    with (folder / RECORDS).open("ab") as file:
        file.write(garbage + b"\n")
    append_record(folder, unmeasured("two"))
    run = read_run(folder)
    assert run.records == (unmeasured("one"), unmeasured("two"))
    (said,) = run.rejected
    assert said.startswith("records.jsonl line 2: ")
    quarantine_rejected(folder)
    assert (folder / QUARANTINE).read_bytes() == garbage + b"\n"
    assert read_run(folder).records == run.records
    assert read_run(folder).rejected == ()


def test_what_was_moved_aside_before_is_kept(tmp_path: Path) -> None:
    folder = written(tmp_path, [unmeasured("one")])
    for garbage in (b"first", b"second"):
        with (folder / RECORDS).open("ab") as file:
            file.write(garbage)
        quarantine_rejected(folder)
    assert (folder / QUARANTINE).read_bytes() == b"first\nsecond\n"


def test_a_good_file_is_not_touched(tmp_path: Path) -> None:
    folder = written(tmp_path, [unmeasured("one")])
    before = (folder / RECORDS).stat()
    assert quarantine_rejected(folder) == ()
    after = (folder / RECORDS).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert not (folder / QUARANTINE).exists()


def test_a_record_is_on_disk_when_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = create_run(tmp_path, header())
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), real(fd)))
    append_record(folder, unmeasured("one"))
    assert synced == [(folder / RECORDS).stat().st_size]


def test_a_run_that_exists_is_not_written_over(tmp_path: Path) -> None:
    create_run(tmp_path, header())
    with pytest.raises(RecordError, match=r"File exists.*--results DIR"):
        create_run(tmp_path, header())


def test_results_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match=r"cannot write results to .*file.*Name another folder"):
        create_run(tmp_path / "file" / "results", header())


def test_records_that_cannot_be_appended_are_named(tmp_path: Path) -> None:
    folder = create_run(tmp_path, header())
    (folder / RECORDS).mkdir()
    with pytest.raises(RecordError, match=r"cannot append .*What was measured before is kept"):
        append_record(folder, unmeasured("one"))


def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    folder = create_run(tmp_path, header())
    (folder / RECORDS).symlink_to("/dev/full")
    with pytest.raises(RecordError, match="No space left on device"):
        append_record(folder, unmeasured("one"))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema":2}', b"\xff"])
def test_a_header_that_cannot_be_read_is_named(content: bytes, tmp_path: Path) -> None:
    folder = create_run(tmp_path, header())
    (folder / HEADER).write_bytes(content)
    with pytest.raises(RecordError, match=r"cannot read .*run\.json"):
        read_run(folder)


@pytest.mark.parametrize(
    ("schema", "advice"),
    [(1, "The last version that reads them is commit "), (SCHEMA + 1, "a newer version")],
)
def test_records_of_another_schema_are_refused_with_the_version_that_reads_them(
    schema: int, advice: str, tmp_path: Path
) -> None:
    folder = create_run(tmp_path, msgspec.structs.replace(header(), schema=schema))
    with pytest.raises(RecordError, match=f"schema {schema}; this version reads schema {SCHEMA}.*{advice}"):
        read_run(folder)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a run: it has no run\.json"):
        read_run(tmp_path)


def test_the_newest_run_is_the_one_begun_last_whatever_its_files_say(tmp_path: Path) -> None:
    """A checkout by git gives all files one age, or any."""
    newest = create_run(tmp_path, header("run-a", "2026-05-02T00:30:00+02:00"))
    oldest = create_run(tmp_path, header("run-z", "2026-05-01T10:00:00+00:00"))
    between = create_run(tmp_path, header("run-m", "2026-05-01T10:00:01Z"))
    for age, folder in enumerate((oldest, between, newest)):
        os.utime(folder / HEADER, (1_000_000 - age, 1_000_000 - age))
    assert find_run(tmp_path, None) == newest


def test_a_run_whose_header_is_broken_is_never_the_newest(tmp_path: Path) -> None:
    good = create_run(tmp_path, header("run-a", "2001-01-01T00:00:00+00:00"))
    for name, content in (("run-x", b"{"), ("run-y", b'{"created_at":"yesterday"}'), ("run-z", b"{}")):
        (create_run(tmp_path, header(name)) / HEADER).write_bytes(content)
    assert find_run(tmp_path, None) == good


def test_a_run_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "results", header())
    assert find_run(tmp_path / "results", "run-1") == folder
    assert find_run(tmp_path / "elsewhere", str(folder)) == folder


def test_an_unknown_run_is_answered_with_the_nearest(tmp_path: Path) -> None:
    create_run(tmp_path, header("run-20260501-100000-ab12"))
    with pytest.raises(UsageError, match="did you mean 'run-20260501-100000-ab12'"):
        find_run(tmp_path, "run-20260501-100000-ab13")


@pytest.mark.parametrize("folder", ["", "missing"])
def test_no_run_at_all_says_how_to_make_one(folder: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Make one with: bench run"):
        find_run(tmp_path / folder, None)
