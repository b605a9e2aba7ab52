"""When a network that learns is evaluated, and how many steps are timed together."""

FINE_EPOCHS = (*(tenth / 10 for tenth in range(11)), *(1 + quarter / 4 for quarter in range(1, 13)))
"""Learning is quickest at the beginning, and the time to a target must not depend on how seldom it is looked
for: so every tenth of the first epoch, every quarter up to the fourth, and every epoch after that."""


def whole_calls(steps: float, call_steps: int) -> int:
    """Return about so many steps, in calls of `call_steps` each; one call at least."""
    return call_steps * max(1, round(steps / call_steps))


def evaluation_steps(last: int, steps_per_epoch: int) -> list[int]:
    """Return the steps after which a training of `last` steps is evaluated, 0 and `last` among them."""
    epochs = (*FINE_EPOCHS, *range(5, last // steps_per_epoch + 1))
    planned = {round(epoch * steps_per_epoch) for epoch in epochs}
    return sorted({step for step in planned if step < last} | {0, last})
