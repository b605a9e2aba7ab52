"""JSON as `pytest --benchmark-json` writes it, for `pytest-benchmark compare` and `--benchmark-compare`.

A benchmark is a timed row and a round is a window. The time of a round is that of one training step of a
whole batch, because users of this tool compare how long a call takes. The windows are those that the row's
throughput is computed from. pytest-benchmark's statistics take every window for an independent measurement,
which windows of one process are not. The throughput over blocks, with its interval, is in `extra_info`.

The layout and the quartiles are those of pytest-benchmark 5.3.1 (`stats.Stats`, `stats.Metadata.as_dict`).
"""

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

from bench.analysis.summary import summarise
from bench.exports.names import data_words, dump, nothing, rank_words, shown
from bench.exports.timed import TimedCell, timed_cells
from bench.machine.environment import Environment
from bench.records.runs import Run
from bench.text import clean

LAYOUT = "5.3.1"


def to_json(run: Run) -> str:
    """Return one benchmark for each timed row; raise UsageError if no row was timed."""
    header = run.header
    benchmarks = [_benchmark(cell, run) for cell in timed_cells(run, summarise(run))]
    if not benchmarks:
        raise nothing(run, "row with a timed block that counts")
    content = {
        "machine_info": _machine(header.environment),
        "commit_info": {
            "id": _commit(run) or "unversioned",
            "time": None,
            "author_time": None,
            "dirty": bool(header.environment.dirty),
            "project": "samework",
            "branch": "(unknown)",
        },
        "benchmarks": benchmarks,
        "datetime": clean(header.created_at),
        "version": LAYOUT,
    }
    return dump(content) + "\n"


def _benchmark(cell: TimedCell, run: Run) -> dict[str, Any]:
    row = cell.row
    workload, backend, mode = shown(row.workload), shown(row.backend), shown(row.mode)
    data = [cell.step_s(log) for rounds in cell.rounds.values() for log in rounds]
    # Named like a parametrized test: --group-by func groups by workload, and param:backend by framework.
    param = f"{backend}-{mode}-{row.device}-{row.precision}"
    if ranks := rank_words(row, run.header):
        param += f"-{ranks.replace(' ', '-')}"
    if cut := data_words(run.header):
        param += f"-{cut.replace(' ', '-')}"
    return {
        "group": f"{workload} ({row.device} {row.precision})",
        "name": f"{workload}[{param}]",
        "fullname": f"samework::{workload}[{param}]",
        "params": {
            "workload": workload,
            "backend": backend,
            "mode": mode,
            "device": row.device,
            "precision": row.precision,
            "ranks": row.ranks,
            "scaling": row.scaling,
        },
        "param": param,
        "extra_info": _extra_info(cell, run),
        "options": {
            "disable_gc": False,
            "timer": "perf_counter_ns",
            "min_rounds": min(map(len, cell.rounds.values())),
            "max_time": None,
            "min_time": None,
            "warmup": True,
        },
        "stats": describe(data) | {"data": data, "iterations": cell.steps},
    }


def _extra_info(cell: TimedCell, run: Run) -> dict[str, Any]:
    row = cell.row
    return {
        "run": clean(run.header.run_id),
        "mark": row.mark,
        "commit": _commit(run),
        "parity_ok": row.parity_ok,
        "ranked": row.ranked,
        "why_not": clean(row.why_not) if row.why_not else None,
        "blocks": row.blocks,
        "samples_per_s": row.samples_per_s,
        "samples_per_s_low": row.samples_per_s_low,
        "samples_per_s_high": row.samples_per_s_high,
    }


def _commit(run: Run) -> str | None:
    commit = run.header.environment.commit
    return None if commit is None else clean(commit)


def _machine(environment: Environment) -> dict[str, Any]:
    """Return the fields of pytest-benchmark's machine that a run records; null for the others."""
    system, _, release = clean(environment.system).partition("-")
    implementation, _, version = clean(environment.python).partition(" ")
    return {
        "node": clean(environment.hostname),
        "processor": None,
        "machine": None,
        "python_compiler": None,
        "python_implementation": implementation,
        "python_implementation_version": version,
        "python_version": version,
        "python_build": None,
        "release": release,
        "system": system,
        "cpu": {
            "brand_raw": clean(environment.cpu_model),
            "count": environment.logical_cpus,
            "flags": [clean(flag) for flag in environment.cpu_flags],
        },
        "gpus": [clean(gpu.name) for gpu in environment.gpus],
    }


def describe(data: Sequence[float]) -> dict[str, Any]:
    """Return pytest-benchmark's statistics of at least one value."""
    ordered = sorted(data)
    mean = statistics.mean(ordered)
    deviation = statistics.stdev(ordered) if len(ordered) > 1 else 0
    q1, q3 = _quartiles(ordered)
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)  # Tukey's fences
    far = sum(value < mean - deviation or value > mean + deviation for value in ordered)
    outside = sum(value < low or value > high for value in ordered)
    total = sum(data)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": deviation,
        "rounds": len(ordered),
        "median": statistics.median(ordered),
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": outside,
        "stddev_outliers": far,
        "outliers": f"{far};{outside}",
        "ld15iqr": ordered[bisect_left(ordered, low)],
        "hd15iqr": ordered[bisect_right(ordered, high) - 1],
        "ops": len(ordered) / total if total else 0,
        "total": total,
    }


def _quartiles(ordered: Sequence[float]) -> tuple[float, float]:
    """Return the quartiles as pytest-benchmark computes them.

    Of an even count they are the medians of the two halves, of an odd one the tool's "method 3".
    """
    count = len(ordered)
    quarter, rest = divmod(count, 4)
    if count == 1:
        return ordered[0], ordered[0]
    if count % 2 == 0:
        return statistics.median(ordered[: count // 2]), statistics.median(ordered[count // 2 :])
    if rest == 1:
        low, high = ordered[quarter - 1 : quarter + 1], ordered[3 * quarter : 3 * quarter + 2]
        return 0.25 * low[0] + 0.75 * low[1], 0.75 * high[0] + 0.25 * high[1]
    low, high = ordered[quarter : quarter + 2], ordered[3 * quarter + 1 : 3 * quarter + 3]
    return 0.75 * low[0] + 0.25 * low[1], 0.25 * high[0] + 0.75 * high[1]
