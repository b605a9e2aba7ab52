"""The reference traces that timed programs are compared with, each computed once and kept on disk."""

import time
from pathlib import Path

from bench.parity.measured import TEST_IMAGES, measured_trace, proof_steps, save_measured
from bench.progress import Teller
from bench.text import duration
from bench.worker.protocol import MeasureTask
from bench.worker.timed_loop import load_data, training_data
from bench.workloads.specs import Precision, Workload


class Traces:
    """Makes reference traces in a folder, when a job first needs them."""

    def __init__(self, folder: Path, display: Teller) -> None:
        self._folder, self._display = folder, display
        self._made: dict[tuple[Workload, Precision, int, int], Path] = {}

    def path(self, task: MeasureTask, call_steps: int) -> Path | None:
        """Return the trace for a job whose calls have so many steps.

        None if each framework trains the workload with its own defaults, which no reference does.
        """
        workload, precision = task.spec.workload, task.spec.cell.precision
        if not workload.matched:
            return None
        dataset = load_data(task.data)
        steps = proof_steps(workload, dataset.info, call_steps)
        key = workload, precision, steps, call_steps
        if key not in self._made:
            said, began = f"reference: {workload.name}, {steps} steps in float64", time.monotonic()
            self._display.job(said, None)

            def tell(done: float) -> None:
                left = (time.monotonic() - began) * (1 - done) / done
                self._display.job(f"{said}, about {duration(left)} left", done)

            path = self._folder / f"{len(self._made)}.npz"
            data = training_data(workload, dataset)
            images = dataset.test_images[:TEST_IMAGES]
            trace = measured_trace(
                workload,
                data,
                images,
                steps=steps,
                call_steps=call_steps,
                precision=precision,
                on_progress=tell,
            )
            save_measured(path, trace)
            self._made[key] = path
        return self._made[key]
