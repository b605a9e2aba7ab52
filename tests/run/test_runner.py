"""A run as a whole: with backends that are quick, with some that fail, cut short and resumed."""

import math
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fakes
import msgspec
import pytest
from fakes import EXITS, HANGS, QUICK, STEADY, TINY
from played import play, undisturbed

from backends.info import BackendInfo, Mode
from bench.analysis.summary import summarise
from bench.errors import RecordError
from bench.measuring import block as turns
from bench.measuring import data, selection
from bench.measuring.backends import Registry
from bench.measuring.selection import Asked, Available
from bench.records.runs import Run, create_run, read_run
from bench.records.schema import JobRecord, ParityCheck, ParityRecord, Record
from bench.run import setup as prepare
from bench.run.budget import OVERRUN
from bench.run.plan import Preset
from bench.run.runner import PIPELINE_STRETCH, Runner
from bench.workloads.catalog import find_workload
from bench.workloads.specs import Cell

pytestmark = [pytest.mark.measures, pytest.mark.long]

WORKLOADS = (fakes.WORKLOAD,)


@pytest.fixture(autouse=True)
def _played(monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed(monkeypatch)
    play(monkeypatch)


def available(infos: Sequence[BackendInfo]) -> Available:
    return selection.choose_backends(
        Registry(backends={info.name: info for info in infos}, broken={}), Asked(), "cpu"
    )


def begin(
    results: Path,
    infos: Sequence[BackendInfo],
    *,
    preset: Preset = TINY,
    budget_s: float = 120,
    workloads: Sequence[str] = WORKLOADS,
) -> Run:
    here = available(infos)
    cells = selection.chosen_cells(Asked(workloads=tuple(workloads)), here, "cpu", "default")
    plan = prepare.RunPlan(
        asked=Asked(limit=300, sample=True), preset=preset, budget_s=budget_s,
        target_half_width=preset.target_half_width, seeds=preset.seeds, seed=7, lead_s=0.01,
    )  # fmt: skip
    found = [find_workload(name) for name in workloads]
    return prepare.new_run(results, plan, cells=cells, workloads=found, available=here)


def carry_out(
    run: Run, infos: Sequence[BackendInfo], *, preset: Preset = TINY, display: fakes.Screen | None = None
) -> Run:
    here = available(infos)
    screen = display or fakes.Screen()
    splits = data.prepare_data(
        run.header.workloads, cache=Path("/nowhere"), sample=True, limit=300, offline=True, display=screen
    )
    Runner(
        run=run, preset=preset, infos=here.infos, pythons={}, splits=splits,
        unavailable=here.unavailable, display=screen,
    ).run()  # fmt: skip
    return read_run(run.folder)


def blocks_of(run: Run) -> Mapping[int, list[JobRecord]]:
    blocks: dict[int, list[JobRecord]] = defaultdict(list)
    for job in run.jobs:
        blocks[job.spec.block].append(job)
    return blocks


def pairs(run: Run) -> list[tuple[Cell, int]]:
    return [(job.spec.cell, job.spec.block) for job in run.jobs]


def names(jobs: Sequence[JobRecord]) -> list[str]:
    return [job.spec.cell.backend for job in jobs]


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a small run of two good backends."""
    with pytest.MonkeyPatch.context() as patch:
        undisturbed(patch)
        play(patch)
        folder = tmp_path_factory.mktemp("complete")
        preset = msgspec.structs.replace(TINY, min_blocks=3)
        return carry_out(begin(folder, [STEADY, QUICK], preset=preset), [STEADY, QUICK], preset=preset)


def test_a_backend_that_is_wrong_only_in_full_batches_is_not_ranked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed(monkeypatch)
    play(monkeypatch)
    wrong = fakes.info("wrong", "fakes:WrongInTraining")
    run = carry_out(begin(tmp_path, [STEADY, wrong]), [STEADY, wrong])
    assert all(record.ok for record in run.parity), "small batches do not show it"
    rows = {row.backend: row for row in summarise(run).cells}
    assert (rows["steady"].parity_ok, rows["steady"].ranked) == (True, True)
    assert (rows["wrong"].parity_ok, rows["wrong"].ranked) == (False, False)
    assert "the timed program does not compute what the reference computes: change at logits/bias" in str(
        rows["wrong"].why_not
    )
    sound = next(job for job in run.jobs if job.spec.cell.backend == "steady")
    assert [proof.after_windows for proof in sound.proofs] == [False, True]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Sequence[turns.BlockJob], dict[str, Any]]]:
    """Return a list to which every block adds its jobs and options."""
    given: list[tuple[Sequence[turns.BlockJob], dict[str, Any]]] = []

    def spy(jobs: Sequence[turns.BlockJob], **options: Any) -> turns.BlockOutcome:
        given.append((jobs, options))
        return turns.run_block(jobs, **options)

    monkeypatch.setattr("bench.measuring.block_runner.run_block", spy)
    return given


def test_every_cell_is_proven_before_anything_is_measured_and_measured_in_every_block(complete: Run) -> None:
    kinds = [type(record).__name__ for record in complete.records]
    assert kinds == ["ParityRecord"] * 2 + ["JobRecord", "JobRecord", "BlockRecord"] * 3
    assert [(record.cell.backend, record.ok) for record in complete.parity] == [
        ("quick", True),
        ("steady", True),
    ]
    assert {block: sorted(names(jobs)) for block, jobs in blocks_of(complete).items()} == {
        block: ["quick", "steady"] for block in range(3)
    }
    assert complete.unmeasured == ()
    assert complete.rejected == ()


def test_a_block_says_what_ran_in_it_and_what_the_machine_did(complete: Run) -> None:
    assert [job.spec.block for job in complete.jobs] == [0, 0, 1, 1, 2, 2]
    for block, jobs in zip(complete.blocks, blocks_of(complete).values(), strict=True):
        assert block.order == tuple(job.spec.cell for job in jobs)
        assert [job.spec.position for job in jobs] == [0, 1]
        assert block.rounds == len(jobs[0].windows) == len(jobs[1].windows)
        assert len(block.conditions.canary_s) == block.rounds + 1
        assert block.conditions.seconds > sum(window.seconds for job in jobs for window in job.windows)


def test_every_process_has_a_hash_seed_of_its_own_and_sides_of_a_block_share_the_seed(complete: Run) -> None:
    assert len({job.spec.hash_seed for job in complete.jobs}) == 6
    seeds = [{job.spec.seed for job in jobs} for _, jobs in sorted(blocks_of(complete).items())]
    assert seeds == [{7}, {8}, {9}]


def test_every_backend_trains_the_same_epochs(complete: Run) -> None:
    epochs = [{job.spec.epochs for job in jobs} for _, jobs in sorted(blocks_of(complete).items())]
    assert epochs == [{0.0}, {0.0}, {1.0}]
    curves = {tuple(point.test_loss for point in job.points) for job in blocks_of(complete)[2]}
    assert len(curves) == 1  # both fakes compute what the reference does, from one start
    assert len(curves.pop()) == 4  # before, and after each of three steps


def test_a_job_keeps_all_that_was_measured(complete: Run) -> None:
    for job in complete.jobs:
        assert job.status == "ok", job.error
        assert 5 <= len(job.windows) <= 10
        assert len(job.warmup) >= 1
        assert 0.2 * sum(window.seconds for window in job.windows) < job.lead_s < job.wall_s
        for name in ("start_s", "import_s", "data_s", "build_s", "first_step_s", "peak_rss_bytes"):
            assert getattr(job, name) > 0, name
        assert job.peak_rss_method == "VmHWM - RssFile"
        assert job.described["device"] == "cpu"
        assert "peak_device_bytes" not in job.described
        assert sum(window.seconds for window in job.windows) < job.wall_s < 60


def test_the_quicker_backend_is_found_the_quicker(complete: Run) -> None:
    def rate(name: str) -> float:
        windows = [window for job in complete.jobs if job.spec.cell.backend == name for window in job.windows]
        return sum(window.samples for window in windows) / sum(window.seconds for window in windows)

    assert rate("quick") / rate("steady") == pytest.approx(2, rel=0.01)


def test_later_blocks_train_windows_of_as_many_steps_as_the_first(tmp_path: Path, asked: Any) -> None:
    (first,) = carry_out(begin(tmp_path, [QUICK]), [QUICK]).jobs[:1]
    assert [[job.window_steps for job in jobs] for jobs, _ in asked] == [[None], [first.windows[0].steps]]


def test_the_first_three_blocks_compile_anew_and_later_ones_share_what_was_compiled_for_their_cell(
    tmp_path: Path, asked: Any
) -> None:
    preset = msgspec.structs.replace(TINY, min_blocks=5)
    found = carry_out(begin(tmp_path, [STEADY, QUICK], preset=preset), [STEADY, QUICK], preset=preset)
    assert [job.spec.compiles_anew for job in found.jobs] == [True] * 6 + [False] * 4
    given = [job.compiled for jobs, _ in asked for job in jobs]
    assert given[:6] == [None] * 6
    folders = {job.spec.cell: folder for job, folder in zip(found.jobs[6:], given[6:], strict=True)}
    assert set(given[6:]) == set(folders.values()), "the cells' folders change from block to block"
    assert len(set(folders.values())) == 2, "two cells share a folder"
    assert not any(folder.parent.exists() for folder in folders.values() if folder), (
        "something is left behind"
    )


def test_a_block_waits_for_quiet_rounds_as_long_as_the_blocks_that_are_due_leave_time(
    tmp_path: Path, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.run.schedule.MOST_BLOCKS", 3)
    preset = msgspec.structs.replace(TINY, target_half_width=1e-9)
    carry_out(begin(tmp_path, [QUICK], preset=preset, budget_s=60), [QUICK], preset=preset)
    first, last, further = (options["patience_s"] for _, options in asked)
    assert 20 < first < 40, "half of the minute, where two blocks are due"
    assert 40 < last < 60
    assert further == math.inf, "all that a ranking needs is there"


def test_a_job_whose_steps_last_longer_than_a_window_says_how_many_it_was_asked_for(tmp_path: Path) -> None:
    preset = msgspec.structs.replace(TINY, min_blocks=1, windows=6, window_s=fakes.STEP_S / 10, seeds=0)
    run = carry_out(begin(tmp_path, [STEADY], preset=preset), [STEADY], preset=preset)
    assert {(job.spec.windows, len(job.windows)) for job in run.jobs} == {(3, 3)}


class Told(fakes.Screen):
    """A screen that remembers what it was told about jobs, and the rows that it had then."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[str] = []

    def job(self, text: str, done: float | None) -> None:
        self.jobs.append(text)


def test_in_a_turn_the_display_is_told_once_and_when_the_window_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen, told = Told(), []
    turn = turns._turn

    def watched(worker: Any, steps: int) -> Any:
        before = len(screen.jobs)
        window = turn(worker, steps)
        told.append(screen.jobs[before:])
        return window

    monkeypatch.setattr(turns, "_turn", watched)
    run = carry_out(begin(tmp_path, [STEADY, QUICK]), [STEADY, QUICK], display=screen)
    assert len(told) == sum(len(job.windows) for job in run.jobs)
    numbers = [re.fullmatch(r"mnist-softmax: taking turns, (\d+) done", text)[1] for (text,) in told]
    first = [
        int(number) for number in numbers[: sum(len(job.windows) for job in run.jobs if job.spec.block == 0)]
    ]
    assert first == list(range(1, len(first) + 1))


def test_the_rows_have_a_rate_from_the_first_turn_on_and_then_one_for_each_block(tmp_path: Path) -> None:
    screen = fakes.Screen()
    carry_out(begin(tmp_path, [STEADY, QUICK]), [STEADY, QUICK], display=screen)
    assert [(row.name, row.blocks, row.rate) for row in screen.tables[0]] == [
        ("Steady only", "0/2", ""),
        ("Quick only", "0/2", ""),
    ]
    first = next(rows for rows in screen.tables if any(row.rate for row in rows))
    assert sum(bool(row.rate) for row in first) == 1
    assert all(row.running for row in first)
    assert {(row.blocks, bool(row.rate), row.running) for row in screen.tables[-1]} == {("2", True, False)}


def test_every_seed_that_was_wished_for_trains(tmp_path: Path) -> None:
    preset = msgspec.structs.replace(TINY, seeds=TINY.min_blocks)
    run = carry_out(begin(tmp_path, [STEADY], preset=preset), [STEADY], preset=preset)
    trained = {job.spec.seed for job in run.jobs if job.spec.epochs and job.points}
    assert len(trained) == preset.seeds


def test_a_mode_fed_by_a_pipeline_has_longer_windows(tmp_path: Path) -> None:
    fed = Mode(name="only", summary="through a pipeline", default=True, pipeline=True)
    infos = [STEADY, fakes.info("fed", "fakes:Steady", modes=(fed,))]
    run = carry_out(begin(tmp_path, infos), infos)
    lengths = {job.spec.cell.backend: job.spec.window_s for job in run.jobs}
    assert lengths == {"steady": TINY.window_s, "fed": pytest.approx(PIPELINE_STRETCH * TINY.window_s)}
    for job in run.jobs:
        trained_s = sum(window.seconds for window in job.windows)
        assert trained_s == pytest.approx(job.spec.window_s * len(job.windows), rel=0.1)


def test_a_backend_that_crashes_is_not_tried_again_and_stops_no_other(tmp_path: Path) -> None:
    screen = fakes.Screen()
    exits = msgspec.structs.replace(EXITS, target="fakes:ExitsInTraining")
    run = carry_out(begin(tmp_path, [exits, STEADY]), [exits, STEADY], display=screen)
    crashed = [job for job in run.jobs if job.spec.cell.backend == "exits"]
    assert [(job.status, job.spec.block) for job in crashed] == [("crashed", 0)]
    assert [job.status for job in run.jobs if job.spec.cell.backend == "steady"] == ["ok", "ok"]
    assert any("crashed: the process ended with status 7" in line for line in screen.lines)


def test_a_backend_that_hangs_does_not_keep_the_others(tmp_path: Path) -> None:
    hangs = msgspec.structs.replace(HANGS, target="fakes:HangsInTraining")
    run = carry_out(begin(tmp_path, [hangs, STEADY], budget_s=1000), [hangs, STEADY])
    (stuck,) = [job for job in run.jobs if job.spec.cell.backend == "hangs"]
    assert stuck.status == "timeout"
    assert stuck.wall_s == pytest.approx(stuck.spec.time_limit_s, abs=0.1)
    assert [job.status for job in run.jobs if job.spec.cell.backend == "steady"] == ["ok", "ok"]


def test_a_backend_that_is_not_installed_is_set_aside_with_the_reason(tmp_path: Path) -> None:
    run = carry_out(begin(tmp_path, [STEADY, fakes.ABSENT]), [STEADY, fakes.ABSENT])
    (record,) = run.unmeasured
    assert (record.cell.backend, record.status) == ("absent", "unavailable")
    assert "not installed: no-such-framework or no-such-twin" in record.error
    assert set(names(run.jobs)) == {"steady"}
    assert [parity.cell.backend for parity in run.parity] == ["steady"]


def proven(run: Run) -> Run:
    """Return the run with all cells proven, for a test that has no time for parity."""
    check = ParityCheck(kind="logits", error=0.0, tolerance=1e-5, worst="logits")
    records: tuple[Record, ...] = tuple(
        ParityRecord(cell=cell, optimizer="sgd", status="ok", steps=20, checks=(check,))
        for cell in run.header.cells
    )
    return msgspec.structs.replace(run, records=records)


def test_a_budget_too_small_names_what_was_not_measured(tmp_path: Path) -> None:
    names = ("mnist-softmax", "cifar10-softmax")
    budget_s = 1.2  # in the middle of the first block
    run = proven(begin(tmp_path, [STEADY, QUICK], budget_s=budget_s, workloads=names))
    started = time.monotonic()
    finished = carry_out(run, [STEADY, QUICK])
    assert time.monotonic() - started < budget_s * OVERRUN + 0.05
    left_out = {record.cell for record in finished.unmeasured}
    assert left_out
    assert {record.status for record in finished.unmeasured} == {"not_measured"}
    assert left_out.isdisjoint(job.spec.cell for job in finished.jobs)
    assert left_out | {job.spec.cell for job in finished.jobs} == set(run.header.cells)
    assert finished.jobs, "the first job is always tried"


def test_what_is_left_of_the_budget_goes_to_blocks_until_the_interval_is_narrow(tmp_path: Path) -> None:
    narrow = msgspec.structs.replace(TINY, target_half_width=1e-9)
    run = proven(begin(tmp_path, [QUICK], preset=narrow, budget_s=12))
    started = time.monotonic()
    finished = carry_out(run, [QUICK], preset=narrow)
    assert time.monotonic() - started < 12 * OVERRUN
    assert [job.spec.block for job in finished.jobs] == list(range(len(finished.jobs)))
    assert [block.block for block in finished.blocks] == list(range(len(finished.jobs)))
    assert len(finished.jobs) > 2


# Interrupted and resumed


class Interrupting(fakes.Screen):
    """Presses Ctrl-C when so many jobs are done, before the block is written down whose last job it was."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._left = after

    def detail(self, text: str) -> None:
        super().detail(text)
        if ", block " in text:
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 2, 3])
def test_resuming_does_the_blocks_that_are_missing(after: int, tmp_path: Path) -> None:
    infos = [STEADY, QUICK]
    run = begin(tmp_path, infos)
    with pytest.raises(KeyboardInterrupt):
        carry_out(run, infos, display=Interrupting(after))
    before = read_run(run.folder)
    assert len(before.jobs) == after
    whole = len(before.blocks)
    assert whole == (after - 1) // 2
    finished = carry_out(prepare.resumed_run(run.folder, available(infos)), infos)
    assert finished.records[: len(before.records)] == before.records
    assert len(finished.blocks) == 2
    anew = len(finished.blocks) - whole
    assert len(finished.jobs) == after + 2 * anew, "what was begun is done anew, side by side"
    assert len(pairs(finished)) == len(set(pairs(finished)))
    for block in finished.blocks:
        jobs = blocks_of(finished)[block.block]
        assert len(jobs) == 2
        assert len({(job.spec.seed, job.spec.epochs) for job in jobs}) == 1
    assert len(finished.parity) == 2

    again = carry_out(prepare.resumed_run(run.folder, available(infos)), infos)
    assert again.records == finished.records


def test_a_run_that_is_resumed_trains_what_it_trained_before(tmp_path: Path) -> None:
    """The plan may come out otherwise the second time; what a workload trains must stay equal."""
    infos = [STEADY, QUICK]
    run = begin(tmp_path, infos)
    longer = msgspec.structs.replace(TINY, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        carry_out(run, infos, preset=longer, display=Interrupting(3))
    finished = carry_out(prepare.resumed_run(run.folder, available(infos)), infos)
    trained = [job.spec.epochs for job in finished.jobs if job.spec.epochs]
    assert trained == [2.0] * 3


def test_a_run_of_another_machine_is_not_resumed(tmp_path: Path) -> None:
    run = begin(tmp_path, [STEADY])
    elsewhere = msgspec.structs.replace(
        run.header,
        run_id="elsewhere",
        environment=msgspec.structs.replace(run.header.environment, cpu_model="Another CPU"),
    )
    with pytest.raises(RecordError, match=r"begun on another machine \(Another CPU.*start a new run"):
        prepare.resumed_run(create_run(tmp_path, elsewhere), available([STEADY]))


def test_a_run_of_other_versions_is_not_resumed(tmp_path: Path) -> None:
    run = begin(tmp_path, [STEADY])
    here = available([STEADY])
    other = msgspec.structs.replace(here, versions={"steady": {"numpy": "0.1"}})
    with pytest.raises(RecordError, match=r"begun with Steady \{'numpy': .*here is \{'numpy': '0.1'\}"):
        prepare.resumed_run(run.folder, other)
