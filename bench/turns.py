"""A block: every job in a process of its own, all alive side by side, training a window each in turn.

Processes that ran one after another would meet the machine in different moods; on a shared one these differ
by more than most frameworks do. A turn lasts a tenth of a second, so a mood meets every side of a round, and
what rounds tell of two jobs is compared round by round.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import inf, log
from pathlib import Path

import msgspec

from bench.conditions import Watch
from bench.launch import Outcome, Worker
from bench.plan import balanced_order
from bench.protocol import AnyEvent, Finish, MeasureTask, Ready, Timed, Turn
from bench.records import Conditions
from bench.statistics import settled


class BlockJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job of a block and the interpreter that it runs in."""

    task: MeasureTask
    python: Path


class BlockOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How the jobs of a block ended, in their order, and what the machine did meanwhile."""

    outcomes: tuple[Outcome, ...]
    rounds: int
    conditions: Conditions


def run_block(
    jobs: Sequence[BlockJob],
    *,
    on_event: Callable[[int, AnyEvent], None] = lambda _place, _event: None,
    on_end: Callable[[int, Outcome], None] = lambda _place, _outcome: None,
    together: bool = False,
    deadline: float = inf,
) -> BlockOutcome:
    """Run the jobs: start and warm up one after another, take turns, then let each end alone.

    All are asked for as many windows as the first. `on_event` and `on_end` get the place of a job in `jobs`.
    At `deadline`, a time of the monotonic clock, whatever still runs is ended.
    With `together` two start at a time, which is quicker and leaves the times of starting worth nothing.
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
                deadline=deadline,
            )
            return stack.enter_context(worker)

        workers: list[Worker] = []
        at_once = 2 if together else 1
        while len(workers) < len(jobs):
            begun = [start(place) for place in range(len(workers), len(jobs))[:at_once]]
            for worker in begun:
                worker.wait_for(Ready)
            workers += begun
        rounds, conditions, logs = _take_turns(workers, jobs[0].task)
        outcomes = []
        for place, worker in enumerate(workers):
            worker.ask(Finish())
            outcome = worker.finish()
            if outcome.status == "ok" and rounds and not _settled(place, logs, jobs[0].task.spec.windows):
                outcome = msgspec.structs.replace(
                    outcome,
                    status="no_steady_state",
                    error=f"the rate still drifts after {rounds} windows",
                )
            outcomes.append(outcome)
            on_end(place, outcome)
    return BlockOutcome(outcomes=tuple(outcomes), rounds=rounds, conditions=conditions)


def _take_turns(workers: Sequence[Worker], task: MeasureTask) -> tuple[int, Conditions, list[list[float]]]:
    """Let the workers take turns until all rates have settled, or twice the windows asked for are taken.

    Returns the rounds, the conditions and every worker's ln(samples/s) from the first round on.
    """
    pids = [worker.pid for worker in workers]
    windows = task.spec.windows
    logs: list[list[float]] = [[] for _ in workers]
    rounds = 0
    watch = Watch(pids, gpu=task.spec.cell.device == "gpu")
    while any(not worker.over for worker in workers):
        going = [place for place, worker in enumerate(workers) if not worker.over]
        if rounds >= 2 * windows:
            break
        if rounds >= windows and all(_settled(place, logs, windows) for place in going):
            break
        watch.round()
        for place in balanced_order(len(workers), rounds):
            if (window := _turn(workers[place])) is not None:
                logs[place].append(window)
        rounds += 1
    return rounds, watch.finish(pids), logs


def _turn(worker: Worker) -> float | None:
    """Let a worker train one window and return ln(samples/s); None where it is over."""
    if worker.over:
        return None
    worker.ask(Turn())
    event = worker.wait_for(Timed)
    return None if event is None else log(event.window.samples / event.window.seconds)


def _settled(place: int, logs: Sequence[Sequence[float]], windows: int) -> bool:
    """Say whether a job's latest windows are level, by themselves or beside those of another job."""
    others = [of_other for other, of_other in enumerate(logs) if other != place]
    return settled(logs[place], others, latest=windows)
