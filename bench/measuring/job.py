"""Make the record of a job from its worker's events and the way the worker ended."""

from typing import Any

import msgspec

from bench.measuring.process import Outcome
from bench.records.schema import JobRecord, JobSpec, fault_in_words
from bench.text import duration
from bench.worker.protocol import (
    Built,
    DataLoaded,
    Described,
    DeviceMemory,
    Evaluated,
    FirstStep,
    Imported,
    Learned,
    LookedCloser,
    Memory,
    Proven,
    Timed,
    WarmedUp,
)  # fmt: skip


def job_record(spec: JobSpec, outcome: Outcome, *, started_at: str) -> JobRecord:
    """Return the record of a job; `started_at` is UTC, ISO 8601."""
    facts: dict[str, Any] = {"start_s": outcome.start_s}
    described: dict[str, str | int | float | bool | None] = {}
    warmup, windows, leads, points, proofs = [], [], [], [], []
    for event in outcome.events:
        match event:
            case WarmedUp(window=window):
                warmup.append(window)
            case Timed(window=window, lead_s=lead_s):
                windows.append(window)
                if lead_s is not None:  # older workers do not report it
                    leads.append(lead_s)
            case Evaluated(point=point):
                points.append(point)
            case Described(facts=described):
                pass
            case Proven(proof=proof):
                proofs.append(proof)
            case Built(build_s=build_s):
                facts["build_s"] = build_s
            case Imported() | DataLoaded() | FirstStep() | Learned():
                facts |= msgspec.structs.asdict(event)  # their fields are those of the record
            case Memory() | DeviceMemory() | LookedCloser():
                facts |= msgspec.structs.asdict(event)
    peak_device = described.pop("peak_device_bytes", None)
    return JobRecord(
        spec=spec,
        status=outcome.status,
        error=outcome.error,
        exit_signal=outcome.exit_signal,
        stderr_tail=outcome.stderr_tail,
        started_at=started_at,
        wall_s=outcome.wall_s,
        warmup=tuple(warmup),
        windows=tuple(windows),
        lead_s=sum(leads) if leads else None,
        points=tuple(points),
        proofs=tuple(proofs),
        peak_device_bytes=int(peak_device) if isinstance(peak_device, int | float) else None,
        described=described,
        ranks=outcome.ranks,
        **facts,
    )


def in_a_line(record: JobRecord) -> str:
    """Return a finished job in a line, to be shown while the run goes on."""
    head = f"{record.spec.cell}, block {record.spec.block + 1}, {duration(record.wall_s)}"
    if record.status != "ok":
        return f"{head}: {fault_in_words(record.status, record.error)}"
    rate = sum(window.samples for window in record.windows) / sum(window.seconds for window in record.windows)
    said = f"{head}: {rate:,.0f} samples/s"
    if record.points:
        last = record.points[-1]
        said += f", accuracy {last.test_accuracy:.2%} after {last.epoch:.2f} epochs"
    return said
