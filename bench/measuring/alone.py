"""A block on a GPU that admits one process at a time: each job runs alone, one after another.

A GPU in exclusive-process mode, which is usual on clusters, refuses a second process. So the jobs cannot take
turns. What they measure is less precise than in turns, and nothing in it can be compared round by round.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import inf

import msgspec

from bench.machine.conditions import joined
from bench.measuring.block import BlockJob, BlockOutcome, run_block
from bench.measuring.process import Outcome
from bench.worker.protocol import Event, Timed
from bench.workloads.specs import Cell


def run_alone(
    jobs: Sequence[BlockJob],
    *,
    on_event: Callable[[int, Event], None] = lambda _place, _event: None,
    on_end: Callable[[int, Outcome, int], None] = lambda _place, _outcome, _windows: None,
    fewest: float = 1.0,
    patience_s: float = inf,
    enough: float = inf,
    deadline: float = inf,
) -> BlockOutcome:
    """Run each job to its end before the next one starts; the options are those of `run_block`.

    Each job is asked for its own number of windows, and the patience is shared equally. `rounds` is the sum
    over the jobs, and the conditions are those of all of them in their order.
    """
    steps: dict[Cell, int] = {}
    parts = []
    for place, job in enumerate(jobs):
        cell = job.task.spec.cell
        part = run_block(
            [msgspec.structs.replace(job, window_steps=job.window_steps or steps.get(cell))],
            on_event=partial(_passed, on_event, place),
            on_end=partial(_ended, on_end, place),
            fewest=fewest,
            patience_s=patience_s / len(jobs),
            enough=enough,
            deadline=deadline,
        )
        for event in part.outcomes[0].events:  # all windows of a cell have the same number of steps
            if isinstance(event, Timed):
                steps.setdefault(cell, event.window.steps)
        parts.append(part)
    return BlockOutcome(
        outcomes=tuple(part.outcomes[0] for part in parts),
        rounds=sum(part.rounds for part in parts),
        conditions=joined([part.conditions for part in parts]),
        in_turns=False,
    )


def _passed(on_event: Callable[[int, Event], None], place: int, _alone: int, event: Event) -> None:
    on_event(place, event)


def _ended(
    on_end: Callable[[int, Outcome, int], None], place: int, _alone: int, outcome: Outcome, windows: int
) -> None:
    on_end(place, outcome, windows)
