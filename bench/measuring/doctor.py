"""Doctor: find out which devices can be used, by computing on each in a child process."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from packaging.specifiers import SpecifierSet

from backends.info import BackendInfo
from bench.machine.gpu import GpuInUse, gpu_in_use
from bench.measuring.backends import interpreter
from bench.measuring.parity import write_reference
from bench.measuring.process import run_worker
from bench.paths import to_text
from bench.worker.protocol import Described, ParityCase, Probed, ProbeTask
from bench.worker.prove import OPENED
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
                    mode=info.default_mode,
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
    built = f"built for {facts['build']}, " if facts.get("build") else ""
    said = f"{built}ran on {facts.get('device_name')}, largest relative error {error:.1e}"
    fault = None if error <= TOLERANCE else f"allowed {TOLERANCE:.0e}: the values are wrong"
    if device == "gpu" and fault is None:
        fault = _opened_others(str(facts.get(OPENED) or ""))
    return Finding(
        backend=info.name,
        device=device,
        usable=fault is None,
        said=said if fault is None else f"{said}, {fault}",
        facts=facts,
    )


def _opened_others(opened: str) -> str | None:
    """Return what is wrong with the GPUs that a worker opened; None if it is the chosen one, or not known."""
    used = gpu_in_use()
    if not opened or used is None or used.uuid is None or opened == used.uuid:
        return None
    return f"but it opened {opened}, and not {used.uuid} alone"


def gpu_warnings(info: BackendInfo, versions: Mapping[str, str], gpu: GpuInUse | None) -> list[str]:
    """Return a warning for each known reason why a framework fails on this GPU.

    `versions` are those of its installed distributions. If none is installed, the warning names the versions.
    """
    if gpu is None or gpu.compute_capability is None:
        return []
    major, minor = gpu.compute_capability
    return [
        f"{info.title} (versions {one.versions}) was reported to fail on this GPU ({gpu.name}, compute "
        f"capability {major}.{minor}): {one.why} ({', '.join(one.links)}). {one.remedy}"
        for one in info.unsupported_gpus
        if gpu.compute_capability >= one.compute_capability
        and (not versions or _concerned(info, versions, SpecifierSet(one.versions)))
    ]


def _concerned(info: BackendInfo, versions: Mapping[str, str], concerned: SpecifierSet) -> bool:
    """Whether the framework, the first of a backend's distributions, has one of these versions."""
    names = info.distributions[0].split("|")
    return any(concerned.contains(versions[name], prereleases=True) for name in names if name in versions)
