"""A block: jobs side by side, a window each in turn; with played workers, where no process is the point."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import fakes
import msgspec
import psutil
import pytest
from played import QuietStretch, play

from backends.info import BackendInfo
from bench.analysis.disturbance import find_flags, in_quiet_rounds, is_quiet
from bench.machine import monitor
from bench.machine.conditions import Taken
from bench.machine.monitor import CpuTimes, Watch
from bench.measuring import block
from bench.measuring.block import BlockJob, BlockOutcome, run_block, window_steps
from bench.measuring.design import balanced_order
from bench.measuring.process import Outcome
from bench.worker.protocol import Evaluated, Event, FirstStep, Ready, Started, Timed, WarmedUp

pytestmark = pytest.mark.measures

Heard = list[tuple[int, Event]]


@pytest.fixture(autouse=True)
def _played(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real_processes" not in request.fixturenames:
        play(monkeypatch)


@pytest.fixture
def real_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start real workers, which find the fakes."""
    monkeypatch.setenv("PYTHONPATH", fakes.python_path())


def jobs_of(infos: Sequence[BackendInfo], *, windows: int = 5, epochs: float = 0.0) -> list[BlockJob]:
    return [
        BlockJob(task=fakes.task_for(info, windows=windows, epochs=epochs), python=Path(sys.executable))
        for info in infos
    ]


def changed(job: BlockJob, *, slowdown: float | None = None, **changes: float) -> BlockJob:
    """Return the job with a slowdown and other figures in its spec."""
    spec = msgspec.structs.replace(job.task.spec, **changes)
    return msgspec.structs.replace(job, task=msgspec.structs.replace(job.task, slowdown=slowdown, spec=spec))


def run(infos: Sequence[BackendInfo], **changes: float) -> tuple[BlockOutcome, Heard]:
    heard: Heard = []
    outcome = run_block(
        jobs_of(infos, **changes),  # type: ignore[arg-type]
        on_event=lambda place, event: heard.append((place, event)),
    )
    return outcome, heard


class Moody(Watch):
    """Says that others disturbed the first rounds: other machines, or other programs, by turns."""

    disturbed = 3
    LOUD = (Taken(steal=0.4, foreign=0.01), Taken(steal=0.01, foreign=0.4))
    QUIET = Taken(steal=0.01, foreign=0.01)

    def round_over(self) -> Taken:
        number = len(self._taken)
        self._taken.append(self.LOUD[number % 2] if number < self.disturbed else self.QUIET)
        return self._taken[-1]


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing disturb a round, whatever happens."""
    monkeypatch.setattr(block, "Watch", Moody)
    monkeypatch.setattr(Moody, "disturbed", 0)


def windows_of(outcome: Outcome) -> int:
    return sum(isinstance(event, Timed) for event in outcome.events)


def test_jobs_start_one_after_another_and_then_take_turns(calm: None) -> None:
    outcome, heard = run([fakes.STEADY, fakes.QUICK, fakes.info("third", "fakes:Steady")])
    assert {one.status for one in outcome.outcomes} == {"ok"}
    started = [place for place, event in heard if isinstance(event, Started | Ready)]
    assert started == [0, 0, 1, 1, 2, 2]
    turns = [place for place, event in heard if isinstance(event, Timed)]
    expected = [tuple(balanced_order(3, number)) for number in range(outcome.rounds)]
    assert turns == [place for order in expected for place in order]
    assert outcome.turns == tuple(expected)
    assert [windows_of(one) for one in outcome.outcomes] == [outcome.rounds] * 3
    assert len(outcome.conditions.canary_s) == outcome.rounds + 1


def test_each_ends_alone_when_all_turns_are_over() -> None:
    _, heard = run([fakes.STEADY, fakes.QUICK], epochs=1.0)
    last_turn = max(number for number, (_, event) in enumerate(heard) if isinstance(event, Timed))
    learned = [place for place, event in heard[last_turn:] if isinstance(event, Evaluated)]
    assert learned == sorted(learned)
    assert set(learned) == {0, 1}


@pytest.mark.parametrize(("target", "status"), [("NotHere", "unavailable"), ("Raises", "failed")])
def test_a_job_that_fails_leaves_the_others_their_turns(target: str, status: str, calm: None) -> None:
    outcome, _ = run([fakes.info("bad", f"fakes:{target}"), fakes.STEADY])
    bad, good = outcome.outcomes
    assert bad.status == status
    assert good.status == "ok"
    assert windows_of(good) == outcome.rounds >= 5


def test_a_job_that_drifts_is_named_and_gets_twice_the_rounds(calm: None) -> None:
    outcome, _ = run([fakes.info("drifter", "fakes:Drifts"), fakes.STEADY], windows=15)
    drifter, steady = outcome.outcomes
    assert (drifter.status, steady.status) == ("no_steady_state", "ok")
    assert drifter.error == "the rate still drifts after 30 windows"
    assert outcome.rounds == 30


def test_jobs_that_hang_or_crash_end_and_leave_the_others_their_turns(
    real_processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block, "settled", lambda *_, **__: True)
    bad = [fakes.info("hangs", "fakes:HangsInTraining"), fakes.info("exits", "fakes:ExitsInTraining")]
    hangs, exits, steady = jobs_of([*bad, fakes.STEADY])
    outcome = run_block([changed(hangs, time_limit_s=2.0), exits, steady])
    assert [one.status for one in outcome.outcomes] == ["timeout", "crashed", "ok"]
    assert outcome.outcomes[0].wall_s < 300, "it would hang for 600 s"
    assert windows_of(outcome.outcomes[2]) == outcome.rounds >= 5


def warm(*step_s: float, call_steps: int = 1) -> list[Ready | None]:
    return [Ready(step_s=seconds, call_steps=call_steps) for seconds in step_s]


def steps_of(outcome: Outcome) -> set[int]:
    return {event.window.steps for event in outcome.events if isinstance(event, Timed)}


def test_a_window_lasts_about_as_long_as_asked_and_is_a_step_at_least() -> None:
    jobs = jobs_of([fakes.STEADY, fakes.QUICK])
    assert window_steps(jobs, warm(0.004, 0.002)) == [10, 20]
    assert window_steps(jobs, warm(0.3, 0.0261)) == [1, 2]
    assert window_steps(jobs, [*warm(0.004), None]) == [10, 1], "the second died before it was warm"


def test_a_window_holds_whole_calls() -> None:
    jobs = jobs_of([fakes.STEADY, fakes.QUICK])
    assert window_steps(jobs, warm(0.004, 0.002, call_steps=4)) == [8, 20]
    assert window_steps(jobs, warm(0.3, 0.0009, call_steps=16)) == [16, 48]


def test_windows_of_one_cell_have_as_many_steps_in_every_process_and_block() -> None:
    jobs = jobs_of([fakes.STEADY, fakes.QUICK, fakes.STEADY])
    assert window_steps(jobs, warm(0.005, 0.002, 0.004)) == [10, 20, 10]
    later = [msgspec.structs.replace(job, window_steps=13) for job in jobs[:1]] + jobs[1:]
    assert window_steps(later, warm(0.005, 0.002, 0.004)) == [13, 20, 13]


def test_a_slowed_process_trains_windows_of_as_many_steps_as_the_others_of_its_cell() -> None:
    plain, slow = jobs_of([fakes.STEADY, fakes.STEADY])
    first, second = run_block([plain, changed(slow, slowdown=0.5)]).outcomes
    assert steps_of(first) == steps_of(second)
    assert len(steps_of(first)) == 1


def test_jobs_without_windows_only_learn() -> None:
    outcome, heard = run([fakes.STEADY], windows=0, epochs=0.5)
    assert outcome.rounds == 0
    assert outcome.outcomes[0].status == "ok"
    assert not any(isinstance(event, Timed) for _, event in heard)


def test_two_may_start_at_a_time() -> None:
    heard: Heard = []
    run_block(
        jobs_of([fakes.STEADY, fakes.QUICK]),
        on_event=lambda place, event: heard.append((place, event)),
        together=True,
    )
    assert sum(isinstance(event, FirstStep) for _, event in heard) == 2


def test_ctrl_c_leaves_nothing_running(real_processes: None) -> None:
    def interrupt(_place: int, event: Event) -> None:
        if isinstance(event, Timed):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_block(jobs_of([fakes.STEADY, fakes.QUICK]), on_event=interrupt)
    assert psutil.Process().children(recursive=True) == []


def test_a_job_is_slowed_by_the_share_that_is_asked() -> None:
    def rate(slowdown: float | None) -> float:
        (job,) = jobs_of([fakes.STEADY], windows=10)
        (outcome,) = run_block([changed(job, slowdown=slowdown)]).outcomes
        windows = [event.window for event in outcome.events if isinstance(event, Timed)]
        return max(window.samples / window.seconds for window in windows)

    assert rate(None) / rate(0.5) == pytest.approx(1.5, rel=0.01)


def test_a_disturbed_round_is_kept_marked_and_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "Watch", Moody)
    monkeypatch.setattr(block, "PAUSE_S", 0.01)
    outcome, _ = run([fakes.STEADY, fakes.QUICK])
    assert outcome.rounds >= 5 + Moody.disturbed
    for one in outcome.outcomes:
        windows = [event.window for event in one.events if isinstance(event, Timed)]
        loud = [(window.round_steal, window.round_foreign) for window in windows]
        assert loud == [Moody.LOUD[0], Moody.LOUD[1], Moody.LOUD[0]] + [Moody.QUIET] * (outcome.rounds - 3)
        assert one.status == "ok"


@pytest.mark.parametrize(("disturbed", "waits"), [(3, 0), (6, 2)])
def test_nothing_is_waited_for_before_a_round_that_was_asked_for(
    disturbed: int, waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(block, "Watch", Moody)
    monkeypatch.setattr(Moody, "disturbed", disturbed)
    monkeypatch.setattr(block, "time", SimpleNamespace(monotonic=time.monotonic, sleep=slept.append))
    run([fakes.STEADY])
    assert slept == [block.PAUSE_S] * waits, (
        "after the fifth round and the sixth alone, where those are disturbed"
    )


def test_a_machine_that_is_never_quiet_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "Watch", Moody)
    monkeypatch.setattr(Moody, "disturbed", 1000)
    monkeypatch.setattr(block, "PAUSE_S", 0.01)
    outcome, _ = run([fakes.STEADY])
    assert outcome.rounds == 20, "four times the five windows asked for"


class Burner:
    """Plays the counters of two CPUs: this run uses one, and in spells another program uses the other."""

    def __init__(self, spells: Sequence[tuple[float, float]]) -> None:
        """`spells` are seconds after now, by the played clock."""
        self._start = time.monotonic()
        self._spells = spells
        self.rounds: list[tuple[float, float]] = []
        """Begin and end of each round, in seconds after the start."""

    def read(self, _: object) -> monitor._Usage:
        now = time.monotonic() - self._start
        self.rounds.append((now, now))
        own = 100 * now
        busy = own + 100 * self.burnt(0.0, now)
        cpu = CpuTimes(busy=int(busy), steal=0, total=int(200 * now))
        return monitor._Usage(cpu=cpu, own_ticks=own)

    def burnt(self, begin: float, end: float) -> float:
        """Return for how many of these seconds it ran."""
        return sum(max(0.0, min(end, stop) - max(begin, start)) for start, stop in self._spells)


def test_rounds_in_which_another_program_ran_are_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program runs for a third of the time; a round of two windows lasts a tenth of a second."""
    spells = [(start, start + 0.5) for start in (0.7, 2.6, 3.4, 6.0, 8.1)]
    burner = Burner(spells)
    monkeypatch.setattr(monitor, "_read_usage", burner.read)
    monkeypatch.setattr(block, "settled", lambda *_, **__: True)
    outcome, _ = run([fakes.STEADY, fakes.QUICK], windows=40)
    readings = [at for at, _ in burner.rounds][1:-1]  # without those of the whole block
    burnt = [
        burner.burnt(begin, end) / (2 * (end - begin))
        for begin, end in zip(readings[::2], readings[1::2], strict=True)
    ]
    for one in outcome.outcomes:
        windows = [event.window for event in one.events if isinstance(event, Timed)]
        assert len(in_quiet_rounds(windows)) == 40 < len(windows) == len(burnt)
        loud = [not is_quiet(Taken(window.round_steal, window.round_foreign)) for window in windows]
        for share, left_out in zip(burnt, loud, strict=True):
            assert share < 0.33 or left_out, "all of the round, or most of it"
            assert share > 0.08 or not left_out
    assert find_flags(outcome.conditions, None) == ()


@pytest.mark.parametrize(
    ("loud", "steps", "warmups"),
    [(0, None, 1), (2, None, 3), (99, None, block.MOST_WARMUPS), (99, 7, 1)],
    ids=["quiet", "disturbed twice", "never quiet", "its windows have their steps"],
)
def test_a_warm_up_that_others_disturbed_is_made_up_for(
    loud: int, steps: int | None, warmups: int, calm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = iter([0.5] * loud + [0.0] * 9)

    class Spells(QuietStretch):
        def taken(self) -> Taken:
            return Taken(steal=0.0, foreign=next(shares))

    monkeypatch.setattr(block, "Stretch", Spells)
    heard: Heard = []
    (job,) = jobs_of([fakes.STEADY])
    outcome = run_block(
        [msgspec.structs.replace(job, window_steps=steps)],
        on_event=lambda place, event: heard.append((place, event)),
    )
    assert sum(isinstance(event, Ready) for _, event in heard) == warmups
    assert windows_of(outcome.outcomes[0]) == outcome.rounds == 5
    first_turn = next(number for number, (_, event) in enumerate(heard) if isinstance(event, Timed))
    assert not any(isinstance(event, Ready | WarmedUp) for _, event in heard[first_turn:])


def test_an_older_worker_is_not_asked_to_warm_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    events = iter([object(), Ready(step_s=0.1, call_steps=1)])
    worker = SimpleNamespace(wait_for=lambda _: next(events), ask=asked.append)
    monkeypatch.setattr(QuietStretch, "taken", lambda _: Taken(steal=0.0, foreign=0.5))
    assert block._warm(worker, [], warmups=9) == Ready(step_s=0.1, call_steps=1)  # type: ignore[arg-type]
    assert asked == []


def test_when_time_is_short_no_round_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "Watch", Moody)
    outcome = run_block(jobs_of([fakes.STEADY]), enough=0.0)
    assert outcome.rounds == 5


@pytest.mark.parametrize(("fewest", "asked"), [(1.0, 6), (0.5, 3)])
def test_where_a_step_lasts_longer_than_a_window_fewer_are_asked_for(
    fewest: float, asked: int, calm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block, "settled", lambda *_, **__: True)
    said: list[int] = []
    jobs = [
        changed(job, window_s=fakes.STEP_S / 10) for job in jobs_of([fakes.STEADY, fakes.QUICK], windows=6)
    ]
    outcome = run_block(jobs, fewest=fewest, on_end=lambda _place, _outcome, windows: said.append(windows))
    assert said == [asked, asked]
    assert outcome.rounds == asked


def test_patience_is_for_disturbed_rounds_and_not_for_a_job_that_drifts(
    calm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    drifting = jobs_of([fakes.info("drifter", "fakes:Drifts")], windows=15)
    assert run_block(drifting, patience_s=0.0).rounds == 30, "twice the windows asked for"
    monkeypatch.setattr(Moody, "disturbed", 1000)
    assert run_block(jobs_of([fakes.STEADY]), patience_s=0.0).rounds == 5
