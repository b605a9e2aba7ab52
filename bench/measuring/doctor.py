"""Doctor: find out which devices can be used, by computing on each in a child process."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from backends.info import BackendInfo
from bench.measuring.backends import interpreter
from bench.measuring.parity import write_reference
from bench.measuring.process import run_worker
from bench.paths import to_text
from bench.worker.protocol import Described, ParityCase, Probed, ProbeTask
from bench.workloads.catalog import find_workload
from bench.workloads.specs import Cell, Device

WORKLOAD = "mnist-cnn"
"""Its logits need convolutions and matrix products. The images are real."""
TOLERANCE = 1e-5
LIMIT_S = 180.0


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one backend on one device."""

    backend: str
    device: Device
    usable: bool
    said: str
    facts: dict[str, str | int | float | bool | None] = {}


def examine(
    infos: list[BackendInfo], devices: list[Device], pythons: Mapping[str, Path]
) -> Iterator[Finding]:
    """Multiply and convolve with every backend on every device, and check values and place."""
    with tempfile.TemporaryDirectory(prefix="samework-doctor-") as folder:
        workload = find_workload(WORKLOAD)
        trace = write_reference(workload, Path(folder) / "trace.npz")
        for info in infos:
            for device in devices:
                if device == "gpu" and not info.gpu_precisions:
                    continue
                cell = Cell(
                    workload=WORKLOAD,
                    backend=info.name,
                    mode=info.taught_mode,
                    device=device,
                    precision="fp32",
                )
                case = ParityCase(cell=cell, workload=workload, trace=to_text(trace))
                yield _probe(info, case, interpreter(info, pythons))


def _probe(info: BackendInfo, case: ParityCase, python: Path) -> Finding:
    device = case.cell.device
    outcome = run_worker(
        ProbeTask(backend=info, case=case), python=python, device=device, time_limit_s=LIMIT_S
    )
    error = next((event.error for event in outcome.events if isinstance(event, Probed)), None)
    facts = next((event.facts for event in outcome.events if isinstance(event, Described)), {})
    if outcome.status != "ok" or error is None:
        return Finding(
            backend=info.name, device=device, usable=False, said=outcome.error or "it ended without a message"
        )
    right = error <= TOLERANCE
    said = f"ran on {facts.get('device_name')}, largest relative error {error:.1e}"
    return Finding(
        backend=info.name,
        device=device,
        usable=right,
        said=said if right else f"{said}, allowed {TOLERANCE:.0e}: the values are wrong",
        facts=facts,
    )
