"""A results folder of asv (airspeed velocity), which draws values over the commits of a repository.

    results/benchmarks.json                        the benchmarks
    results/HOST/machine.json                      the machine
    results/HOST/COMMIT-ENVIRONMENT.json           the values of one commit, by benchmark

Runs of several commits go into one folder, as with asv itself. What is there stays, except the same
benchmarks of the same commit, machine and environment. `asv publish` draws the folder; it needs an
asv.conf.json that names folder and repository.

Each value of a row is a benchmark, `WORKLOAD.BACKEND.MODE.DEVICE.PRECISION.VALUE`; in a run with
ranks their number stands before the value, such as `2-ranks`. asv takes every rise for a
regression, so smaller is better in all of them: seconds of a training step instead of throughput, and the
share of test images that are classified wrong instead of accuracy. A benchmark's version is derived from the
workload, so asv does not compare values from before and after a change of the workload.

The samples of a step's time are its blocks, one value each. Its 99 % interval is that of their mean, by
Student's t. Windows of one process are not independent, and asv would take them to be.

asv draws one line for each set of parameters. Runs on limited data, and runs of code with uncommitted
changes, therefore have parameters of their own. asv can also draw by `date`, which is the date of the commit;
a run does not record that date, so the export writes the run's.

asv puts names into HTML and names files by them, so they contain safe characters only.
Layout: asv 0.6.6, `results.Results.save`, `benchmarks.Benchmarks.save`, `machine.Machine.save`.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.analysis.convergence import is_too_brief
from bench.analysis.statistics import estimate
from bench.analysis.summary import CellSummary, summarise
from bench.errors import RecordError, UsageError
from bench.exports.names import data_words, dump, nothing, part, plain, rank_words
from bench.exports.timed import TimedCell, comparable, timed_cells
from bench.records.runs import Run
from bench.records.schema import RunHeader
from bench.text import clean
from bench.workloads.specs import Workload

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_RESULTS, _BENCHMARKS, _MACHINE = 2, 2, 1
"""Versions of the three kinds of files."""
_COLUMNS = (
    "result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b", "stats_q_25",
    "stats_q_75", "stats_number", "stats_repeat", "samples",
)  # fmt: skip
_CONFIDENCE = 0.99


class _Benchmark(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark with its value in this run."""

    row: CellSummary
    name: str
    version: str
    kind: str
    unit: str
    what: str
    value: float
    stats: Mapping[str, float] = {}
    samples: tuple[float, ...] = ()


def to_files(run: Run, folder: Path) -> dict[str, bytes]:
    """Return the files by their paths in the folder, merged with the files that the folder has already.

    Raise UsageError if the run has no commit or no value, and RecordError if a file of the folder cannot be
    merged.
    """
    commit = _commit(run.header)
    benchmarks = list(_benchmarks(run))
    if not benchmarks:
        raise nothing(run, "value of a row that did not lose parity")
    parameters = _parameters(run.header)
    machine = {key: parameters[key] for key in ("machine", "os", "arch", "cpu", "num_cpu", "ram")}
    requirements = _requirements(run.header, {benchmark.row.backend for benchmark in benchmarks})
    environment = _environment_name(run.header, parameters, requirements)
    began = _milliseconds(run.header.created_at)
    path = f"{parameters['machine']}/{commit[:8]}-{environment}.json"
    content = {
        "commit_hash": commit,
        "env_name": environment,
        "date": began,
        "params": parameters,
        "python": parameters["python"],
        "requirements": requirements,
        "env_vars": {},
        "result_columns": list(_COLUMNS),
        "results": _earlier_results(folder / path, commit)
        | {benchmark.name: _result(benchmark, began) for benchmark in benchmarks},
        "durations": {},
        "version": _RESULTS,
    }
    return {
        "benchmarks.json": _bytes(_index(folder / "benchmarks.json", benchmarks)),
        f"{parameters['machine']}/machine.json": _bytes(machine | {"version": _MACHINE}),
        path: _bytes(content),
    }


def _commit(header: RunHeader) -> str:
    commit = header.environment.commit
    if commit is None:
        raise UsageError(
            f"{clean(header.run_id)} records no commit, and asv orders results by commit. Make a run with "
            "bench in a checkout that git can read, or export this one in another format."
        )
    if not _COMMIT.fullmatch(commit):
        raise UsageError(
            f"{clean(header.run_id)} names {clean(commit)!r} as its commit, and asv needs a whole hash."
        )
    return commit


# ---- the benchmarks


def _benchmarks(run: Run) -> Iterator[_Benchmark]:
    summary = summarise(run)
    timed = {cell.row.cell: cell for cell in timed_cells(run, summary)}
    versions = {workload.name: _version(workload) for workload in run.header.workloads}
    for row in summary.cells:
        if comparable(row):
            ranks = rank_words(row, run.header)
            yield from _of_row(row, timed.get(row.cell), versions.get(row.workload, "unknown"), ranks)


def _of_row(
    row: CellSummary, timed: TimedCell | None, version: str, ranks: str | None
) -> Iterator[_Benchmark]:
    cell = [part(row.workload), part(row.backend), part(row.mode), row.device, row.precision]
    where = f"{cell[0]} in {cell[1]} {cell[2]}, {row.device} {row.precision}"
    if ranks is not None:
        cell.append(ranks.replace(" ", "-"))
        where += f", {ranks}"
    if timed is not None:
        yield _step(".".join([*cell, "step"]), version, f"A training step of {where}", timed)
    brief = row.epochs is not None and is_too_brief(row.epochs)
    wrong = None if row.test_accuracy is None or brief else 1 - row.test_accuracy
    for name, kind, unit, what, value in (
        ("first_step", "time", "seconds", "Compiling and the first training step of", row.first_step_s),
        ("peak_memory", "peakmemory", "bytes", "Peak memory of", row.peak_rss_bytes),
        ("peak_gpu_memory", "peakmemory", "bytes", "Peak GPU memory of", row.peak_device_bytes),
        ("to_target", "time", "seconds", "Training to the target accuracy of", row.seconds_to_target),
        ("test_error", "track", "share", "Share of test images classified wrong after training", wrong),
    ):
        if value is not None:
            yield _Benchmark(
                row=row,
                name=".".join([*cell, name]),
                version=version,
                kind=kind,
                unit=unit,
                what=f"{what} {where}",
                value=value,
            )


def _step(name: str, version: str, what: str, timed: TimedCell) -> _Benchmark:
    """Return the seconds of a training step: batch size over throughput, so the interval's ends swap."""
    throughput = estimate(timed.logs, _CONFIDENCE)
    samples = tuple(timed.step_s(log) for log in timed.logs)
    stats: dict[str, float] = {}
    if throughput.low is not None and throughput.high is not None:  # asv needs no statistics of one block
        low, high = np.quantile(samples, [0.25, 0.75])
        stats = {
            "ci_99_a": timed.batch_size / throughput.high,
            "ci_99_b": timed.batch_size / throughput.low,
            "q_25": float(low),
            "q_75": float(high),
            "number": timed.steps,
            "repeat": len(samples),
        }
    return _Benchmark(
        row=timed.row,
        name=name,
        version=version,
        kind="time",
        unit="seconds",
        what=what,
        value=timed.batch_size / throughput.value,
        stats=stats,
        samples=samples,
    )


def _result(benchmark: _Benchmark, started_ms: int) -> list[Any]:
    """Return a row of asv's table. A benchmark without parameters has lists of one element."""
    values = {
        "result": [benchmark.value],
        "params": [],
        "version": benchmark.version,
        "started_at": started_ms,
        **{f"stats_{key}": [value] for key, value in benchmark.stats.items()},
        "samples": [list(benchmark.samples)] if benchmark.stats else None,
    }
    return [values.get(column) for column in _COLUMNS]


# ---- what distinguishes lines


def _parameters(header: RunHeader) -> dict[str, str]:
    environment = header.environment
    return {
        "machine": part(environment.hostname, dots=True),
        "os": plain(environment.system),
        "arch": "",
        "cpu": plain(environment.cpu_model),
        "num_cpu": str(environment.usable_cpus),
        "ram": str(environment.memory_bytes),
        "gpu": plain(", ".join(gpu.name for gpu in environment.gpus)),
        "python": plain(environment.python),
        "data": data_words(header) or "all",
        "tree": "changed since the commit" if environment.dirty else "as committed",
    }


def _requirements(header: RunHeader, backends: set[str]) -> dict[str, str]:
    """Return the versions of the backends. asv shows them, and continues a line when they change."""
    return {
        plain(name): plain(version)
        for backend in header.backends
        if backend.name in backends
        for name, version in sorted(backend.versions.items())
    }


def _environment_name(
    header: RunHeader, parameters: Mapping[str, str], requirements: Mapping[str, str]
) -> str:
    """Return a name that depends on everything that distinguishes two runs of one commit."""
    parts = [parameters, requirements, dict(header.environment.variables)]
    return f"samework-{_digest(json.dumps(parts, sort_keys=True))}"


def _version(workload: Workload) -> str:
    """Return a digest of the work; neither the name nor the target changes what is trained."""
    same = msgspec.structs.replace(workload, name="", target_accuracy=None)
    return _digest(msgspec.json.encode(same).decode())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _milliseconds(moment: str) -> int:
    try:
        return int(1000 * datetime.fromisoformat(moment).astimezone(UTC).timestamp())
    except (ValueError, OverflowError) as error:
        raise RecordError(f"the run's start time {clean(moment)!r} is not a time.") from error


# ---- files


def _earlier_results(path: Path, commit: str) -> dict[str, Any]:
    """Return the results that a file has already; raise RecordError if the new ones cannot be added."""
    content = _read(path, _RESULTS)
    if content.get("commit_hash", commit) != commit:
        raise RecordError(f"{path} has the results of another commit. Name another folder with --output.")
    if not content:
        return {}
    results = content.get("results")
    if not isinstance(results, dict) or content.get("result_columns") != list(_COLUMNS):
        raise RecordError(
            "the folder has results of this commit that bench export did not write. "
            "Name another folder with --output."
        )
    return results


def _index(path: Path, benchmarks: Sequence[_Benchmark]) -> dict[str, Any]:
    """Return asv's list of all benchmarks: those that the file has already, and these."""
    known = _read(path, _BENCHMARKS)
    known.pop("version", None)
    ours = {
        benchmark.name: {
            "name": benchmark.name,
            "code": benchmark.what,
            "param_names": [],
            "params": [],
            "timeout": 60.0,
            "type": benchmark.kind,
            "unit": benchmark.unit,
            "version": benchmark.version,
        }
        for benchmark in benchmarks
    }
    return {**known, **ours, "version": _BENCHMARKS}


def _read(path: Path, version: int) -> dict[str, Any]:
    """Return a file of asv's, empty if there is none; raise RecordError if it has another version."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RecordError(f"cannot add to {path}: {error}. Name another folder with --output.") from error
    if not isinstance(found, dict) or found.get("version") != version:
        raise RecordError(
            f"cannot add to {path}: it is not a file of asv's version {version}. "
            "Update it with asv update, or name another folder with --output."
        )
    return found


def _bytes(content: Any) -> bytes:
    return (dump(content, indent=1) + "\n").encode("ascii")
