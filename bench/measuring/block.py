"""A block: every job in a process of its own, all alive side by side, training a window each in turn.

The speed of a shared machine changes from minute to minute, often by more than frameworks differ. Processes
that run one after another would meet different speeds. A turn lasts a fifth of a second, so all jobs of a
round meet the same, and two jobs are compared round by round.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from math import inf, log
from pathlib import Path

import msgspec

from bench.analysis.disturbance import FEWEST_QUIET, in_quiet_rounds, is_quiet
from bench.analysis.steady_state import settled
from bench.machine.conditions import Conditions, Taken
from bench.machine.monitor import Stretch, Watch
from bench.measuring.design import balanced_order, windows_asked
from bench.measuring.process import AnyWorker, Outcome, Worker
from bench.measuring.ranks.group import Group
from bench.measuring.ranks.slots import Slot
from bench.paths import to_text
from bench.records.schema import Window
from bench.worker.protocol import (
    Begin,
    Built,
    Event,
    Finish,
    MeasureTask,
    Ready,
    Timed,
    Turn,
    WarmedUp,
    WarmUp,
)
from bench.workloads.schedule import whole_calls
from bench.workloads.specs import Cell

PAUSE_S = 0.5
"""Pause after a disturbed round, once all rounds that were asked for are taken: disturbances pass. There is
no pause before, as a quiet time may be as short as the pause."""


MOST_WARMUPS = 10
"""How often a job warms up at most until nothing else disturbs it, if the steps of its windows are not chosen
yet. A program that takes a core can make a step five times as long, and the windows of all blocks would have
a fifth of the steps."""


class BlockJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job of a block and the interpreter that it runs in."""

    task: MeasureTask
    python: Path
    slots: tuple[Slot, ...] = ()
    """Where each of its ranks runs; empty in a run without ranks."""
    window_steps: int | None = None
    """The steps of this cell's windows in an earlier block; None if it was not measured before."""
    compiled: Path | None = None
    """Folder of the programs that jobs of this cell have compiled; None: compile everything anew."""
    trace: Callable[[int], Path | None] = lambda _call_steps: None
    """Returns the reference trace for calls of so many steps, or None if nothing can be compared."""
    repeated: bool = False
    """Whether many steps of its program are compared with their repetition."""


class BlockOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How the jobs of a block ended, in their order, and what else the machine did meanwhile."""

    outcomes: tuple[Outcome, ...]
    rounds: int
    conditions: Conditions
    in_turns: bool = True
    """Whether the jobs took turns. If not, each was alone, and its rounds are its own."""
    turns: tuple[tuple[int, ...], ...] = ()
    """The places of the jobs that trained a window in each round, in the order of their turns."""


def run_block(
    jobs: Sequence[BlockJob],
    *,
    on_event: Callable[[int, Event], None] = lambda _place, _event: None,
    on_end: Callable[[int, Outcome, int], None] = lambda _place, _outcome, _windows: None,
    together: bool = False,
    fewest: float = 1.0,
    patience_s: float = inf,
    enough: float = inf,
    deadline: float = inf,
) -> BlockOutcome:
    """Run the jobs: start and warm up one after another, take turns, then let each end alone.

    All jobs are asked for the same number of windows: that of the first job's spec, or fewer where calls last
    longer than a window (`windows_asked`, which `fewest` is passed to). `on_event` and `on_end` get the place
    of a job in `jobs`; `on_end` also gets the number of windows it was asked for.
    For `patience_s` from the first round on, rounds that others disturbed are repeated. After
    `enough`, no more rounds are taken than were asked for, disturbed or not. At `deadline`, whatever still
    runs is ended. Both are times of the monotonic clock.
    With `together` two jobs are built at a time, which is quicker, and makes the times of starting useless.
    Each still warms up alone.
    KeyboardInterrupt leaves no process running.
    """
    with ExitStack() as stack:

        def start(place: int) -> AnyWorker:
            job = jobs[place]
            spec = job.task.spec
            begin: Callable[..., AnyWorker] = partial(Group, slots=job.slots) if job.slots else Worker
            worker = begin(
                job.task,
                python=job.python,
                device=spec.cell.device,
                time_limit_s=spec.time_limit_s,
                on_event=lambda event: on_event(place, event),
                hash_seed=spec.hash_seed,
                compiled=job.compiled,
                deadline=deadline,
            )
            return stack.enter_context(worker)

        workers, ready = _warm_up(start, jobs, at_once=2 if together else 1)
        first = jobs[0].task.spec
        windows = windows_asked(first.windows, _stretches(jobs, ready), fewest)
        rounds = _Rounds(workers, window_steps(jobs, ready), windows, gpu=first.cell.device == "gpu")
        rounds.take(patience_s=patience_s, enough=enough)
        conditions = rounds.conditions()
        outcomes = []
        for place, worker in enumerate(workers):
            outcomes.append(_finish(worker, place, rounds, conditions))
            on_end(place, outcomes[-1], windows)
    return BlockOutcome(
        outcomes=tuple(outcomes), rounds=rounds.count, turns=tuple(rounds.turns), conditions=conditions
    )


def _warm_up(
    start: Callable[[int], AnyWorker], jobs: Sequence[BlockJob], *, at_once: int
) -> tuple[list[AnyWorker], list[Ready | None]]:
    """Start and build the workers, so many at once, and warm each up alone.

    Returns the workers, and the report of each when it was warm: None for one that ended before.
    """
    workers: list[AnyWorker] = []
    ready: list[Ready | None] = []
    while len(workers) < len(jobs):
        begun = [start(place) for place in range(len(workers), len(jobs))[:at_once]]
        built = [worker.wait_for(Built) for worker in begun]
        for job, worker, event in zip(jobs[len(workers) :], begun, built, strict=False):
            # The reference trains while no job does: it would disturb their warm-up.
            trace = None if event is None else job.trace(event.call_steps)
            worker.ask(Begin(proof=None if trace is None else to_text(trace), repeated=job.repeated))
            pids = _pids([*workers, *begun])
            ready.append(_warm(worker, pids, warmups=MOST_WARMUPS if job.window_steps is None else 1))
        workers += begun
    return workers, ready


def _warm(worker: AnyWorker, own_pids: Sequence[int], *, warmups: int) -> Ready | None:
    """Wait until a worker is warm; while others disturb that, let it warm up again, `warmups` times in all.

    The first step and the proof come before, so the stretch that is judged begins with the second window of
    the warm-up. Returns the last report; None if the worker has ended.
    """
    while worker.wait_for(WarmedUp) is not None:
        stretch = Stretch(own_pids)
        said: Ready | None = worker.wait_for(Ready)
        warmups -= 1
        if said is None or not said.again or warmups < 1 or is_quiet(stretch.taken()):
            return said
        time.sleep(PAUSE_S)
        worker.ask(WarmUp())
    return None


def _finish(worker: AnyWorker, place: int, rounds: "_Rounds", conditions: Conditions) -> Outcome:
    """Let a worker end, and return its outcome: without steady state if its rate has not settled."""
    worker.ask(Finish())
    outcome = _with_rounds(worker.finish(), conditions.taken)
    if outcome.status == "ok" and rounds.count and not rounds.settled(place):
        error = f"the rate still drifts after {rounds.count} windows"
        return msgspec.structs.replace(outcome, status="no_steady_state", error=error)
    return outcome


def window_steps(jobs: Sequence[BlockJob], ready: Sequence[Ready | None]) -> list[int]:
    """Return the steps of each job's windows. `ready` is what each job reported when it was warm, or None.

    All windows of a cell have the same number of steps, in every process and every block. A call has a cost
    of its own, and its first step differs from the rest, so windows of different lengths have different
    rates. A mode that trains several steps a call gets whole calls, however long they take, because it
    trains leftover steps with another program.
    """
    known = {job.task.spec.cell: job.window_steps for job in jobs if job.window_steps is not None}
    calls = _quickest_calls(jobs, ready)
    found = []
    for spec in (job.task.spec for job in jobs):
        said = calls.get(spec.cell)
        own = 1 if said is None else whole_calls(spec.window_s / said.step_s, said.call_steps)
        found.append(known.get(spec.cell) or own)
    return found


def _stretches(jobs: Sequence[BlockJob], ready: Sequence[Ready | None]) -> list[float]:
    """Return how many times as long as `window_s` the windows of each warm job are: they hold whole calls."""
    calls = _quickest_calls(jobs, ready)
    return [
        max(1.0, said.step_s * said.call_steps / job.task.spec.window_s)
        for job in jobs
        if (said := calls.get(job.task.spec.cell)) is not None
    ]


def _quickest_calls(jobs: Sequence[BlockJob], ready: Sequence[Ready | None]) -> dict[Cell, Ready]:
    """Return, for each cell, what the quickest of its warm jobs reported."""
    found: dict[Cell, Ready] = {}
    for job, said in zip(jobs, ready, strict=True):
        cell = job.task.spec.cell
        if said is not None and (cell not in found or said.step_s < found[cell].step_s):
            found[cell] = said
    return found


class _Rounds:
    """The rounds of a block. In each, every worker that still runs trains one window, in a balanced order."""

    def __init__(
        self, workers: Sequence[AnyWorker], steps: Sequence[int], windows: int, *, gpu: bool
    ) -> None:
        """Take the steps of each worker's windows, and the number of windows that each is asked for."""
        self._workers, self._steps, self._windows = workers, steps, windows
        self._watch = Watch(_pids(workers), gpu=gpu)
        self._taken: list[list[Window]] = [[] for _ in workers]
        self._logs: list[list[float]] = []
        self._quiet = 0
        self.turns: list[tuple[int, ...]] = []

    @property
    def count(self) -> int:
        return len(self.turns)

    def take(self, *, patience_s: float, enough: float) -> None:
        """Take the rounds that were asked for, and further ones while rates drift or rounds are disturbed.

        In all at most twice as many quiet rounds as were asked for, and at most four times as many rounds.
        """
        patient_until = time.monotonic() + patience_s
        most = round(self._windows / FEWEST_QUIET)
        while self._windows and self.count < most and any(not worker.over for worker in self._workers):
            quiet = self._take_one()
            if self._quiet >= 2 * self._windows or (self._quiet >= self._windows and self._all_settled()):
                break
            if self.count < self._windows:
                continue
            now = time.monotonic()
            if now > enough or (self._quiet < self._windows and now > patient_until):
                break
            if not quiet:
                time.sleep(PAUSE_S)

    def settled(self, place: int) -> bool:
        """Whether a job's latest windows are level, by themselves or beside those of another job."""
        others = [log_rates for other, log_rates in enumerate(self._logs) if other != place]
        return settled(self._logs[place], others, latest=self._windows)

    def conditions(self) -> Conditions:
        """Return what the machine did during the rounds; called once, after the last of them."""
        return self._watch.finish(_pids(self._workers))

    def _take_one(self) -> bool:
        """Take a round, and return whether it was quiet."""
        self._watch.round()
        before = [len(windows) for windows in self._taken]
        order = balanced_order(len(self._workers), self.count)
        trained = []
        for place in order:
            if (window := _turn(self._workers[place], self._steps[place])) is not None:
                self._taken[place].append(window)
                trained.append(place)
        self.turns.append(tuple(trained))
        taken = self._watch.round_over()
        for windows, count in zip(self._taken, before, strict=True):
            windows[count:] = [_in_round(window, taken) for window in windows[count:]]
        self._logs = [_logs(in_quiet_rounds(windows)) for windows in self._taken]
        self._quiet += is_quiet(taken)
        return is_quiet(taken)

    def _all_settled(self) -> bool:
        return all(self.settled(place) for place, worker in enumerate(self._workers) if not worker.over)


def _turn(worker: AnyWorker, steps: int) -> Window | None:
    """Let a worker train one window, and return it; None if the worker has ended."""
    if worker.over:
        return None
    worker.ask(Turn(steps=steps))
    event = worker.wait_for(Timed)
    return None if event is None else event.window


def _pids(workers: Sequence[AnyWorker]) -> list[int]:
    return [pid for worker in workers for pid in worker.pids]


def _logs(windows: Sequence[Window]) -> list[float]:
    return [log(window.samples / window.seconds) for window in windows]


def _in_round(window: Window, taken: Taken) -> Window:
    return msgspec.structs.replace(window, round_steal=taken.steal, round_foreign=taken.foreign)


def _with_rounds(outcome: Outcome, taken: Sequence[Taken]) -> Outcome:
    """Return the outcome with what others took set in its windows; window k comes from round k."""
    rounds = iter(taken)
    unknown = Taken(steal=None, foreign=None)
    events = tuple(
        msgspec.structs.replace(event, window=_in_round(event.window, next(rounds, unknown)))
        if isinstance(event, Timed)
        else event
        for event in outcome.events
    )
    return msgspec.structs.replace(outcome, events=events)
