"""After which steps a training run is evaluated, and how many steps are timed together."""

FINE_EPOCHS = (*(tenth / 10 for tenth in range(11)), *(1 + quarter / 4 for quarter in range(1, 13)))
"""Epochs of the early evaluations: every tenth of the first epoch, and every quarter up to the fourth.
Networks learn fastest at the beginning, and rare evaluations there would make the time to the target
imprecise."""


def whole_calls(steps: float, call_steps: int) -> int:
    """Return about `steps` steps that fill whole calls of `call_steps` each; one call at least."""
    return call_steps * max(1, round(steps / call_steps))


def evaluation_steps(last: int, steps_per_epoch: int) -> list[int]:
    """Return the steps after which a training run of `last` steps is evaluated, including 0 and `last`."""
    epochs = (*FINE_EPOCHS, *range(5, last // steps_per_epoch + 1))
    planned = {round(epoch * steps_per_epoch) for epoch in epochs}
    return sorted({step for step in planned if step < last} | {0, last})
