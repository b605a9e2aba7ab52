"""A results folder of asv (airspeed velocity), which draws figures over the commits of a repository.

    results/benchmarks.json                        what is measured
    results/HOST/machine.json                      the machine
    results/HOST/COMMIT-ENVIRONMENT.json           the figures of one commit, by benchmark

Runs of several commits go into one folder, as asv's own do: what is there stays, but for the same benchmarks
of the same commit, machine and environment. `asv publish` draws it, given an asv.conf.json that names folder
and repository.

A cell's figures are benchmarks of their own, `WORKLOAD.BACKEND.MODE.DEVICE.PRECISION.FIGURE`. asv takes every
rise for a regression, so all of them are better when smaller: seconds of a training step, not throughput, and
the share of test images that are classified wrong, not accuracy. A benchmark's version follows from what is
trained: figures of a workload that was changed since are not drawn beside the new ones.

The samples of a step's time are its blocks, a value each, and its interval of 99 % is that of their mean, by
Student's t: windows of one process are no independent samples, and asv would take them for such.

What must not share a line has other parameters: the data set cut short, and code with changes that were not
committed, whose figures are not those of the commit they stand at. asv's `date`, by which it can draw too, is
the commit's; a run does not know that, so it is the day of the run.

asv's pages take names for HTML, and its files are named by them: they are made of safe characters alone.
Layout: asv 0.6.6, `results.Results.save`, `benchmarks.Benchmarks.save`, `machine.Machine.save`.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.analysis.statistics import estimate
from bench.analysis.summary import CellSummary, summarise
from bench.errors import RecordError, UsageError
from bench.exports.names import data_words, dump, nothing, part, plain
from bench.exports.timed import TimedCell, comparable, timed_cells
from bench.machine.environment import Environment
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


class _Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark of asv's, with its value here."""

    name: str
    kind: str
    unit: str
    what: str
    value: float
    stats: Mapping[str, float] = {}
    samples: tuple[float, ...] = ()


def to_files(run: Run, folder: Path) -> dict[str, bytes]:
    """Return the files, with what the folder has already; raise UsageError without commit or figures."""
    header = run.header
    commit = _commit(header)
    environment = header.environment
    host = part(environment.hostname, dots=True)
    parameters = _parameters(header, host)
    found = _figures(run)
    if not found:
        raise nothing(run, "figure of a cell that was not shown to be wrong")
    versions = {workload.name: _version(workload) for workload in header.workloads}
    began = _milliseconds(header.created_at)
    results: dict[str, list[Any]] = {}
    benchmarks: dict[str, Any] = {}
    for row, figure in found:
        version = versions.get(row.workload, "unknown")
        benchmarks[figure.name] = {
            "name": figure.name,
            "code": figure.what,
            "param_names": [],
            "params": [],
            "timeout": 60.0,
            "type": figure.kind,
            "unit": figure.unit,
            "version": version,
        }
        results[figure.name] = _result(figure, version, began)
    requirements = _requirements(header, {row.backend for row, _ in found})
    name = _environment_name(environment, parameters, requirements)
    path = f"{host}/{commit[:8]}-{name}.json"
    before = _read(folder / path, _RESULTS)
    if before.get("commit_hash", commit) != commit:
        raise RecordError(
            f"{folder / path} holds another commit's results. Name another folder with --output."
        )
    known = _read(folder / "benchmarks.json", _BENCHMARKS)
    known.pop("version", None)
    machine = {key: parameters[key] for key in ("machine", "os", "arch", "cpu", "num_cpu", "ram")}
    content = {
        "commit_hash": commit,
        "env_name": name,
        "date": began,
        "params": parameters,
        "python": parameters["python"],
        "requirements": requirements,
        "env_vars": {},
        "result_columns": list(_COLUMNS),
        "results": _table(before, "results") | results,
        "durations": {},
        "version": _RESULTS,
    }
    return {
        "benchmarks.json": _bytes({**known, **benchmarks, "version": _BENCHMARKS}),
        f"{host}/machine.json": _bytes(machine | {"version": _MACHINE}),
        path: _bytes(content),
    }


def _commit(header: RunHeader) -> str:
    commit = header.environment.commit
    if commit is None:
        raise UsageError(
            f"{clean(header.run_id)} was not made in a git checkout, and asv orders results by commit: "
            "make a run with bench in a checkout, or export it as another format."
        )
    if not _COMMIT.fullmatch(commit):
        raise UsageError(
            f"{clean(header.run_id)} names {clean(commit)!r} as its commit, and asv needs a whole hash."
        )
    return commit


# ---- figures


def _figures(run: Run) -> list[tuple[CellSummary, _Figure]]:
    summary = summarise(run)
    timed = {cell.row.cell: cell for cell in timed_cells(run, summary)}
    return [
        (row, figure)
        for row in summary.cells
        if comparable(row)
        for figure in _of_row(row, timed.get(row.cell))
    ]


def _of_row(row: CellSummary, timed: TimedCell | None) -> Iterator[_Figure]:
    cell = [part(row.workload), part(row.backend), part(row.mode), row.device, row.precision]
    where = f"{cell[0]} in {cell[1]} {cell[2]}, {row.device} {row.precision}"
    if timed is not None:
        yield _step(".".join([*cell, "step"]), f"A training step of {where}", timed)
    wrong = None if row.test_accuracy is None else 1 - row.test_accuracy
    for name, kind, unit, what, value in (
        ("first_step", "time", "seconds", "Compiling and the first training step of", row.first_step_s),
        ("peak_memory", "peakmemory", "bytes", "Peak memory of", row.peak_rss_bytes),
        ("peak_gpu_memory", "peakmemory", "bytes", "Peak GPU memory of", row.peak_device_bytes),
        ("to_target", "time", "seconds", "Training to the target accuracy of", row.seconds_to_target),
        ("test_error", "track", "share", "Share of test images classified wrong after training", wrong),
    ):
        if value is not None:
            yield _Figure(
                name=".".join([*cell, name]), kind=kind, unit=unit, what=f"{what} {where}", value=value
            )


def _step(name: str, what: str, timed: TimedCell) -> _Figure:
    """Return the seconds of a training step: batch over throughput, the interval's ends changing places."""
    throughput = estimate(timed.logs, _CONFIDENCE)
    samples = tuple(timed.step_s(log) for log in timed.logs)
    stats: dict[str, float] = {}
    if throughput.low is not None and throughput.high is not None:  # of one block asv needs none
        low, high = np.quantile(samples, [0.25, 0.75])
        stats = {
            "ci_99_a": timed.batch_size / throughput.high,
            "ci_99_b": timed.batch_size / throughput.low,
            "q_25": float(low),
            "q_75": float(high),
            "number": timed.steps,
            "repeat": len(samples),
        }
    value = timed.batch_size / throughput.value
    return _Figure(
        name=name, kind="time", unit="seconds", what=what, value=value, stats=stats, samples=samples
    )


def _result(figure: _Figure, version: str, started_ms: int) -> list[Any]:
    """Return a row of asv's table; a benchmark without parameters has lists of one."""
    values = {
        "result": [figure.value],
        "params": [],
        "version": version,
        "started_at": started_ms,
        **{f"stats_{key}": [value] for key, value in figure.stats.items()},
        "samples": [list(figure.samples)] if figure.stats else None,
    }
    return [values.get(column) for column in _COLUMNS]


# ---- what tells lines apart


def _parameters(header: RunHeader, host: str) -> dict[str, str]:
    environment = header.environment
    return {
        "machine": host,
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
    """Return the frameworks' versions: they are kept, but a newer one goes on with the same line."""
    return {
        plain(name): plain(version)
        for backend in header.backends
        if backend.name in backends
        for name, version in sorted(backend.versions.items())
    }


def _environment_name(
    environment: Environment, parameters: Mapping[str, str], requirements: Mapping[str, str]
) -> str:
    """Return a name for what is installed and set, and whatever else tells two runs of a commit apart."""
    told = [parameters, requirements, dict(environment.variables)]
    return f"samework-{_digest(json.dumps(told, sort_keys=True))}"


def _version(workload: Workload) -> str:
    """Return a version of what is trained; its name and its target may change and the work be the same."""
    same = msgspec.structs.replace(workload, name="", target_accuracy=None)
    return _digest(msgspec.json.encode(same).decode())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _milliseconds(moment: str) -> int:
    try:
        return int(1000 * datetime.fromisoformat(moment).astimezone(UTC).timestamp())
    except (ValueError, OverflowError) as error:
        raise RecordError(f"the run says it was made at {clean(moment)!r}, which is no time.") from error


# ---- files


def _read(path: Path, version: int) -> dict[str, Any]:
    """Return a file of asv's that is there already; raise RecordError where it is none of that version."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RecordError(f"cannot add to {path}: {error}. Name another folder with --output.") from error
    if not isinstance(found, dict) or found.get("version") != version:
        raise RecordError(
            f"cannot add to {path}: it is no file of asv's version {version}. "
            "Update it with asv update, or name another folder with --output."
        )
    return found


def _table(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a table of another run's file, whose columns must be ours for its rows to stand beside ours."""
    if not content:
        return {}
    table = content.get(key)
    if not isinstance(table, dict) or content.get("result_columns") != list(_COLUMNS):
        raise RecordError(
            "the folder has results of this commit that bench export did not write. "
            "Name another folder with --output."
        )
    return table


def _bytes(content: Any) -> bytes:
    return (dump(content, indent=1) + "\n").encode("ascii")
