"""Collecting for the self-test: what is run, what is written, and that an interruption loses nothing."""

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes import python_path
from played import play, undisturbed
from rich.console import Console
from synthetic import make_conditions, make_header

from backends.info import BackendInfo, Mode
from bench.errors import RecordError, UsageError
from bench.measuring import block as turns
from bench.measuring import block_runner
from bench.measuring.backends import Registry
from bench.measuring.block import BlockJob, BlockOutcome
from bench.measuring.data import Split
from bench.measuring.process import Outcome
from bench.measuring.selection import Asked
from bench.progress import make_display
from bench.records.schema import Window
from bench.selftest import collect as selftest
from bench.selftest import report as reporting
from bench.selftest.collect import Collector, SelfTestPlan
from bench.selftest.records import (
    BLOCKS,
    SIDES,
    TRIALS,
    SelfTest,
    SelfTestHeader,
    create_selftest,
    find_selftest,
    read_selftest,
)
from bench.worker.protocol import DataSource, Ready, Timed
from bench.workloads.catalog import find_workload
from bench.workloads.specs import Cell

pytestmark = pytest.mark.measures

INFO = BackendInfo(
    name="even", title="Even", target="fakes:Steady", distributions=("numpy",),
    modes=(Mode(name="only", summary="at an even pace", default=True),),
)  # fmt: skip
CELL = Cell(workload="mnist-softmax", backend="even", mode="only", device="cpu", precision="fp32")
SOURCES = {"mnist-softmax": DataSource(name="mnist", cache=None, limit=None)}


def make_test(folder: Path, *, groups: int = 2, blocks: int = 3, windows: int = 4) -> SelfTest:
    environment = make_header([CELL]).environment
    header = SelfTestHeader(
        run_id="selftest-x", created_at="2026-01-01T00:00:00+00:00", command=("bench", "selftest"),
        groups=(CELL,) * groups, blocks=blocks, windows=windows, window_s=0.01,
        workloads=(find_workload("mnist-softmax"),), backends=(), environment=environment,
    )  # fmt: skip
    return SelfTest(folder=create_selftest(folder, header), header=header, blocks=())


class Fake:
    """Stands in for `run_block`: every window takes 0.01 s, longer by the slowdown that was injected."""

    def __init__(
        self, *, interrupt_at: int | None = None, broken: tuple[str | float | None, ...] = ()
    ) -> None:
        self.blocks: list[Sequence[BlockJob]] = []
        self._interrupt_at, self._broken = interrupt_at, broken

    def __call__(self, jobs: Sequence[BlockJob], *, on_event: Any, on_end: Any, **_: Any) -> BlockOutcome:
        if len(self.blocks) == self._interrupt_at:
            raise KeyboardInterrupt
        self.blocks.append(jobs)
        outcomes = []
        for place, job in enumerate(jobs):
            windows = job.task.spec.windows
            seconds = 0.01 * (1 + (job.task.slowdown or 0.0))
            events = [
                Ready(step_s=seconds / 3, call_steps=1),
                *[Timed(window=Window(steps=3, samples=300, seconds=seconds))] * windows,
            ]
            failed = job.task.slowdown in self._broken
            if failed:
                events = []
            for event in events:
                on_event(place, event)
            outcomes.append(
                Outcome(
                    events=tuple(events), status="crashed" if failed else "ok",
                    error="it is gone" if failed else None, exit_signal=None, stderr_tail=(), wall_s=1.0,
                )
            )  # fmt: skip
            on_end(place, outcomes[-1], windows)
        return BlockOutcome(
            outcomes=tuple(outcomes), rounds=jobs[0].task.spec.windows, conditions=make_conditions()
        )


def go(test: SelfTest, fake: Any) -> tuple[SelfTest, str]:
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, make_display(Console(file=out, width=200)) as display:
        patched.setattr(block_runner, "run_block", fake)
        Collector(test, infos={"even": INFO}, pythons={}, sources=SOURCES, display=display).run()
    return read_selftest(test.folder), out.getvalue()


def test_every_block_has_every_side_once_and_all_of_it_is_kept(tmp_path):
    fake = Fake()
    read, said = go(make_test(tmp_path), fake)
    assert [(block.group, block.block) for block in read.blocks] == [
        (g, b) for g in range(2) for b in range(3)
    ]
    for block, jobs in zip(read.blocks, fake.blocks, strict=True):
        assert sorted(side.side for side in block.sides) == sorted(side.name for side in SIDES)
        assert [side.injected for side in block.sides] == [job.task.slowdown for job in jobs]
        assert [side.hash_seed for side in block.sides] == [job.task.spec.hash_seed for job in jobs]
        for side in block.sides:
            assert [window.seconds for window in side.windows] == [0.01 * (1 + (side.injected or 0.0))] * 4
        # Both sides of a comparison must do the same work.
        assert len({job.task.spec.seed for job in jobs}) == 1
        assert len({job.task.spec.hash_seed for job in jobs}) == len(jobs)
    assert len({jobs[0].task.spec.seed for jobs in fake.blocks}) == 6
    assert "2 groups of 3 blocks, 6 processes each" in said
    assert "about" in said.splitlines()[0]


def test_a_wrapper_that_adds_nothing_is_told_from_no_wrapper(tmp_path):
    fake = Fake()
    go(make_test(tmp_path, groups=1, blocks=1), fake)
    assert Counter(job.task.slowdown for job in fake.blocks[0]) == {None: 2, 0.0: 1, 0.03: 1, 0.05: 1, 0.1: 1}


def test_no_side_always_starts_first(tmp_path):
    read, _ = go(make_test(tmp_path, groups=1, blocks=6), Fake())
    for place in range(len(SIDES)):
        assert len({block.sides[place].side for block in read.blocks}) == len(SIDES)


def test_the_trials_are_of_sides_that_exist_with_the_slower_one_last():
    injected = {side.name: side.injected for side in SIDES}
    assert all(not injected[base] for base, _ in TRIALS)
    assert sorted(injected[head] or 0.0 for _, head in TRIALS) == [0.0, 0.0, 0.03, 0.05, 0.1]


def test_an_interrupted_self_test_keeps_its_blocks_and_goes_on(tmp_path):
    test = make_test(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        go(test, Fake(interrupt_at=2))
    half = read_selftest(test.folder)
    assert len(half.blocks) == 2
    rest = Fake()
    whole, _ = go(half, rest)
    assert len(rest.blocks) == 4
    assert len(whole.blocks) == 6
    assert whole.blocks[:2] == half.blocks
    assert {job.window_steps for block in rest.blocks for job in block} == {3}, "as many as before"
    again = Fake()
    go(whole, again)
    assert again.blocks == []


def test_a_line_cut_off_is_named_left_out_and_measured_again(tmp_path):
    test = make_test(tmp_path)
    whole, _ = go(test, Fake())
    path = test.folder / BLOCKS
    path.write_bytes(path.read_bytes()[:-100])
    cut = read_selftest(test.folder)
    assert len(cut.blocks) == 5
    assert len(cut.rejected) == 1
    assert cut.rejected[0].startswith(f"{BLOCKS} line 6: ")
    again = Fake()
    mended, _ = go(cut, again)
    assert len(again.blocks) == 1
    assert [(block.group, block.block) for block in mended.blocks] == [
        (block.group, block.block) for block in whole.blocks
    ]
    assert len(mended.rejected) == 1  # it is still there, and still named


def test_a_side_that_fails_is_kept_with_its_reason_and_told(tmp_path):
    read, said = go(make_test(tmp_path, groups=1, blocks=1), Fake(broken=(0.05,)))
    (failed,) = [side for side in read.blocks[0].sides if side.status != "ok"]
    assert (failed.side, failed.error, failed.windows) == ("slower by 5 %", "it is gone", ())
    assert "slower by 5 %: crashed: it is gone" in said


def test_a_cell_that_never_trains_is_not_tried_for_hours(tmp_path):
    fake = Fake(broken=(None, 0.0, 0.03, 0.05, 0.1))
    read, said = go(make_test(tmp_path), fake)
    assert len(fake.blocks) == len(read.blocks) == 1
    assert "not tried again" in said


def test_a_self_test_is_found_by_name_or_path_and_a_wrong_name_is_corrected(tmp_path):
    test = make_test(tmp_path)
    assert find_selftest(tmp_path, "selftest-x") == test.folder
    assert find_selftest(Path("elsewhere"), str(test.folder)) == test.folder
    with pytest.raises(UsageError, match="did you mean 'selftest-x'"):
        find_selftest(tmp_path, "selftest-y")
    with pytest.raises(UsageError, match="is not a self-test"):
        read_selftest(tmp_path)


def test_records_of_another_schema_are_refused(tmp_path):
    test = make_test(tmp_path)
    header = test.folder / "selftest.json"
    header.write_text(header.read_text().replace('"schema": 2', '"schema": 1'))
    with pytest.raises(RecordError, match="schema 1"):
        read_selftest(test.folder)


def test_it_is_not_resumed_on_another_machine(tmp_path):
    header = make_test(tmp_path).header
    other = msgspec.structs.replace(header.environment, cpu_model="Another CPU")
    with pytest.raises(RecordError, match="another machine"):
        selftest._refuse_another_machine(header, other)
    selftest._refuse_another_machine(header, header.environment)


def test_it_is_not_resumed_with_other_variables(tmp_path):
    header = make_test(tmp_path).header
    other = msgspec.structs.replace(header.environment, variables={"LD_PRELOAD": "/libjemalloc.so"})
    with pytest.raises(RecordError, match="LD_PRELOAD was not set and is"):
        selftest._refuse_another_machine(header, other)


def test_sides_that_cannot_share_a_gpu_are_recorded_as_such(tmp_path, monkeypatch):
    play(monkeypatch)
    undisturbed(monkeypatch)
    monkeypatch.setattr(block_runner, "admits_one_process", lambda: True)
    on_gpu = msgspec.structs.replace(CELL, device="gpu")
    test = make_test(tmp_path, groups=1, blocks=1)
    test = msgspec.structs.replace(test, header=msgspec.structs.replace(test.header, groups=(on_gpu,)))
    info = msgspec.structs.replace(INFO, target="fakes:OnGpu")
    out = io.StringIO()
    with make_display(Console(file=out, width=400)) as display:
        Collector(test, infos={"even": info}, pythons={}, sources=SOURCES, display=display).run()
    (block,) = read_selftest(test.folder).blocks
    assert {side.status for side in block.sides} == {"ok"}, out.getvalue()
    assert not block.in_turns
    assert block.rounds == sum(len(side.windows) for side in block.sides)
    assert out.getvalue().count(block_runner.ALONE) == 1
    order = dict(reporting.facts(read_selftest(test.folder)))["order"]
    assert order.startswith("In all blocks the processes ran one after another")


def test_real_processes_take_turns_and_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", python_path())
    undisturbed(monkeypatch)
    read, said = go(make_test(tmp_path, groups=1, blocks=1, windows=5), turns.run_block)
    (block,) = read.blocks
    assert {side.status for side in block.sides} == {"ok"}, said
    assert block.rounds == 5
    assert {len(side.windows) for side in block.sides} == {5}
    assert len(block.conditions.canary_s) == 6


def test_what_is_measured_by_default_goes_round_and_is_begun_again_only_with_the_same(tmp_path, monkeypatch):
    registry = Registry(backends={"even": INFO}, broken={})
    available, header = selftest._new_header(registry, SelfTestPlan(asked=Asked(), comparisons=5, blocks=2))
    assert [cell.workload for cell in header.groups] == [
        "mnist-softmax", "mnist-mlp", "mnist-cnn", "mnist-softmax", "mnist-mlp",
    ]  # fmt: skip
    assert {cell.mode for cell in header.groups} == {"only"}
    assert header.backends[0].versions == available.versions["even"]
    selftest._backends_again(registry, header, {})
    newer = msgspec.structs.replace(header.backends[0], versions={"numpy": "0.1"})
    with pytest.raises(RecordError, match="begun with Even"):
        selftest._backends_again(registry, msgspec.structs.replace(header, backends=(newer,)), {})


def test_an_interruption_says_how_to_go_on_and_a_name_is_enough_to_do_so(tmp_path, monkeypatch):
    monkeypatch.setattr(selftest, "find_backends", lambda: Registry(backends={"even": INFO}, broken={}))
    monkeypatch.setattr(
        selftest, "prepare_data",
        lambda workloads, **_: {
            one.name: Split(source=SOURCES["mnist-softmax"], train=1, test=1) for one in workloads
        },
    )  # fmt: skip
    out = io.StringIO()

    def go_on(fake: Fake, name: str | None) -> SelfTest:
        monkeypatch.setattr(block_runner, "run_block", fake)
        with make_display(Console(file=out, width=200)) as display:
            return selftest.measure(
                SelfTestPlan(asked=Asked(), comparisons=2, blocks=2),
                results=tmp_path, cache=tmp_path, resume=name, offline=True, display=display,
            )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        go_on(Fake(interrupt_at=1), None)
    name = next(tmp_path.glob("selftest-*")).name
    assert f"bench selftest --resume {name}" in out.getvalue()
    rest = Fake()
    assert len(go_on(rest, name).blocks) == 4
    assert len(rest.blocks) == 3
