"""Each cell as a benchmark of pytest-benchmark, whose options save, compare and draw it: `nox -s benchmarks`.

A round is a window: the cell's worker, in a process of its own, trains some steps while its device is
synchronised at both ends. What is recorded of it are the seconds of one step, by the worker's own clock. As
many rounds are taken as pytest-benchmark takes of any function: what fills `--benchmark-max-time`, and at
least `--benchmark-min-rounds`.

This follows a cell from change to change. Cells run one after another here, so what the machine did
meanwhile lies between them: to say which of two is faster, `bench run` lets them take turns. The file's name
keeps it out of the tests.
"""

import math
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from bench.analysis.statistics import log_rate, log_throughput
from bench.analysis.steady_state import settled
from bench.datasets import cache as datasets
from bench.measuring.backends import find_backends, interpreter
from bench.measuring.block import BlockJob, window_steps
from bench.measuring.job import job_record
from bench.measuring.process import Worker
from bench.measuring.selection import Asked, choose_backends, choose_device, chosen_cells
from bench.records.schema import JobRecord, JobSpec
from bench.run.plan import PRESETS
from bench.run.runner import window_s_of
from bench.worker.protocol import Begin, Built, DataSource, Event, Finish, MeasureTask, Ready, Timed, Turn
from bench.workloads.catalog import find_workload
from bench.workloads.specs import Cell

DEVICE = choose_device("gpu" if os.environ.get("BENCH_GPU") == "1" else "cpu")
AVAILABLE = choose_backends(find_backends(), Asked(), DEVICE, reference=True)
SEED = 0
TIME_LIMIT_S = 600.0
PARAMETERS = ("workload", "backend", "mode", "device", "precision", "batch")

STEP_S: list[float] = []
"""Seconds of a step in every window so far, of all cells."""


def clocked_s() -> float:
    """Stand in for the time of day: goes on by the seconds of one step with every window."""
    return math.fsum(STEP_S)


def cells() -> list[Any]:
    """Return every mode of every backend on the main workloads; what cannot run here is skipped, with why."""
    found = []
    for cell in chosen_cells(Asked(modes=("all",)), AVAILABLE, DEVICE, "all"):
        info, marks = AVAILABLE.infos[cell.backend], []
        if cell.mode != info.default_mode or info.reference or info.on_request:
            marks.append(pytest.mark.on_request)
        if cell.backend in AVAILABLE.unavailable:
            why = AVAILABLE.unavailable[cell.backend].partition(". ")[
                0
            ]  # what follows is of the command's options
            marks.append(pytest.mark.skip(reason=f"{cell.backend}: {why}"))
        batch = find_workload(cell.workload).batch_size
        own = [getattr(cell, name) for name in PARAMETERS[:-1]]
        found.append(pytest.param(*own, batch, marks=marks))
    return found


class Measured:
    """A cell whose worker is warm and waits for its turns."""

    def __init__(self, task: MeasureTask, worker: Worker) -> None:
        self._task, self._worker = task, worker
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._heard(Built)
        worker.ask(Begin())
        ready = self._heard(Ready)
        job = BlockJob(task=task, python=interpreter(task.backend, {}))
        (self.steps,) = window_steps([job], [ready])
        self.window_s = ready.step_s * self.steps

    def window(self) -> None:
        """Let the worker train a window, and move the clock."""
        self._worker.ask(Turn(steps=self.steps))
        window = self._heard(Timed).window
        STEP_S.append(window.seconds / window.steps)

    def finish(self) -> JobRecord:
        """Let the worker end, and return all it said."""
        self._worker.ask(Finish())
        return job_record(self._task.spec, self._worker.finish(), started_at=self._started_at)

    def _heard(self, kind: type[Event]) -> Any:
        event = self._worker.wait_for(kind)
        if event is None:
            outcome = self._worker.finish()
            raise RuntimeError("\n".join((f"{outcome.status}: {outcome.error}", *outcome.stderr_tail)))
        return event


@pytest.fixture
def measured(
    *, workload: str, backend: str, mode: str, device: Any, precision: Any, batch: int
) -> Iterator[Measured]:
    info, preset = AVAILABLE.infos[backend], PRESETS["quick"]
    one_mode = next(one for one in info.modes if one.name == mode)
    spec = JobSpec(
        job_id=f"{workload}.{backend}.{mode}",
        cell=Cell(workload=workload, backend=backend, mode=mode, device=device, precision=precision),
        workload=msgspec.structs.replace(find_workload(workload), batch_size=batch),
        seed=SEED,
        block=0,
        position=0,
        hash_seed=secrets.randbelow(2**32),
        windows=preset.windows,
        window_s=window_s_of(one_mode, preset.window_s),
        epochs=0,
        time_limit_s=TIME_LIMIT_S,
    )
    data = DataSource(name=spec.workload.dataset, cache=str(datasets.cache_dir()), limit=None)
    task = MeasureTask(backend=info, data=data, spec=spec)
    with Worker(
        task,
        python=interpreter(info, {}),
        device=device,
        time_limit_s=spec.time_limit_s,
        hash_seed=spec.hash_seed,
    ) as worker:
        yield Measured(task, worker)


@pytest.mark.benchmark(timer=clocked_s)
@pytest.mark.parametrize(PARAMETERS, cells())
def test_step(measured: Measured, benchmark: Any, workload: str, request: pytest.FixtureRequest) -> None:
    benchmark.group = workload
    option = request.config.getoption
    rounds = math.ceil(float(option("benchmark_max_time")) / measured.window_s)
    benchmark.pedantic(measured.window, rounds=max(rounds, option("benchmark_min_rounds")))
    job = measured.finish()
    if job.status != "ok":
        benchmark.has_error = True  # else it would be saved
        pytest.fail(f"{job.status}: {job.error}", pytrace=False)
    logs = [log_rate(window.samples, window.seconds) for window in job.windows]
    benchmark.extra_info |= {
        "samples_per_s": math.exp(log_throughput(logs, latest=len(logs))),
        "steady": settled(logs),
        "steps": measured.steps,
        "batch_size": job.spec.workload.batch_size,
        "first_step_s": job.first_step_s,
        "peak_rss_bytes": job.peak_rss_bytes,
        "peak_device_bytes": job.peak_device_bytes,
        "versions": AVAILABLE.versions[job.spec.cell.backend],
        "described": job.described,
    }
