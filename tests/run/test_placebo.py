"""The placebo of a run: which row it is, what its jobs count for, and how it is judged and reported."""

import json
import math
from pathlib import Path
from typing import Any

import fakes
import msgspec
import numpy as np
import pytest
from fakes import QUICK, STEADY, TINY
from played import play, undisturbed
from synthetic import make_block, make_cell, make_header, make_job, make_parity, make_run
from test_runner import begin, blocks_of, carry_out

from backends.info import Mode
from bench.analysis.summary import Summary, summarise
from bench.measuring import selection
from bench.measuring.backends import Registry
from bench.measuring.design import balanced_order
from bench.measuring.selection import Asked
from bench.records.runs import Run
from bench.records.schema import Record
from bench.run import setup
from bench.run.report.export import verdicts_to_json
from bench.run.report.sentences import placebo_sentence
from bench.workloads.catalog import find_workload

pytestmark = [pytest.mark.measures, pytest.mark.long]

THREE = msgspec.structs.replace(TINY, min_blocks=3)
HOUR = 3600.0


@pytest.fixture(autouse=True)
def _played(monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed(monkeypatch)
    play(monkeypatch)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        undisturbed(patch)
        play(patch)
        begun = begin(tmp_path_factory.mktemp("placebo"), [STEADY, QUICK], preset=THREE, budget_s=HOUR)
        return carry_out(begun, [STEADY, QUICK], preset=THREE)


def test_every_block_of_its_workload_has_a_second_job_of_the_cell(run: Run) -> None:
    placebo = run.header.placebo
    assert placebo in run.header.cells
    assert len(run.copies) == len(run.blocks) == 3
    for block, copy in zip(run.blocks, run.copies, strict=True):
        assert block.order.count(placebo) == 2
        assert (block.copy, copy.spec.block) == (copy.spec.position, block.block)
        assert block.order[copy.spec.position] == copy.spec.cell == placebo
        assert all(sorted(turns) == [0, 1, 2] for turns in block.turns)


def test_its_jobs_count_for_nothing_else(run: Run) -> None:
    assert {copy.spec.epochs for copy in run.copies} == {0.0}
    assert {len(jobs) for jobs in blocks_of(run).values()} == {2}
    assert all(not job.spec.copy for job in run.jobs)
    assert {row.blocks for row in summarise(run).cells} == {3}


def test_it_is_compared_and_reported(run: Run) -> None:
    summary = summarise(run)
    assert summary.placebo is not None
    assert summary.placebo.faster == summary.placebo.slower == run.header.placebo
    assert summary.placebo.blocks == 3
    said = json.loads(verdicts_to_json(run, summary))["placebo"]
    assert said["kind"] == summary.placebo.kind
    assert "two jobs of" in (placebo_sentence(summary) or "")


def test_a_run_without_the_time_has_none(tmp_path: Path) -> None:
    run = carry_out(begin(tmp_path, [STEADY, QUICK]), [STEADY, QUICK])
    assert run.header.placebo is None
    assert run.copies == ()
    assert {block.copy for block in run.blocks} == {None}
    assert summarise(run).placebo is None
    assert placebo_sentence(summarise(run)) is None


def test_its_time_is_part_of_the_plan_and_of_the_budget(tmp_path: Path) -> None:
    with_it = begin(tmp_path / "one", [STEADY, QUICK], preset=THREE, budget_s=HOUR).header
    without = begin(tmp_path / "other", [STEADY, QUICK], preset=THREE, budget_s=60.0).header
    assert (with_it.planned.jobs, without.planned.jobs) == (9, 6)


@pytest.mark.parametrize(
    "changes",
    [{"modes": (Mode(name="only", summary="plain", level="taught", default=True),)}, {"reference": True}],
)
def test_it_is_a_tuned_row_that_can_be_ranked(changes: dict[str, Any], tmp_path: Path) -> None:
    other = fakes.info("other", "fakes:Steady", **changes)
    here = selection.choose_backends(
        Registry(backends={one.name: one for one in (other, STEADY)}, broken={}),
        Asked(backends=("other", "steady")), "cpu",
    )  # fmt: skip
    cells = selection.chosen_cells(Asked(workloads=(fakes.WORKLOAD,)), here, "cpu", "default")
    workloads, flops = [find_workload(fakes.WORKLOAD)], {fakes.WORKLOAD: 1.0}
    assert {cell.backend for cell in cells} == {"other", "steady"}
    assert [cell.backend for cell in setup._quickest(cells, workloads, here, flops)] == ["steady"]


def test_it_is_a_row_of_the_workload_with_the_shortest_steps(tmp_path: Path) -> None:
    header = begin(
        tmp_path, [STEADY, QUICK], budget_s=HOUR, workloads=("mnist-cnn", "mnist-softmax", "cifar10-mlp")
    ).header
    assert header.placebo is not None
    assert header.placebo.workload == "mnist-softmax"


def test_a_resumed_run_keeps_it_and_counts_its_time(run: Run) -> None:
    again = carry_out(run, [STEADY, QUICK], preset=THREE)
    assert again.header.placebo == run.header.placebo
    assert len(again.copies) == len(again.blocks)


# ---- made of records

ONE, OTHER = make_cell(), make_cell(backend="jax", mode="jit")
ROUNDS = 60


def made(*, faster: float = 0.0, after_itself: float = 0.0, blocks: int = 4) -> Summary:
    """Summarise a run whose copy of ONE is faster, or whose ONE is faster after its copy, in logarithms."""
    chance = np.random.default_rng(5)
    order, copy = (ONE, OTHER, ONE), 2
    records: list[Record] = [make_parity(cell) for cell in (ONE, OTHER)]
    for number in range(blocks):
        turns = [tuple(balanced_order(3, one)) for one in range(ROUNDS)]
        logs: list[list[float]] = [[], [], []]
        for turn in turns:
            for before, place in zip([None, *turn], turn, strict=False):
                itself = before is not None and before != place and order[before] == order[place]
                change = (faster if place == copy else 0.0) + (after_itself if itself else 0.0)
                logs[place].append(math.log(1000) + change + chance.normal(0, 0.002))
        for place, cell in enumerate(order):
            job = make_job(cell, number, rates=[float(one) for one in np.exp(logs[place])], windows=ROUNDS)
            spec = msgspec.structs.replace(job.spec, copy=place == copy)
            records.append(msgspec.structs.replace(job, spec=spec))
        block = make_block((ONE, OTHER), number, rounds=ROUNDS)
        records.append(msgspec.structs.replace(block, order=order, turns=tuple(turns), copy=copy))
    header = msgspec.structs.replace(make_header([ONE, OTHER]), placebo=ONE)
    return summarise(make_run(header, records))


def test_equal_programs_are_not_told_apart() -> None:
    summary = made()
    assert summary.placebo is not None
    assert not summary.placebo.differs
    assert "no difference is found" in (placebo_sentence(summary) or "")


def test_a_difference_between_equal_programs_is_a_warning() -> None:
    summary = made(faster=0.05)
    assert summary.placebo is not None
    assert summary.placebo.differs
    assert summary.placebo.ratio == pytest.approx(math.exp(0.05), rel=0.01)
    assert "Do not trust small differences" in (placebo_sentence(summary) or "")


def test_a_copy_shows_what_a_row_does_after_itself() -> None:
    effects = {one.backend: one for one in made(after_itself=0.04).carry_over[ONE]}
    assert effects.keys() == {None, "jax", ONE.backend}
    assert effects[ONE.backend].change == pytest.approx(math.expm1(0.04), abs=0.005)
    assert effects["jax"].change < 0


def test_windows_of_the_copy_are_not_those_of_the_row() -> None:
    (row, _) = sorted(made(faster=0.05).cells, key=lambda row: row.cell != ONE)
    assert row.samples_per_s == pytest.approx(1000, rel=0.01)
