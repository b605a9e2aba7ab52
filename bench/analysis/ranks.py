"""What the records of a run say of its ranks: which modes are distributed, and what device each rank had."""

import re
from collections.abc import Iterable
from itertools import combinations

from bench.records.schema import JobRecord, RankRecord, RunHeader

NOT_TOLD = "the records do not tell the device of every rank"

_CPUS = re.compile(r"(\d+)(?:-(\d+))?")


def distributed_modes(header: RunHeader) -> frozenset[tuple[str, str]]:
    """Return the distributed modes of a run, each with its backend; none in a run without ranks.

    A mode with a row of several ranks is distributed. Where a backend has no such row, because only one rank
    was asked for, every mode but its default one is.
    """
    if not header.ranks:
        return frozenset()
    several = {(cell.backend, cell.mode) for cell in header.cells if cell.ranks > 1}
    known = {backend for backend, _ in several}
    defaults = {backend.name: backend.default_mode for backend in header.backends}
    return frozenset(several) | {
        (cell.backend, cell.mode)
        for cell in header.cells
        if cell.backend not in known and cell.mode != defaults.get(cell.backend)
    }


def shared_device(jobs: Iterable[JobRecord]) -> str | None:
    """Return which ranks of a job had to share a device, in words; None if every rank had its own.

    The records must tell the device of every rank. If they do not, nobody knows that it had its own, and
    `NOT_TOLD` is returned.
    """
    for job in jobs:
        if job.spec.cell.ranks > 1:
            if len(job.ranks) < job.spec.cell.ranks or not all(map(_place, job.ranks)):
                return NOT_TOLD
            for one, other in combinations(job.ranks, 2):
                if _place(one) & _place(other):
                    return f"ranks {one.rank} and {other.rank} shared {_named(one)}"
    return None


def _named(one: RankRecord) -> str:
    """Return the device of a rank in words, such as `CPU 1 of node-3`."""
    gpu = "" if one.device.startswith("CPU") else "GPU "
    return f"{gpu}{one.device} of {one.host}"


def _place(one: RankRecord) -> frozenset[tuple[str, str]]:
    """Return the CPUs, or the GPU, that a rank ran on, each with its host; empty if that is not recorded."""
    if not one.device.startswith("CPU"):
        return frozenset({(one.host, one.device)}) if one.device else frozenset()
    return frozenset(
        (one.host, str(cpu))
        for first, last in _CPUS.findall(one.device)
        for cpu in range(int(first), int(last or first) + 1)
    )
