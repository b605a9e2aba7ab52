"""What the program itself costs, beside the frameworks that it measures: `nox -s benchmarks`.

Commands as a user starts them; the report of a run of a thousand records; what a job takes beside its
framework's own work: in time, and in memory against a fresh process that trains the same by the backend's
class, with no worker around it; and what is left of a whole run. A table at the end holds each figure to its
aim. The file's name keeps it out of the tests.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from conftest import INFOS
from synthetic import realistic_run

from bench.analysis.costs import framework_share
from bench.analysis.summary import summarise
from bench.datasets import cache as datasets
from bench.measuring.process import Worker
from bench.measuring.variables import worker_environment
from bench.records.runs import RECORDS as RECORDS_FILE
from bench.records.runs import create_run, find_run, read_run
from bench.records.schema import JobSpec
from bench.report import svg
from bench.run.report import charts, page
from bench.worker.protocol import (
    Begin,
    Built,
    DataSource,
    Finish,
    FirstStep,
    Imported,
    MeasureTask,
    Memory,
    Ready,
    WarmedUp,
)
from bench.workloads.catalog import find_workload
from bench.workloads.specs import Cell

HERE = Path(__file__).parent
FRAMEWORKS = ("tensorflow", "torch", "jax")
WORKLOAD = "mnist-softmax"
RECORDS = 1000
JOBS = 3
STEPS = 600
"""An epoch, which the bare process trains before its memory is read."""
RUN = ("--workload", "mnist-mlp", "--workload", "mnist-cnn", "--budget", "5m")
TIME_LIMIT_S = 300.0

BARE = """
import json, sys
from pathlib import Path
from bench.measuring.backends import find_backends
from bench.worker.loading import load_backend

name, workload_name, cache, steps = json.loads(sys.argv[1])
info = find_backends().find(name)
backend_class = load_backend(info)
import numpy as np
from backends.base import TrainingData
from bench.datasets import cache as datasets
from bench.workloads.parameters import initial_params
from bench.workloads.catalog import find_workload

workload = find_workload(workload_name)
data = datasets.load(workload.dataset, cache=Path(cache))
training = TrainingData(info=data.info, images=data.train_images, labels=data.train_labels)
backend = backend_class(workload, training, mode=info.default_mode, device="cpu", precision="fp32")
backend.load_params(initial_params(workload.architecture, data.info, seed=0))
order = np.random.default_rng(0).integers(0, len(data.train_images), (steps, workload.batch_size))
backend.train_steps(order.astype(np.int32))
from bench.machine.environment import peak_rss_bytes

print(peak_rss_bytes()[0])
"""


class Aim(NamedTuple):
    """A figure, and what it is to stay under."""

    what: str
    figure: float
    aim: float
    unit: str


class Job(NamedTuple):
    """What a job took: seconds in all, seconds of its framework's own work, and bytes."""

    wall_s: float
    own_s: float
    peak_bytes: int


@pytest.fixture(scope="session")
def note(request: pytest.FixtureRequest) -> Callable[[Aim], None]:
    """Return what puts a figure into the table at the end."""
    rows: list[Aim] = []

    class Table:
        @pytest.hookimpl(trylast=True)
        def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
            for row in rows:
                above = "  above its aim" if row.figure > row.aim else ""
                terminalreporter.write_line(
                    f"{row.what:<48}{row.figure:>9.3f} {row.unit:<3} (aim {row.aim:g}){above}"
                )

    request.config.pluginmanager.register(Table())
    return rows.append


# ---- commands


@pytest.fixture(scope="session")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of results that holds one run, of so many records."""
    results = tmp_path_factory.mktemp("results")
    run = realistic_run(blocks=40)
    assert len(run.records) >= RECORDS
    lines = [msgspec.json.encode(record, enc_hook=float) + b"\n" for record in run.records[:RECORDS]]
    (create_run(results, run.header) / RECORDS_FILE).write_bytes(b"".join(lines))
    return results


@pytest.mark.benchmark(group="commands")
@pytest.mark.parametrize(
    ("arguments", "rounds", "aim_s"),
    [
        pytest.param(("--help",), 20, 0.15, id="help"),
        pytest.param(("list",), 10, 0.3, id="list"),
        pytest.param(("report", "--results", "{long_run}"), 5, 2.0, id="report"),
    ],
)
def test_a_command(
    *, arguments: tuple[str, ...], rounds: int, aim_s: float, benchmark: Any, long_run: Path,
    note: Callable[[Aim], None],
) -> None:  # fmt: skip
    command = [sys.executable, "-P", "-c", "from bench.cli.main import main; main()"]
    command += [argument.format(long_run=long_run) for argument in arguments]

    def run() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    benchmark.pedantic(run, rounds=rounds, warmup_rounds=1)
    note(Aim(f"bench {arguments[0]}", benchmark.stats.stats.median, aim_s, "s"))


@pytest.mark.benchmark(group="commands")
def test_the_charts_of_a_run(benchmark: Any, note: Callable[[Aim], None]) -> None:
    run = realistic_run(blocks=40)
    assert len(run.records) >= RECORDS
    summary = summarise(run)

    def draw() -> list[str]:
        return [svg.draw(chart) for chart in charts.every(run, summary)]

    assert len(benchmark(draw)) > 50
    note(Aim("the charts of a run of 1,000 records", benchmark.stats.stats.median, 0.3, "s"))


@pytest.mark.benchmark(group="report")
def test_a_page(benchmark: Any, long_run: Path, note: Callable[[Aim], None]) -> None:
    """The page alone, from records that were read: charts, tables, and every window."""
    run = read_run(find_run(long_run, None))
    made = benchmark.pedantic(
        lambda: page.document(run, summarise(run), beside=run.folder), rounds=5, warmup_rounds=1
    )
    size = len(made.encode())
    benchmark.extra_info |= {"page_bytes": size}
    note(Aim(f"a page of {RECORDS:,} records", benchmark.stats.stats.median, 2.0, "s"))
    note(Aim("its size", size / 1e6, 1.5, "MB"))


# ---- jobs


@pytest.mark.parametrize("name", [pytest.param(one, marks=pytest.mark.framework(one)) for one in FRAMEWORKS])
@pytest.mark.benchmark(group="a job on softmax regression")
def test_a_job(name: str, benchmark: Any, tmp_path: Path, note: Callable[[Aim], None]) -> None:
    jobs: list[Job] = []
    benchmark.pedantic(lambda: jobs.append(run_job(name)), rounds=JOBS)
    overhead_s = statistics.median(job.wall_s - job.own_s for job in jobs)
    bare = statistics.median(bare_bytes(name, tmp_path) for _ in range(JOBS))
    excess = statistics.median(job.peak_bytes for job in jobs) - bare
    benchmark.extra_info |= {"overhead_s": overhead_s, "excess_bytes": excess}
    note(Aim(f"{name}: a job beside its framework's work", overhead_s, 0.3, "s"))
    note(Aim(f"{name}: its memory over a bare process's", excess / 1e6, 100.0, "MB"))


def run_job(name: str) -> Job:
    """Run a job that is warmed up and then ends, and return what it took."""
    info, workload = INFOS[name], find_workload(WORKLOAD)
    cell = Cell(workload=WORKLOAD, backend=name, mode=info.default_mode, device="cpu", precision="fp32")
    spec = JobSpec(
        job_id=name, cell=cell, workload=workload, seed=0, block=0, position=0, hash_seed=0, windows=1,
        window_s=0.05, epochs=0, time_limit_s=TIME_LIMIT_S,
    )  # fmt: skip
    data = DataSource(name=workload.dataset, cache=str(datasets.cache_dir()), limit=None)
    task = MeasureTask(backend=info, data=data, spec=spec)
    with Worker(task, python=Path(sys.executable), device="cpu", time_limit_s=TIME_LIMIT_S) as worker:
        worker.wait_for(Built)
        worker.ask(Begin())
        worker.wait_for(Ready)
        worker.ask(Finish())
        outcome = worker.finish()
    assert outcome.status == "ok", outcome.error
    memory = next(event for event in outcome.events if isinstance(event, Memory))
    own_s = sum(own_seconds(event) for event in outcome.events)
    return Job(wall_s=outcome.wall_s, own_s=own_s, peak_bytes=memory.peak_rss_bytes)


def own_seconds(event: object) -> float:
    """Return what the framework itself took of the time until an event."""
    match event:
        case Imported(import_s=seconds) | Built(build_s=seconds) | FirstStep(first_step_s=seconds):
            return seconds
        case WarmedUp(window=window):
            return window.seconds
    return 0.0


def bare_bytes(name: str, scratch: Path) -> int:
    """Return the peak memory of a process that trains by the backend's class and does nothing else."""
    environment = worker_environment(INFOS[name], "cpu", scratch)
    environment["PYTHONPATH"] = str(HERE.parent.parent)
    asked = json.dumps([name, WORKLOAD, str(datasets.cache_dir()), STEPS])
    done = subprocess.run(
        [sys.executable, "-P", "-c", BARE, asked], env=environment, check=True, stdout=subprocess.PIPE
    )
    return int(done.stdout.splitlines()[-1])


# ---- a run


@pytest.mark.benchmark(group="a run")
def test_a_run(benchmark: Any, tmp_path: Path, note: Callable[[Aim], None]) -> None:
    """Its share outside the frameworks: parity, which they take part in too, and all that is ours."""
    command = [
        sys.executable,
        "-P",
        "-c",
        "from bench.cli.main import main; main()",
        "run",
        "--device",
        "cpu",
    ]
    command += [*RUN, "--results", str(tmp_path)]

    def run() -> None:
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        assert done.returncode in {0, 3}, "3: too noisy a machine to rank, which is no matter here"

    benchmark.pedantic(run, rounds=1)
    found = read_run(find_run(tmp_path, None))
    assert {job.status for job in found.jobs} <= {"ok", "no_steady_state"}
    share = framework_share(found.jobs)
    assert share is not None
    inside_s = share * sum(job.wall_s for job in found.jobs)
    outside = 1 - inside_s / benchmark.stats.stats.median
    note(Aim("a run outside the frameworks, of its time", 100 * outside, 20.0, "%"))
