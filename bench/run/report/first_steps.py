"""The part of the report on the losses of the first training steps."""

from collections.abc import Sequence

from bench.analysis.first_steps import WorkloadFirstSteps, digits
from bench.report.blocks import Block, Picture, number_table, section
from bench.report.format import NOTHING

_HEADS = ("workload", "rows", "first step", "steps", "last step", "reference disturbed by rounding")


def blocks(found: Sequence[WorkloadFirstSteps]) -> list[Block]:
    """Return a section with a picture and a table; nothing if no losses were compared."""
    if not found:
        return []
    return section(
        "The first steps",
        "From equal weights, each job trains the program that it times and compares the loss of each step "
        "with a reference in float64, at the batch size and the rate of the workload. The figures are "
        "relative errors, the largest over the rows of a workload that have parity, and the decimal digits "
        "to which the losses agree. A rounding error grows from step to step, in the reference too. So the "
        "last column shows, for the last step, a reference that is disturbed in every step as rounding "
        "disturbs it. If a framework's losses agree as long as those of this reference, rounding alone "
        "explains their errors. After that, trainings differ by chance.",
        Picture(
            name="first_steps",
            caption="Relative error of the loss by step, by workload. Grey: the disturbed reference",
        ),
        number_table(_HEADS, map(_row, found)),
        level=3,
    )


def sentence(one: WorkloadFirstSteps) -> str:
    """Say to how many digits the losses of a workload agree with the reference."""
    first = f"the losses agree to {_digits(one.error(1))} at the first step"
    if one.steps == 1:
        return (
            f"{first}, the only one compared; a reference disturbed by rounding alone agrees to "
            f"{_digits(one.rounding(1))}"
        )
    return (
        f"{first} and to {_digits(one.error(one.steps))} at step {one.steps}; a reference disturbed by "
        f"rounding alone agrees to {_digits(one.rounding(one.steps))} there"
    )


def place(one: WorkloadFirstSteps) -> str:
    return f"{one.workload} ({one.device} {one.precision})"


def _row(one: WorkloadFirstSteps) -> tuple[str, ...]:
    return (
        place(one),
        str(len(one.cells)),
        _error_text(one.error(1)),
        str(one.steps),
        _error_text(one.error(one.steps)) if one.steps > 1 else NOTHING,
        _error_text(one.rounding(one.steps)),
    )


def _error_text(error: float) -> str:
    return f"{error:.1e} ({_digits(error)})"


def _digits(error: float) -> str:
    count = digits(error)
    return f"{count} digit{'' if count == 1 else 's'}"
