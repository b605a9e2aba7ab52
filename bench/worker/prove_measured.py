"""What a worker does to prove the program that it times: compare it with the reference, before and after."""

import numpy as np
import numpy.typing as npt

from backends.base import Backend, TrainingData
from bench.errors import NotComparableError
from bench.parity.measured import PERIOD, TEST_IMAGES, check_measured, check_repeated, open_measured
from bench.parity.tolerances import has_kinks
from bench.paths import from_text
from bench.records.schema import Proof
from bench.worker.protocol import Begin, Emit, Proven
from bench.worker.stopwatch import Stopwatch
from bench.workloads.specs import Workload


class Prover:
    """Compares a backend with a reference trace, at the batch size, rate and data of the timed windows.

    The trace is read each time, so that it takes no memory while memory is measured.
    """

    def __init__(self, backend: Backend, workload: Workload, data: TrainingData, asked: Begin) -> None:
        self._backend, self._workload, self._data = backend, workload, data
        self._path = None if asked.proof is None else from_text(asked.proof)
        self._repeated = asked.repeated

    def before_windows(self, emit: Emit) -> None:
        """Compare losses and the changes of parameters. Raises NotComparableError where they differ."""
        self._prove(emit, None, repeated=False)

    def after_windows(self, test_images: npt.NDArray[np.uint8], emit: Emit) -> None:
        """Compare logits too, and if asked many steps with their repetition."""
        self._prove(emit, test_images[:TEST_IMAGES], repeated=self._repeated)

    def _prove(self, emit: Emit, images: npt.NDArray[np.uint8] | None, *, repeated: bool) -> None:
        if self._path is None:
            return
        clock = Stopwatch()
        with open_measured(self._path) as trace:
            found = check_measured(self._backend, self._workload, self._data, trace, images)
        steps, checks = len(trace.order), found.checks
        if repeated and (has_kinks(self._workload) or steps < PERIOD):
            tolerance = trace.tolerances["change"]
            checks += (check_repeated(self._backend, self._workload, self._data, tolerance),)
            steps += PERIOD
        proof = Proof(
            after_windows=images is not None,
            steps=steps,
            checks=checks,
            seconds=clock.seconds(),
            loss_errors=found.loss_errors,
            rounding_errors=trace.rounding_errors,
        )
        emit(Proven(proof=proof))
        if failed := [check for check in checks if not check.ok]:
            worst = max(failed, key=lambda check: check.error / check.tolerance)
            raise NotComparableError(
                f"the timed program does not compute what the reference computes: {worst.kind} at "
                f"{worst.worst} is off by {worst.error:.1e}, and {worst.tolerance:.1e} is allowed"
            )
