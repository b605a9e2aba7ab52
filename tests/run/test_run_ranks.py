"""A run with ranks as a whole: its rows side by side, each rank on its device, and what a lost rank costs."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import fakes
import msgspec
import psutil
import pytest
import ranked
from fakes import TINY
from played import undisturbed

from backends.info import BackendInfo
from bench.analysis.summary import summarise
from bench.errors import RecordError, UsageError
from bench.measuring import data, selection
from bench.measuring.backends import Registry
from bench.measuring.hosts import session
from bench.measuring.hosts.launchers import Launched
from bench.measuring.ranks.rows import ranked_cells
from bench.measuring.ranks.slots import LocalSlot, local_slots
from bench.measuring.selection import Asked, Available
from bench.records.runs import Run, read_run
from bench.records.schema import BlockRecord, JobRecord, LessonsRecord
from bench.run import setup as prepare
from bench.run.runner import Runner
from bench.workloads.catalog import find_workload
from bench.workloads.specs import Cell, Device

pytestmark = [pytest.mark.measures, pytest.mark.long]

PRESET = msgspec.structs.replace(TINY, lessons=True, seeds=0)


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let workers find the backends, and the machine decide nothing; see that no process is left."""
    undisturbed(monkeypatch)
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("PYTHONPATH", fakes.python_path())
    yield
    assert psutil.Process().children(recursive=True) == []
    assert list(folder.iterdir()) == []


def slots() -> tuple[LocalSlot, ...]:
    return local_slots("cpu", 2, shared=True)


def available(infos: Sequence[BackendInfo]) -> Available:
    return selection.choose_backends(
        Registry(backends={info.name: info for info in infos}, broken={}), Asked(), "cpu"
    )


def begin(results: Path, infos: Sequence[BackendInfo], **asked: object) -> Run:
    here = available(infos)
    what = Asked(workloads=(fakes.WORKLOAD,), ranks=(1, 2), limit=300, sample=True, **asked)  # type: ignore[arg-type]
    plan = prepare.RunPlan(
        asked=what, preset=PRESET, budget_s=300.0, target_half_width=PRESET.target_half_width, seeds=0,
        seed=7, lead_s=0.01,
    )  # fmt: skip
    cells = ranked_cells(what, here, "cpu", plain=True)
    workloads = [find_workload(fakes.WORKLOAD)]
    return prepare.new_run(results, plan, cells=cells, workloads=workloads, available=here, slots=slots())


def carry_out(run: Run, infos: Sequence[BackendInfo]) -> Run:
    here, screen = available(infos), fakes.Screen()
    splits = data.prepare_data(
        run.header.workloads, cache=Path("/nowhere"), sample=True, limit=300, offline=True, display=screen
    )
    Runner(
        run=run, preset=PRESET, infos=here.infos, pythons={}, splits=splits, unavailable=here.unavailable,
        display=screen, slots=slots(),
    ).run()  # fmt: skip
    return read_run(run.folder)


def jobs_of(run: Run) -> dict[Cell, list[JobRecord]]:
    found: dict[Cell, list[JobRecord]] = {}
    for job in run.jobs:
        found.setdefault(job.spec.cell, []).append(job)
    return found


def test_all_rows_are_measured_side_by_side_and_every_rank_has_its_core(tmp_path: Path) -> None:
    lessons = fakes.with_lessons("GivesLessons").lessons
    infos = [msgspec.structs.replace(ranked.info(), lessons=lessons)]
    run = carry_out(begin(tmp_path, infos, scaling="both"), infos)
    rows = [(cell.mode, cell.ranks, cell.scaling) for cell in run.header.cells]
    plain, alone, strong, weak = run.header.cells
    assert rows == [
        ("plain", 1, "strong"), ("together", 1, "strong"), ("together", 2, "strong"), ("together", 2, "weak"),
    ]  # fmt: skip
    blocks = [record for record in run.records if isinstance(record, BlockRecord)]
    assert len(blocks) >= PRESET.min_blocks
    assert all(sorted(block.order) == sorted(run.header.cells) for block in blocks)
    jobs = jobs_of(run)
    assert {job.status for job in run.jobs} == {"ok"}
    cores = [f"CPU {cpu}" for cpu in run.header.devices]
    for cell, of_cell in jobs.items():
        assert len({job.spec.job_id for job in of_cell}) == len(of_cell) == len(blocks)
        for job in of_cell:
            assert [one.device for one in job.ranks] == cores[: cell.ranks]
            assert {window.samples / window.steps for window in job.windows} == {200 if cell == weak else 100}
            assert len({one.digest for one in job.ranks}) == 1
    assert len({job.spec.job_id for job in run.jobs}) == len(run.jobs)
    assert {job.spec.workload.name for job in jobs[weak]} == {"mnist-softmax@200"}
    assert all(one.digest is None for job in jobs[plain] for one in job.ranks)
    assert all(one.digest is not None for cell in (alone, strong) for job in jobs[cell] for one in job.ranks)
    proven = {record.cell: record for record in run.parity}
    assert set(proven) == set(run.header.cells)
    assert all(record.ok for record in proven.values())
    assert proven[weak].checks == proven[strong].checks, "one proof for both"
    assert run.header.ranks == (1, 2)
    assert run.header.placebo is None
    assert not any(isinstance(record, LessonsRecord) for record in run.records)
    assert run.header.planned.lessons_s == 0


def test_a_rank_that_is_lost_costs_its_row_and_no_other(tmp_path: Path) -> None:
    infos = [ranked.info("ExitsInRank", "exits"), ranked.info()]
    run = carry_out(begin(tmp_path, infos), infos)
    summary = summarise(run)
    rows = {(row.backend, row.mode, row.ranks): row for row in summary.cells}
    lost = rows.pop(("exits", "together", 2))
    assert lost.why_not is not None
    assert "rank 1 of 2: crashed: the process ended with status 7" in lost.why_not
    assert all(row.ranked for row in rows.values()), rows
    (job,) = [job for job in run.jobs if job.status != "ok"]
    assert [one.status for one in job.ranks] == ["failed", "crashed"]
    assert "rank 1 is about to exit" in job.stderr_tail


def test_a_run_is_resumed_with_the_ranks_and_the_cores_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infos = [ranked.info()]
    registry = Registry(backends={"ranked": infos[0]}, broken={})
    monkeypatch.setattr(prepare, "find_backends", lambda: registry)
    begun = begin(tmp_path, infos)
    asked: list[object] = []

    def given(device: Device, count: int, devices: Sequence[int], *, shared: bool) -> Sequence[LocalSlot]:
        asked.append((device, count, devices, shared))
        return slots()

    monkeypatch.setattr(session, "local_slots", given)
    prepared = prepare.prepare_resumed(begun.folder, {})
    assert prepared.cells == begun.header.cells
    assert prepared.slots == slots()
    assert asked == [("cpu", 2, begun.header.devices, False)]


def test_a_run_is_not_resumed_with_its_ranks_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infos = [ranked.info()]
    monkeypatch.setattr(prepare, "find_backends", lambda: Registry(backends={"ranked": infos[0]}, broken={}))
    begun = begin(tmp_path, infos)
    first, second = slots()
    away = first, msgspec.structs.replace(second, host="beta")
    monkeypatch.setattr(session, "local_slots", lambda *_, **__: away)
    with pytest.raises(RecordError, match=r"was begun with its ranks on devices .* now they are on .*beta"):
        prepare.prepare_resumed(begun.folder, {})


def test_a_run_without_ranks_is_not_resumed_under_a_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        prepare, "find_backends", lambda: Registry(backends={"steady": fakes.STEADY}, broken={})
    )
    here = available([fakes.STEADY])
    what = Asked(workloads=(fakes.WORKLOAD,), limit=300, sample=True)
    plan = prepare.RunPlan(
        asked=what, preset=PRESET, budget_s=300.0, target_half_width=1.0, seeds=0, seed=7, lead_s=0.01
    )
    cells = selection.chosen_cells(what, here, "cpu", "default")
    workloads = [find_workload(fakes.WORKLOAD)]
    begun = prepare.new_run(tmp_path, plan, cells=cells, workloads=workloads, available=here)
    found = Launched(
        launcher="srun", rank=0, ranks=2, local_rank=0, host="a", port=1, one_host=False, job="1"
    )
    with pytest.raises(UsageError, match=r"has no ranks: go on with it without a launcher"):
        prepare.prepare_resumed(begun.folder, {}, session.Hosts(found))
    assert prepare.prepare_resumed(begun.folder, {}).slots == ()
