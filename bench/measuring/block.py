"""A block: every job in a process of its own, all alive side by side, training a window each in turn.

Processes that ran one after another would meet the machine in different moods; on a shared one these differ
by more than most frameworks do. A turn lasts a twentieth of a second, so a mood meets every side of a round,
and what rounds tell of two jobs is compared round by round.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import inf, log
from pathlib import Path

import msgspec

from bench.analysis.disturbance import FEWEST_QUIET, in_quiet_rounds, is_quiet
from bench.analysis.steady_state import settled
from bench.machine.conditions import Conditions
from bench.machine.monitor import Watch
from bench.measuring.design import balanced_order, windows_asked
from bench.measuring.process import Outcome, Worker
from bench.records.schema import Window
from bench.worker.protocol import Begin, Built, Event, Finish, MeasureTask, Ready, Timed, Turn
from bench.workloads.schedule import whole_calls
from bench.workloads.specs import Cell

PAUSE_S = 0.5
"""After a disturbed round, once those that were asked for are taken: such spells pass. Not before, since a
quiet spell may be as short as a wait."""


class BlockJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job of a block and the interpreter that it runs in."""

    task: MeasureTask
    python: Path
    window_steps: int | None = None
    """Of a cell that was measured before: the steps of its windows then."""
    compiled: Path | None = None
    """Where programs are kept that jobs of this cell have compiled; None where it is to compile anew."""


class BlockOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How the jobs of a block ended, in their order, and what the machine did meanwhile."""

    outcomes: tuple[Outcome, ...]
    rounds: int
    conditions: Conditions


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

    All are asked for as many windows as the first; where calls last longer than a window, for `windows_asked`
    of them. `on_event` and `on_end` get the place of a job in `jobs`; `on_end` also how many windows it was
    asked for.
    For `patience_s` from the first round on, others are taken for rounds that the hypervisor disturbed. After
    `enough`, a time of the monotonic clock as `deadline` is, no more rounds are taken than were asked for,
    whatever they were like; at `deadline` whatever still runs is ended.
    With `together` two are built at a time, which is quicker and leaves the times of starting worth nothing;
    they warm up alone all the same.
    KeyboardInterrupt leaves no process running.
    """
    with ExitStack() as stack:

        def start(place: int) -> Worker:
            job = jobs[place]
            spec = job.task.spec
            worker = Worker(
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

        workers: list[Worker] = []
        ready: list[Ready | None] = []
        at_once = 2 if together else 1
        while len(workers) < len(jobs):
            begun = [start(place) for place in range(len(workers), len(jobs))[:at_once]]
            for worker in begun:
                worker.wait_for(Built)
            for worker in begun:
                worker.ask(Begin())
                ready.append(worker.wait_for(Ready))
            workers += begun
        steps = window_steps(jobs, ready)
        windows = windows_asked(jobs[0].task.spec.windows, _stretches(jobs, ready), fewest)
        watch = Watch([worker.pid for worker in workers], gpu=jobs[0].task.spec.cell.device == "gpu")
        rounds, conditions, logs = _take_turns(
            workers, steps, watch, windows, patience_s=patience_s, enough=enough
        )
        outcomes = []
        for place, worker in enumerate(workers):
            worker.ask(Finish())
            outcome = _with_steal(worker.finish(), conditions.round_steal)
            if outcome.status == "ok" and rounds and not _settled(place, logs, windows):
                outcome = msgspec.structs.replace(
                    outcome,
                    status="no_steady_state",
                    error=f"the rate still drifts after {rounds} windows",
                )
            outcomes.append(outcome)
            on_end(place, outcome, windows)
    return BlockOutcome(outcomes=tuple(outcomes), rounds=rounds, conditions=conditions)


def window_steps(jobs: Sequence[BlockJob], ready: Sequence[Ready | None]) -> list[int]:
    """Return the steps of each job's windows, given what it said when it was warm, or None.

    All windows of a cell have as many steps, in every process and every block. A call costs something beside
    its steps, and the first of them is unlike the rest, so windows of different lengths have different rates.
    A mode whose calls train several steps gets whole calls, however long they take: its leftovers are trained
    by another program.
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
    """Return how much longer than meant a window of each job that is warm takes, as it holds a whole call."""
    calls = _quickest_calls(jobs, ready)
    return [
        max(1.0, said.step_s * said.call_steps / job.task.spec.window_s)
        for job in jobs
        if (said := calls.get(job.task.spec.cell)) is not None
    ]


def _quickest_calls(jobs: Sequence[BlockJob], ready: Sequence[Ready | None]) -> dict[Cell, Ready]:
    """Return of each cell what the quickest of its jobs said when it was warm, of those that said it."""
    found: dict[Cell, Ready] = {}
    for job, said in zip(jobs, ready, strict=True):
        cell = job.task.spec.cell
        if said is not None and (cell not in found or said.step_s < found[cell].step_s):
            found[cell] = said
    return found


def _take_turns(
    workers: Sequence[Worker],
    steps: Sequence[int],
    watch: Watch,
    windows: int,
    *,
    patience_s: float,
    enough: float,
) -> tuple[int, Conditions, list[list[float]]]:
    """Let the workers take turns until all rates have settled, or twice the windows asked for are taken.

    Rounds that the hypervisor disturbed come on top, up to four times the windows asked for in all. Returns
    the rounds, the conditions and every worker's ln(samples/s) in the rounds that count.
    """
    most = round(windows / FEWEST_QUIET)
    taken: list[list[Window]] = [[] for _ in workers]
    logs: list[list[float]] = []
    rounds = quiet = 0
    patient_until = time.monotonic() + patience_s
    while windows and rounds < most and any(not worker.over for worker in workers):
        watch.round()
        before = [len(of_one) for of_one in taken]
        for place in balanced_order(len(workers), rounds):
            if (window := _turn(workers[place], steps[place])) is not None:
                taken[place].append(window)
        rounds += 1
        steal = watch.round_over()
        for of_one, count in zip(taken, before, strict=True):
            of_one[count:] = [msgspec.structs.replace(window, round_steal=steal) for window in of_one[count:]]
        logs = [_logs(in_quiet_rounds(of_one)) for of_one in taken]
        quiet += is_quiet(steal)
        going = [place for place, worker in enumerate(workers) if not worker.over]
        if quiet >= 2 * windows or (
            quiet >= windows and all(_settled(place, logs, windows) for place in going)
        ):
            break
        now = time.monotonic()
        if rounds >= windows and (now > enough or (quiet < windows and now > patient_until)):
            break
        if rounds >= windows and not is_quiet(steal):
            time.sleep(PAUSE_S)
    return rounds, watch.finish([worker.pid for worker in workers]), logs


def _turn(worker: Worker, steps: int) -> Window | None:
    """Let a worker train one window; None where it is over."""
    if worker.over:
        return None
    worker.ask(Turn(steps=steps))
    event = worker.wait_for(Timed)
    return None if event is None else event.window


def _logs(windows: Sequence[Window]) -> list[float]:
    return [log(window.samples / window.seconds) for window in windows]


def _settled(place: int, logs: Sequence[Sequence[float]], windows: int) -> bool:
    """Say whether a job's latest windows are level, by themselves or beside those of another job."""
    others = [of_other for other, of_other in enumerate(logs) if other != place]
    return settled(logs[place], others, latest=windows)


def _with_steal(outcome: Outcome, round_steal: Sequence[float | None]) -> Outcome:
    """Return an outcome whose windows know what their rounds were like; window k is of round k."""
    rounds = iter(round_steal)
    events = tuple(
        msgspec.structs.replace(
            event, window=msgspec.structs.replace(event.window, round_steal=next(rounds, None))
        )
        if isinstance(event, Timed)
        else event
        for event in outcome.events
    )
    return msgspec.structs.replace(outcome, events=events)
