"""Logs of the trainings in MLPerf's format, one file a training: `RUN/SYSTEM/WORKLOAD/result_N.txt`.

That is how a submission lays out its results, SYSTEM being backend, mode, device and precision; N counts from
0, by seed. Each line is `:::MLLOG` and a JSON object, as `mlperf_logging.mllog` writes it.

A log ends where MLPerf's clock does, at the first evaluation that reaches the target: `run_stop` then says
`success`, and what was trained beyond is left out. Otherwise, also where no target is set, it is `aborted`.

Times. A run knows when a job was started, how long each part of it took, the seconds of training up to each
evaluation, and those of training and evaluating together, not each evaluation's: what was not training is
shared evenly among them. Where the job did not get to its end they take no time. `init_start` to `init_stop`
is from starting the process to the end of the first step, compilation included; what the job was timed for
besides is left out. The seconds as recorded stand in the metadata, as `train_s`.

Of the checker's common rules (mlperf_logging 4.1.68, training_6.1.0/common.yaml) all hold but what follows
from this being no MLPerf benchmark: those of a division ask that `submission_benchmark` is one of MLPerf's,
and go on with the rules of that benchmark. `submission_org` says that nothing is submitted, and `cache_clear`
that no cache was cleared. The networks have no attention, and no two devices speak with each other: the
lowest precision there is that of the rest.
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
from bench.records.schema import JobRecord, RunHeader
from bench.text import clean
from bench.workloads.specs import Precision, Workload

_BEGIN = ":::MLLOG"
_ESCAPED = "\\u003a" + _BEGIN[1:]
"""The same inside JSON: the parser takes for a line what follows the last of them, which may be in a name."""
_PRECISIONS: dict[Precision, str] = {"fp32": "fp32", "tf32": "tf32", "bf16": "bfloat16"}
_Event: TypeAlias = Literal["INTERVAL_START", "INTERVAL_END", "POINT_IN_TIME"]


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    after_s: float
    """Seconds since the job was started."""
    event: _Event
    key: str
    value: Any = None
    metadata: dict[str, Any] = {}


def to_files(run: Run, folder: Path) -> dict[str, bytes]:  # noqa: ARG001 - every maker of a folder is told it
    """Return a log for every seed of a cell that trained for accuracy; raise UsageError where none did."""
    files: dict[str, bytes] = {}
    counts: dict[str, int] = {}
    trained = [job for job in run.jobs if job.points and job.points[-1].steps > 0]
    # Of a seed that was trained twice, as a block that was interrupted is done anew, the last counts.
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
            f"the times of a job cannot be told that was started at {clean(job.started_at)!r}: {error}."
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
    yield from _about(job, header)
    parts = (job.start_s, job.import_s, job.data_s, job.build_s, job.first_step_s)
    begun = sum(seconds or 0.0 for seconds in parts)
    yield _Line(after_s=begun, event="INTERVAL_END", key="init_stop")
    yield from _training(job, begun)


def _about(job: JobRecord, header: RunHeader) -> Iterator[_Line]:
    """Yield what was trained and where; all in the moment in which the process is started."""
    workload, cell = job.spec.workload, job.spec.cell
    precision = _PRECISIONS[cell.precision]
    facts: dict[str, Any] = {
        "submission_benchmark": clean(cell.workload),
        "submission_division": "open",
        "submission_org": "none: this is no MLPerf submission",
        "submission_platform": clean(header.environment.in_words()),
        "submission_entry": clean(f"{cell.backend} {cell.mode}"),
        "cache_clear": False,
    }
    for key, value in facts.items():
        yield _Line(after_s=0, event="POINT_IN_TIME", key=key, value=value)
    yield _Line(after_s=0, event="INTERVAL_START", key="init_start")
    last = job.points[-1]
    facts = {
        "seed": job.spec.seed,
        "global_batch_size": workload.batch_size,
        "micro_batch_size": workload.batch_size,
        "gradient_accumulation_steps": 1,
        "opt_name": workload.optimizer.name,
        "opt_base_learning_rate": workload.optimizer.learning_rate,
        # Of an epoch, in which the ragged last batch is dropped.
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
    for key, value in facts.items():
        yield _Line(after_s=0, event="POINT_IN_TIME", key=key, value=value)


def _training(job: JobRecord, begun: float) -> Iterator[_Line]:
    """Yield the run: evaluations, and between them blocks of training."""
    points, target = job.points, job.spec.workload.target_accuracy
    besides = max(0.0, (job.learn_s or 0.0) - points[-1].train_s)
    evaluating = besides / len(points) if job.learn_s is not None else 0.0
    yield _Line(after_s=begun, event="INTERVAL_START", key="run_start")
    now, before, reached = begun, points[0], False
    for place, point in enumerate(points):
        if place > 0:
            first = {"samples_count": before.steps * job.spec.workload.batch_size}
            seconds = point.train_s - before.train_s
            samples = (point.steps - before.steps) * job.spec.workload.batch_size
            yield _Line(after_s=now, event="INTERVAL_START", key="block_start", metadata=first)
            now += seconds
            yield _Line(
                after_s=now, event="INTERVAL_END", key="block_stop", metadata=first | {"train_s": seconds}
            )
            if seconds > 0:
                yield _Line(
                    after_s=now,
                    event="POINT_IN_TIME",
                    key="tracked_stats",
                    value={"throughput": samples / seconds},
                    metadata={"step": point.steps},
                )
        here = {
            "samples_count": point.steps * job.spec.workload.batch_size,
            "epoch_num": point.epoch,
            "train_s": point.train_s,
        }
        yield _Line(after_s=now, event="INTERVAL_START", key="eval_start", metadata=here)
        now += evaluating
        yield _Line(
            after_s=now, event="POINT_IN_TIME", key="eval_accuracy", value=point.test_accuracy, metadata=here
        )
        yield _Line(after_s=now, event="INTERVAL_END", key="eval_stop", metadata=here)
        before = point
        # A block is asked for, so that the weights as drawn cannot end a run, whatever they happen to know.
        reached = target is not None and place > 0 and point.test_accuracy >= target
        if reached:
            break
    status = {"status": "success" if reached else "aborted"}
    yield _Line(after_s=now, event="INTERVAL_END", key="run_stop", metadata=status)


def _eval_samples(workload: Workload, header: RunHeader) -> int | None:
    """Return how many test images there were; None where the data set is none of this program's."""
    spec = DATASETS.get(workload.dataset)
    if spec is None or (header.sample and spec.sample is None):
        return None
    count = spec.sample.test_size if header.sample and spec.sample else spec.test_size
    return count if header.dataset_limit is None else min(count, header.dataset_limit)
