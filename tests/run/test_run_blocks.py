"""What a run asks of its blocks, and which of them it replaces, in time and within its budget."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import fakes
import msgspec
import pytest
from fakes import QUICK, STEADY, TINY
from played import QuietWatch, play, undisturbed
from test_runner import Interrupting, available, begin, blocks_of, carry_out

from bench.analysis.summary import summarise
from bench.machine.conditions import Taken
from bench.measuring import block as turns
from bench.records.runs import read_run
from bench.run import setup as prepare

pytestmark = [pytest.mark.measures, pytest.mark.long]


@pytest.fixture(autouse=True)
def _played(monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed(monkeypatch)
    play(monkeypatch)


class Haunted(QuietWatch):
    """Sees other programs take half of the CPUs in all rounds of the blocks with these numbers."""

    blocks: ClassVar[set[int]] = set()
    watched: ClassVar[int] = 0

    def __init__(self, *pids: Any, **options: Any) -> None:
        super().__init__(*pids, **options)
        self._haunted = Haunted.watched in self.blocks
        Haunted.watched += 1

    def round_over(self) -> Taken:
        if self._haunted:
            self._taken.append(Taken(steal=0.0, foreign=0.5))
            return self._taken[-1]
        return super().round_over()


def haunt(patch: pytest.MonkeyPatch, *blocks: int) -> None:
    patch.setattr(turns, "Watch", Haunted)
    patch.setattr(Haunted, "blocks", set(blocks))
    patch.setattr(Haunted, "watched", 0)


THREE = msgspec.structs.replace(TINY, min_blocks=3)


def test_a_block_without_quiet_rounds_is_replaced_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    haunt(monkeypatch, 0)
    run = carry_out(begin(tmp_path, [STEADY, QUICK], preset=THREE), [STEADY, QUICK], preset=THREE)
    assert [block.replaces for block in run.blocks] == [False, False, True, False]
    epochs = [{job.spec.epochs for job in jobs} for _, jobs in sorted(blocks_of(run).items())]
    assert epochs == [{0.0}, {0.0}, {0.0}, {1.0}]
    assert len(run.blocks[0].turns) == 4 * THREE.windows, "a quiet time was waited for"
    summary = summarise(run)
    (verdict,) = summary.verdicts
    assert (verdict.screening.dropped, verdict.disturbed) == ({0}, False)
    assert [(row.ranked, row.blocks) for row in summary.cells] == [(True, 3), (True, 3)]


def test_a_training_block_without_quiet_rounds_is_replaced_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    haunt(monkeypatch, 2)
    run = carry_out(begin(tmp_path, [STEADY], preset=THREE), [STEADY], preset=THREE)
    assert [(job.spec.block, job.spec.epochs) for job in run.jobs] == [(0, 0.0), (1, 0.0), (2, 1.0), (3, 0.0)]
    assert summarise(run).cells[0].blocks == 3


def test_blocks_that_are_never_quiet_are_replaced_as_often_as_a_row_needs_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    haunt(monkeypatch, *range(99))
    run = carry_out(begin(tmp_path, [STEADY], preset=THREE, budget_s=900), [STEADY], preset=THREE)
    assert [block.replaces for block in run.blocks] == [False] * 2 + [True] * 3 + [False]
    assert summarise(run).cells[0].disturbed


def test_no_block_is_replaced_that_would_cost_a_block_that_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    haunt(monkeypatch, 0, 1)
    monkeypatch.setattr("bench.run.budget.Budget.left_s", 3.0)
    monkeypatch.setattr("bench.run.budget.Budget.block_s", lambda *_: 2.0)
    run = carry_out(begin(tmp_path, [STEADY], preset=THREE), [STEADY], preset=THREE)
    assert [block.replaces for block in run.blocks[:3]] == [False, False, False]


def test_a_resumed_run_goes_on_replacing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    haunt(monkeypatch, 0, 1)
    run = begin(tmp_path, [STEADY, QUICK], preset=THREE)
    monkeypatch.setattr("bench.run.setup.find_preset", lambda _: THREE)
    with pytest.raises(KeyboardInterrupt):
        carry_out(run, [STEADY, QUICK], preset=THREE, display=Interrupting(6))
    assert [block.replaces for block in read_run(run.folder).blocks] == [False, False]
    again = prepare.resumed_run(run.folder, available([STEADY, QUICK]))
    finished = carry_out(again, [STEADY, QUICK], preset=THREE)
    assert [block.replaces for block in finished.blocks] == [False, False, True, True, False]


def test_every_job_of_a_run_has_the_lead_that_was_asked_for(tmp_path: Path) -> None:
    run = begin(tmp_path, [STEADY])
    run = msgspec.structs.replace(run, header=msgspec.structs.replace(run.header, lead_s=0.12))
    jobs = carry_out(run, [STEADY]).jobs
    assert [job.spec.lead_s for job in jobs] == [0.12, 0.12]
    for job in jobs:
        assert job.lead_s == pytest.approx(0.12 * len(job.windows), rel=0.1)


def test_a_block_in_which_a_job_did_not_settle_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settled(logs: Sequence[float], *_: Any, latest: int) -> bool:
        return abs(fmean(logs[-5:]) - fmean(logs[-latest:][:5])) < 0.4  # the drifter's fall by six tenths

    monkeypatch.setattr("bench.measuring.block.settled", settled)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    infos = (STEADY, fakes.info("drifter", "fakes:DriftsOnce"))
    preset = msgspec.structs.replace(TINY, windows=15)
    run = carry_out(begin(tmp_path, infos, preset=preset), infos, preset=preset)
    drifter = [job.status for job in run.jobs if job.spec.cell.backend == "drifter"]
    assert drifter.count("no_steady_state") == 1
    assert drifter.count("ok") == TINY.min_blocks
    assert len(run.jobs) == 2 * (TINY.min_blocks + 1), "and no block more"
