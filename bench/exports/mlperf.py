"""Logs of the training runs in MLPerf's format, one file for each: `RUN/SYSTEM/WORKLOAD/result_N.txt`.

This is the layout of a submission's results. SYSTEM is backend, mode, device and precision; N counts from 0,
in the order of the seeds. Each line is `:::MLLOG` and a JSON object, as `mlperf_logging.mllog` writes it.

A log ends where MLPerf's clock stops, at the first evaluation that reaches the target: `run_stop` has the
status `success`, and later training is left out. Otherwise, also if there is no target, the status is
`aborted`.

Times. A run records the start of a job, the duration of each of its parts, the seconds of training up to each
evaluation, and the total of training and evaluating. It does not record the duration of each evaluation, so
the time that was not training is shared equally among the evaluations. If the job did not finish, they take
no time. `init_start` to `init_stop` lasts from the start of the process to the end of the first step,
compilation included; timed windows and other measurements of the job are left out. The recorded seconds are
in the metadata, as `train_s`.

All of the checker's common rules (mlperf_logging 4.1.68, training_6.1.0/common.yaml) hold, except those that
require a benchmark of MLPerf's: the rules of a division require that `submission_benchmark` is one of them,
and continue with the rules of that benchmark. `submission_org` states that nothing is submitted, and
`cache_clear` that no cache was cleared. The networks have no attention, and there is one device, so the
lowest precisions of both are those of the linear layers.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from bench.datasets.catalog import DATASETS
from bench.errors import RecordError
from bench.exports.names import dump, nothing, part
from bench.records.runs import HEADER, Run
from bench.records.schema import EpochPoint, JobRecord, RunHeader
from bench.text import clean
from bench.workloads.specs import Precision, Workload

_BEGIN = ":::MLLOG"
_ESCAPED = "\\u003a" + _BEGIN[1:]
"""The same inside JSON. The parser reads what follows the last `:::MLLOG` of a line, and a name may have
it."""
_PRECISIONS: dict[Precision, str] = {"fp32": "fp32", "tf32": "tf32", "bf16": "bfloat16"}
_Event: TypeAlias = Literal["INTERVAL_START", "INTERVAL_END", "POINT_IN_TIME"]


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    after_s: float
    """Seconds since the start of the job."""
    event: _Event
    key: str
    value: Any = None
    metadata: dict[str, Any] = {}


def to_files(run: Run, folder: Path) -> dict[str, bytes]:  # noqa: ARG001 - every maker of a folder gets it
    """Return a log for every row and seed that trained for accuracy; raise UsageError if none did."""
    files: dict[str, bytes] = {}
    counts: dict[str, int] = {}
    trained = [job for job in run.jobs if job.points and job.points[-1].steps > 0]
    # An interrupted block is repeated, so a seed can have trained twice; the last one counts.
    last = {(job.spec.cell, job.spec.seed): job for job in sorted(trained, key=lambda job: job.started_at)}
    for (cell, _), job in sorted(last.items(), key=itemgetter(0)):
        system = part(f"{part(cell.backend)}-{part(cell.mode)}-{cell.device}-{cell.precision}")
        place = f"{part(run.header.run_id, dots=True)}/{system}/{part(cell.workload)}"
        number = counts.setdefault(place, 0)
        counts[place] += 1
        files[f"{place}/result_{number}.txt"] = _log(job, run.header).encode("ascii")
    if not files:
        raise nothing(run, "job that trained for accuracy")
    return files


def _log(job: JobRecord, header: RunHeader) -> str:
    try:
        started = datetime.fromisoformat(job.started_at).astimezone(UTC)
        lines = [_encoded(line, started) for line in _lines(job, header)]
    except (ValueError, OverflowError) as error:
        raise RecordError(
            f"the job that was started at {clean(job.started_at)!r} has an impossible time: {error}."
        ) from error
    return "".join(lines)


def _encoded(line: _Line, started: datetime) -> str:
    time_ms = int(1000 * (started + timedelta(seconds=line.after_s)).timestamp())
    text = dump(
        {
            "namespace": "",
            "time_ms": time_ms,
            "event_type": line.event,
            "key": line.key,
            "value": line.value,
            "metadata": line.metadata,
        },
        indent=None,
    )
    return f"{_BEGIN} {text.replace(_BEGIN, _ESCAPED)}\n"


def _lines(job: JobRecord, header: RunHeader) -> Iterator[_Line]:
    for key, value in _submission(job, header).items():
        yield _Line(after_s=0, event="POINT_IN_TIME", key=key, value=value)
    yield _Line(after_s=0, event="INTERVAL_START", key="init_start")
    for key, value in _settings(job, header).items():
        yield _Line(after_s=0, event="POINT_IN_TIME", key=key, value=value)
    parts = (job.start_s, job.import_s, job.data_s, job.build_s, job.first_step_s)
    begun = sum(seconds or 0.0 for seconds in parts)
    yield _Line(after_s=begun, event="INTERVAL_END", key="init_stop")
    yield from _training(job, begun)


def _submission(job: JobRecord, header: RunHeader) -> dict[str, Any]:
    cell = job.spec.cell
    return {
        "submission_benchmark": clean(cell.workload),
        "submission_division": "open",
        "submission_org": "none: this is no MLPerf submission",
        "submission_platform": clean(header.environment.in_words()),
        "submission_entry": clean(f"{cell.backend} {cell.mode}"),
        "cache_clear": False,
    }


def _settings(job: JobRecord, header: RunHeader) -> dict[str, Any]:
    workload, last = job.spec.workload, job.points[-1]
    precision = _PRECISIONS[job.spec.cell.precision]
    return {
        "seed": job.spec.seed,
        "global_batch_size": workload.batch_size,
        "micro_batch_size": workload.batch_size,
        "gradient_accumulation_steps": 1,
        "opt_name": workload.optimizer.name,
        "opt_base_learning_rate": workload.optimizer.learning_rate,
        # Samples of an epoch, which drops the incomplete last batch.
        "train_samples": round(last.steps * workload.batch_size / last.epoch) if last.epoch > 0 else None,
        "eval_samples": _eval_samples(workload, header),
        "lowest_numerical_precision_in_linear": precision,
        "lowest_numerical_precision_in_attn": precision,
        "lowest_numerical_precision_in_comm": precision,
        "tensor_parallelism": 1,
        "pipeline_parallelism": 1,
        "context_parallelism": 1,
        "expert_parallelism": 1,
        "config_filename": HEADER,
        "target_accuracy": workload.target_accuracy,
    }


def _training(job: JobRecord, begun: float) -> Iterator[_Line]:
    """Yield the run: evaluations, and blocks of training between them."""
    points, workload = job.points, job.spec.workload
    evaluating = 0.0 if job.learn_s is None else max(0.0, job.learn_s - points[-1].train_s) / len(points)
    yield _Line(after_s=begun, event="INTERVAL_START", key="run_start")
    yield from _evaluation(points[0], begun, evaluating, workload.batch_size)
    now, before, status = begun + evaluating, points[0], "aborted"
    # The checker requires a block, so an evaluation of the initial weights cannot end a run.
    for point in points[1:]:
        yield from _block(before, point, now, workload.batch_size)
        now += point.train_s - before.train_s
        yield from _evaluation(point, now, evaluating, workload.batch_size)
        now += evaluating
        before = point
        if workload.target_accuracy is not None and point.test_accuracy >= workload.target_accuracy:
            status = "success"
            break
    yield _Line(after_s=now, event="INTERVAL_END", key="run_stop", metadata={"status": status})


def _block(before: EpochPoint, after: EpochPoint, now: float, batch_size: int) -> Iterator[_Line]:
    """Yield the training between two evaluations, which begins at `now`."""
    first = {"samples_count": before.steps * batch_size}
    seconds = after.train_s - before.train_s
    yield _Line(after_s=now, event="INTERVAL_START", key="block_start", metadata=first)
    end = now + seconds
    yield _Line(after_s=end, event="INTERVAL_END", key="block_stop", metadata=first | {"train_s": seconds})
    if seconds > 0:
        yield _Line(
            after_s=end,
            event="POINT_IN_TIME",
            key="tracked_stats",
            value={"throughput": (after.steps - before.steps) * batch_size / seconds},
            metadata={"step": after.steps},
        )


def _evaluation(point: EpochPoint, now: float, seconds: float, batch_size: int) -> Iterator[_Line]:
    """Yield an evaluation, which begins at `now`."""
    here = {
        "samples_count": point.steps * batch_size,
        "epoch_num": point.epoch,
        "train_s": point.train_s,
    }
    end = now + seconds
    yield _Line(after_s=now, event="INTERVAL_START", key="eval_start", metadata=here)
    yield _Line(
        after_s=end, event="POINT_IN_TIME", key="eval_accuracy", value=point.test_accuracy, metadata=here
    )
    yield _Line(after_s=end, event="INTERVAL_END", key="eval_stop", metadata=here)


def _eval_samples(workload: Workload, header: RunHeader) -> int | None:
    """Return the number of test images; None if the data set is not one of this program's."""
    spec = DATASETS.get(workload.dataset)
    if spec is None or (header.sample and spec.sample is None):
        return None
    count = spec.sample.test_size if header.sample and spec.sample else spec.test_size
    return count if header.dataset_limit is None else min(count, header.dataset_limit)
