"""The file of a history, and its commands: every run once, nothing lost to a damaged line, nothing mixed."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import Call
from histories import (
    BEGUN,
    BOX,
    CELL,
    line_of,
    make_entry,
    make_figures,
    make_history,
    make_run_of,
    write_run,
)
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
from bench.history.entries import Entry, History, add, entry_of, read, read_file
from bench.history.series import series
from bench.machine.environment import Environment, Gpu
from bench.records.runs import Run
from bench.records.schema import RunHeader

HOSTILE = 'a<script>alert(1)</script>,"\n\x1b[31m|`[x](y)` =1+1'


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
    assert row.samples_per_s == pytest.approx(2450, rel=0.01), "or all of the above may be None"
    assert (entry.run_id, entry.created_at, entry.mark) == ("r", BEGUN, None)
    assert (entry.commit, entry.dirty, entry.version) == ("da23250c0ffee", True, "0.1.0")
    assert entry.machine.hostname == "box"
    assert entry.machine.words == run.header.environment.in_words()
    assert entry.frameworks[0].versions == {"torch": "2.13.0"}


def test_a_line_is_the_same_after_it_was_written_and_read() -> None:
    entry = entry_of(make_run_of("r"))
    assert msgspec.json.decode(line_of(entry), type=Entry) == entry


def counting(run: Run) -> list[tuple[bool, bool]]:
    return [(figures.ranked, figures.counts) for figures in entry_of(run).cells]


def test_what_counts_has_enough_blocks_and_does_the_same_work() -> None:
    jobs = [make_job(CELL, block) for block in range(3)]
    blocks = [make_block([CELL], block) for block in range(3)]
    header = make_header([CELL])
    assert counting(make_run(header, [make_parity(CELL), *blocks, *jobs])) == [(True, True)]
    assert counting(make_run(header, [make_parity(CELL), *blocks, *jobs[:2]])) == [(False, False)]
    assert counting(make_run(header, [make_parity(CELL, error=1.0), *blocks, *jobs])) == [(False, False)]
    assert counting(make_run(header, [*blocks, *jobs])) == [(False, False)], "parity was not verified"


def test_the_reference_and_own_defaults_count_though_they_are_never_ranked() -> None:
    reference = make_cell(backend=REFERENCE, mode="float64")
    own = make_workload("mnist-mlp-defaults", matched=False)
    defaults = make_cell(own.name)
    for cell, workload in ((reference, make_workload()), (defaults, own)):
        records = [make_parity(cell)]
        records += [make_block([cell], block) for block in range(3)]
        records += [make_job(cell, block, workload=workload) for block in range(3)]
        run = make_run(make_header([cell], workloads=[workload]), records)
        assert counting(run) == [(False, True)]


@pytest.mark.parametrize("created", ["yesterday", "", "0001-01-01T00:00:00+14:00"])
def test_a_run_without_a_date_is_refused_in_words(created: str) -> None:
    run = make_run_of("r\x1b[31m")
    run = msgspec.structs.replace(run, header=msgspec.structs.replace(run.header, created_at=created))
    with pytest.raises(RecordError, match="which is no date; mend created_at") as refused:
        entry_of(run)
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
    run = make_run_of("r")
    header = msgspec.structs.replace(run.header, created_at="2026-05-01T10:00:00")
    assert entry_of(msgspec.structs.replace(run, header=header)).created_at == BEGUN


def test_a_figure_that_no_machine_can_have_is_refused_in_words() -> None:
    run = make_run_of("r")
    jobs = [msgspec.structs.replace(job, first_step_s=1e30) for job in run.jobs]
    with pytest.raises(RecordError, match="no machine can have"):
        entry_of(msgspec.structs.replace(run, records=(*run.parity, *run.blocks, *jobs)))


# The machine's key

ENVIRONMENT = make_run_of("r").header.environment
CHANGES: dict[str, Any] = {
    "hostname": "other", "system": "Darwin", "python": "CPython 3.13", "cpu_model": "Another CPU",
    "cpu_flags": (), "logical_cpus": 2, "usable_cpus": 2, "memory_bytes": 2**30,
    "gpus": (Gpu(name="X, 80 GB", memory_mib=81920),), "gpu_driver": "1.2", "load_average": 9.0,
    "variables": {}, "version": "9", "commit": None, "dirty": None,
}  # fmt: skip


@given(names=st.sets(st.sampled_from(sorted(CHANGES))))
def test_two_machines_share_a_key_exactly_where_they_are_the_same(names: set[str]) -> None:
    other = msgspec.structs.replace(ENVIRONMENT, **{name: CHANGES[name] for name in names})
    assert (other.key() == ENVIRONMENT.key()) is other.same_machine(ENVIRONMENT)


def test_every_field_of_an_environment_is_among_the_changes() -> None:
    assert CHANGES.keys() == {field.name for field in msgspec.structs.fields(Environment)}


def test_with_a_name_of_its_own_a_machine_of_a_new_name_each_time_stays_one() -> None:
    runs = [make_run_of("r"), make_run_of("s")]
    new = msgspec.structs.replace(ENVIRONMENT, hostname="runner-2")
    runs[1] = msgspec.structs.replace(
        runs[1], header=msgspec.structs.replace(runs[1].header, environment=new)
    )
    apart, together = ({entry_of(run, host).machine.key for run in runs} for host in (None, "ci"))
    assert (len(apart), len(together)) == (2, 1)
    slower = msgspec.structs.replace(new, cpu_model="Another CPU")
    runs[0] = msgspec.structs.replace(
        runs[0], header=msgspec.structs.replace(runs[0].header, environment=slower)
    )
    assert len({entry_of(run, "ci").machine.key for run in runs}) == 2, "another CPU is another machine"


# The file


def test_a_run_is_added_once(tmp_path: Path) -> None:
    path = tmp_path / "carried" / "history.jsonl"
    entry = make_entry()
    assert [add(path, entry), add(path, entry)] == [True, False]
    assert path.read_bytes() == line_of(entry)
    assert add(path, make_entry(1))
    assert read_file(path) == History(entries=(entry, make_entry(1)))


def test_there_is_nothing_in_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert read_file(tmp_path / "none") == History(entries=())


def test_two_lines_of_one_run_count_once(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(line_of(make_entry()) * 2)  # as two jobs make that append at the same time
    assert len(read_file(path).entries) == 1


@pytest.mark.parametrize("kept", [1, 20, 200])
def test_a_line_that_was_cut_off_is_named_and_left_out_and_the_next_is_not_lost(
    kept: int, tmp_path: Path
) -> None:
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
    path.write_bytes(line_of(make_entry())[:kept])
    assert add(path, make_entry(1))
    assert len(read_file(path).entries) == 1


@pytest.mark.parametrize("content", [b"# Read me\n", b"\xff\xfe\x00", b'{"name": "package"}\n', b"[]\n"])
def test_a_file_that_is_something_else_is_not_appended_to(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is no history"):
        add(path, make_entry())
    assert path.read_bytes() == content


def changed(**changes: Any) -> bytes:
    """Return a line of which fields of the run, or of its one cell, are changed."""
    line = json.loads(line_of(make_entry()))
    for name, value in changes.items():
        (line if name in line else line["cells"][0])[name] = value
    return json.dumps(line).encode() + b"\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (changed(schema=2), "it is of schema 2; this version reads schema 1"),
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


@given(order=st.permutations(range(5)))
def test_the_order_of_the_lines_does_not_matter(
    order: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
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


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no "):
        read(tmp_path / "nothing")


# Series


def test_a_series_is_of_one_machine_cell_and_mark() -> None:
    entries = [
        make_entry(0),
        make_entry(1, machine=msgspec.structs.replace(BOX, key="2")),
        make_entry(2, mark="made on the small sample"),
        make_entry(3, [make_figures(cell=make_cell(mode="compile"))]),
        make_entry(4, [make_figures(cell=make_cell(precision="bf16"))]),
        make_entry(5, [make_figures(cell=make_cell(device="gpu"))]),
        make_entry(6, [make_figures(cell=make_cell("mnist-mlp"))]),
        make_entry(7),
    ]
    found = series(History(entries=tuple(entries)), "speed")
    days = {tuple(int(point.entry.run_id[-1]) for point in one.points) for one in found}
    assert days == {(0, 7), (1,), (2,), (3,), (4,), (5,), (6,)}


def test_runs_on_a_sample_and_on_limited_data_are_marked_and_apart() -> None:
    runs = [
        make_run_of("full"),
        make_run_of("sample", day=1, sample=True),
        make_run_of("few", day=2, dataset_limit=500),
    ]
    found = series(History(entries=tuple(entry_of(run) for run in runs)), "speed")
    assert [one.mark and one.mark.partition(".")[0] for one in found] == [
        None,
        "Limited to the first 500 images of each split",
        "Made on the small sample that comes with the program",
    ]


def test_accuracies_after_other_epochs_are_apart_and_speeds_are_not() -> None:
    entries = tuple(
        make_entry(day, [make_figures(epochs=epochs)]) for day, epochs in enumerate((3.0, 1.0, 3.0))
    )
    history = History(entries=entries)
    assert [(one.epochs, len(one.points)) for one in series(history, "accuracy")] == [(1.0, 1), (3.0, 2)]
    assert [(one.epochs, len(one.points)) for one in series(history, "speed")] == [(None, 3)]


@pytest.mark.parametrize(
    ("measure", "values"),
    [("speed", [1000.0]), ("first-step", [0.4]), ("accuracy", [0.98]), ("memory", [700 * 2**20])],
)
def test_each_measure_is_its_own_figure(measure: Any, values: list[float]) -> None:
    (one,) = series(History(entries=(make_entry(),)), measure)
    assert [point.value for point in one.points] == values
    assert (one.points[0].low is None) is (measure != "speed")


def test_memory_on_a_gpu_is_the_gpus() -> None:
    cell = make_cell(device="gpu")
    told, untold = make_figures(cell=cell, peak_device_bytes=5), make_figures(cell=cell)
    history = History(entries=(make_entry(0, [told]), make_entry(1, [untold])))
    (one,) = series(history, "memory")
    assert [point.value for point in one.points] == [5.0]


def test_what_was_not_measured_is_no_value_and_nor_is_zero() -> None:
    history = History(entries=(make_entry(0, [make_figures(None, test_accuracy=0.0, first_step_s=None)]),))
    assert [series(history, measure) for measure in ("speed", "accuracy", "first-step")] == [()] * 3


def test_rows_that_lack_what_a_ranking_needs_stand_apart() -> None:
    lacking = make_figures(500.0, ranked=False, counts=False, why_not="1 of the 3 blocks it needs")
    history = History(entries=(make_entry(0), make_entry(1, [lacking]), make_entry(2)))
    (one,) = series(history, "speed")
    assert [point.value for point in one.points] == [1000.0, 1000.0]
    assert [point.value for point in one.apart] == [500.0]
    assert one.change == pytest.approx(1)


def test_a_change_is_against_the_median_of_all_before() -> None:
    rates = [1000.0, 9000.0, 1010.0, 990.0, 1100.0]
    (one,) = series(make_history(rates), "speed")
    assert one.change == pytest.approx(1100 / (1000 * 1010) ** 0.5)
    (alone,) = series(make_history(rates[:1]), "speed")
    assert alone.change is None


def test_change_points_are_those_of_the_logarithms_that_count() -> None:
    rates = [1000.0] * 6 + [900.0] * 6
    (one,) = series(make_history(rates), "speed")
    (change,) = one.change_points()
    assert change.index == 6
    assert change.ratio == pytest.approx(0.9)


@given(seed=st.integers(0, 1000))
def test_series_come_machine_by_machine_and_workload_by_workload(seed: int) -> None:
    drawn = random.Random(seed)  # noqa: S311
    entries = []
    for day in range(6):
        cells = [make_cell(f"w{place}", mode=mode) for place in range(3) for mode in ("eager", "compile")]
        machine = msgspec.structs.replace(BOX, key=str(drawn.randrange(3)))
        chosen = drawn.sample(cells, drawn.randint(1, 6))
        entries.append(make_entry(day, [make_figures(cell=cell) for cell in chosen], machine=machine))
    found = [(one.machine.key, one.cell.workload) for one in series(History(entries=tuple(entries)), "speed")]
    assert len(dict.fromkeys(found)) == sum(a != b for a, b in zip([None, *found], found, strict=False))


# The commands


def test_a_run_is_added_from_its_folder_and_shown(call: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "results", "first", 1000.0)
    write_run(tmp_path / "results", "second", 1100.0, 1)
    assert call("history", "add", "first", "--history", "h.jsonl").out == (
        "Run first added to h.jsonl, which has 1 run.\n"
    )
    again = call("history", "add", "first", "--history", "h.jsonl")
    assert (again.status, again.err) == (0, "")
    assert again.out == "Run first is already in h.jsonl, which has 1 run.\n"
    assert "which has 2 runs" in call("history", "add", "second", "--history", "h.jsonl").out
    shown = call("history", "show", "h.jsonl")
    assert (shown.status, shown.err) == (0, "")
    assert "Speed of 2 runs, 2026-05-01 to 2026-05-02" in shown.out
    assert "+10.0 %" in shown.out
    assert call("history", "show").out == shown.out, "the folder of the runs says the same"


def test_a_run_is_found_in_another_folder_and_by_its_path(call: Call, tmp_path: Path) -> None:
    run = write_run(tmp_path / "elsewhere", "first")
    assert call("history", "add", "first", "--history", "h", "--results", "elsewhere").status == 0
    assert "is already in" in call("history", "add", str(run.folder), "--history", "h").out


def test_the_machines_name_can_be_given(call: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "results", "first")
    call("history", "add", "first", "--history", "h", "--host", "ci")
    (entry,) = read_file(tmp_path / "h").entries
    assert entry.machine.hostname == "ci"


def test_a_change_of_level_is_advice_and_no_failure(call: Call, tmp_path: Path) -> None:
    (tmp_path / "h").write_bytes(b"".join(map(line_of, make_history([1000.0] * 8 + [500.0] * 8).entries)))
    said = call("history", "show", "h", "--output", "out")
    assert said.status == 0
    assert "speed fell by 50 %" in said.out
    assert "Report: out/HISTORY.md" in said.out
    assert (tmp_path / "out" / "plots" / "history-speed-mnist-cnn.svg").is_file()


@pytest.mark.parametrize(
    ("measure", "word"),
    [("speed", "samples/s"), ("first-step", "400 ms"), ("accuracy", "98.00 %"), ("memory", "700 MiB")],
)
def test_each_measure_can_be_shown(measure: str, word: str, call: Call, tmp_path: Path) -> None:
    (tmp_path / "h").write_bytes(line_of(make_entry()))
    assert word in call("history", "show", "h", "--measure", measure).out


def test_nothing_to_show_is_status_3(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "results").mkdir()
    (tmp_path / "slow").write_bytes(line_of(make_entry(0, [make_figures(None)])))
    for arguments in (["empty"], [], ["slow"]):
        call("history", "show", *arguments).refused(3, "history add")
    call("history", "show", "slow").refused(3, "none of the runs in slow has a figure of speed")


def test_wrong_usage_is_status_2(call: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "results", "first")
    (tmp_path / "other").write_text("# Read me")
    call("history", "show", "nowhere").refused(2, "there is no nowhere", "Name a file")
    call("history", "show", "--measure", "beauty").refused(2, "beauty")
    call("history", "add", "frist", "--history", "h").refused(2, "did you mean 'first'?")
    call("history", "add", "first").refused(2, "--history")
    call("history", "add", "first", "--history", "results").refused(2, "is a directory")
    call("history", "add", "first", "--history", "other").refused(2, "other is no history")
    call("history", "show", "results", "--output", "other").refused(2, "other")


def test_what_cannot_be_written_is_said(call: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "results", "first")
    (tmp_path / "file").touch()
    call("history", "add", "first", "--history", "file/h").refused(3, "Name another file with --history")
    call("history", "show", "--output", "file/out").refused(3, "Name another folder with --output")


def test_a_damaged_line_is_named_by_both_commands(call: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "results", "first")
    (tmp_path / "h").write_bytes(line_of(make_entry()) + b'{"schema":1,"run\x1b[31m')
    added = call("history", "add", "first", "--history", "h")
    added.refused(0, "left out, as it cannot be read: h line 2")
    shown = call("history", "show", "h")
    assert (shown.status, shown.err) == (0, "")
    assert "Left out, as it cannot be read: h line 2" in shown.out


def test_hostile_names_are_harmless_on_the_terminal(call: Call, tmp_path: Path) -> None:
    cell = make_cell(HOSTILE, HOSTILE, HOSTILE)
    lacking = make_figures(9.0, cell, ranked=False, counts=False, why_not=HOSTILE)
    machine = msgspec.structs.replace(BOX, key=HOSTILE, words=HOSTILE, hostname=HOSTILE)
    entries = [
        make_entry(
            day,
            [make_figures(rate, cell)],
            run_id=f"{HOSTILE}{day}",
            commit=HOSTILE,
            mark=HOSTILE,
            machine=machine,
        )
        for day, rate in enumerate([1000.0] * 8 + [500.0] * 8)
    ]
    entries.append(make_entry(99, [lacking], mark=HOSTILE, machine=machine))
    (tmp_path / "h").write_bytes(b"".join(map(line_of, entries)))
    said = call("history", "show", "h", "--output", "out")
    assert (said.status, said.err) == (0, "")
    assert "\x1b" not in said.out
    assert "fell by 50 %" in said.out


def test_a_hostile_name_of_a_run_is_harmless_when_it_is_added(call: Call, tmp_path: Path) -> None:
    run = make_run_of("x")
    header: RunHeader = msgspec.structs.replace(run.header, run_id=HOSTILE)
    folder = tmp_path / "results" / "x"
    folder.mkdir(parents=True)
    (folder / "run.json").write_bytes(msgspec.json.encode(header))
    said = call("history", "add", "x", "--history", "h")
    assert (said.status, said.err) == (3, "bench: no row of it has a figure.\n")
    assert "\x1b" not in said.out
    assert said.out.count("\n") == 1
    assert (tmp_path / "h").read_bytes().count(b"\n") == 1
