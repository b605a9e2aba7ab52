"""Who a rank is: its host, program, versions, device and data. Ranks that differ are refused by name."""

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from bench.datasets.cache import data_digest
from bench.errors import UnavailableError
from bench.machine.environment import capture_environment
from bench.machine.gpu import gpu_in_use
from bench.machine.source import source_digest
from bench.machine.visible_gpus import VISIBLE, answer, opened_nvml, visible_gpus
from bench.measuring.hosts.launchers import Launched
from bench.paths import from_text
from bench.text import listed
from bench.worker.protocol import DataSource
from bench.workloads.specs import Device

_SHOWN = 12
"""Characters of a digest that messages show; more tell a reader nothing."""
_ABSENT = "none"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A rank as it introduces itself to rank 0."""

    rank: int
    ranks: int
    local_rank: int
    host: str
    address: str = ""
    """The address of its host, by which rank 0 and it reach each other."""
    interface: str | None = None
    """The network interface that has this address."""
    program: str
    """The commit of its checkout, if it has one, and the digest of its source code."""
    python: str
    versions: Mapping[str, str]
    """Of every distribution that a backend needs, by their names: `torch/numpy`."""
    device: str
    """The device that it trains on, with the model."""
    devices: tuple[str, ...]
    """The devices that it may use: the numbers of its CPUs, or the UUIDs of its GPUs."""
    variables: Mapping[str, str]
    """The environment variables that can change a figure."""
    data: Mapping[str, str] = {}
    """A digest of each data set that it has prepared."""

    def name(self) -> str:
        return f"rank {self.rank} on {self.host}"


def identify(launched: Launched, *, device: Device, versions: Mapping[str, Mapping[str, str]]) -> Identity:
    """Return who this process is.

    `versions` are those of the backends, on rank 0 of those that the run measures.
    """
    here = capture_environment(device)
    commit = f"commit {here.commit[:_SHOWN]}, " if here.commit else ""
    used = gpu_in_use() if device == "gpu" else None
    return Identity(
        rank=launched.rank,
        ranks=launched.ranks,
        local_rank=launched.local_rank,
        host=platform.node(),
        program=f"{commit}source {source_digest()[:_SHOWN]}",
        python=here.python,
        versions={
            f"{backend}/{name}": version
            for backend, found in versions.items()
            for name, version in found.items()
        },
        device=f"{device}, {used.name if used else here.cpu_model}",
        devices=_gpus() if device == "gpu" else _cpus(),
        variables={name: value for name, value in here.variables.items() if name != VISIBLE},
    )


def data_of(sources: Iterable[DataSource]) -> dict[str, str]:
    """Return a digest of each data set; raise DataError for one that is not there."""
    return {
        source.name: data_digest(source.name, None if source.cache is None else from_text(source.cache))[
            :_SHOWN
        ]
        for source in sources
    }


def _cpus() -> tuple[str, ...]:
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)  # not on macOS
    return tuple(map(str, sorted(affinity(0)) if affinity else range(os.cpu_count() or 1)))


def _gpus() -> tuple[str, ...]:
    with opened_nvml() as nvml:
        found = None if nvml is None else answer(lambda: visible_gpus(nvml, os.environ))
    return tuple(one.uuid for one in found or () if one.uuid)


def refuse_differences(ranks: Sequence[Identity]) -> None:
    """Raise UnavailableError if a rank differs from the first in what all ranks must have in common.

    The message names every host that differs, and both values. Versions and data sets that the first does
    not name are not used.
    """
    first = ranks[0]
    found = [said for other in ranks[1:] for said in _differences(first, other)]
    if found:
        raise UnavailableError(
            f"the ranks differ, and nothing was trained. {'; '.join(found)}. "
            "Install the same program, versions and data on all hosts, and ask for hosts of one kind."
        )


def _differences(first: Identity, other: Identity) -> Iterable[str]:
    for what in ("program", "python", "device"):
        mine, its = getattr(first, what), getattr(other, what)
        if mine != its:
            yield f"{what}: {other.name()} has {its}, and {first.name()} has {mine}"
    compared = (
        ("version of", first.versions, other.versions, {*first.versions}),
        ("variable", first.variables, other.variables, {*first.variables, *other.variables}),
        ("data set", first.data, other.data, {*first.data}),
    )
    for what, mine, its, names in compared:
        for name in sorted(names):
            if mine.get(name) != its.get(name):
                one, two = its.get(name, _ABSENT), mine.get(name, _ABSENT)
                yield f"{what} {name}: {other.name()} has {one}, and {first.name()} has {two}"


def assign_devices(ranks: Sequence[Identity], *, shared: bool = False) -> tuple[str, ...]:
    """Return a device for each rank, so that no two ranks of a host have the same.

    A launcher may let a rank use one device, or let all ranks of a host use all of them. Ranks with the
    fewest devices choose first, so a choice is found if the sets of two ranks are equal, disjoint, or one
    within the other. With `shared`, ranks that are left over share devices. Raises UnavailableError if there
    are fewer devices than ranks.
    """
    chosen: dict[int, str] = {}
    for rank in sorted(ranks, key=lambda one: (len(one.devices), one.local_rank)):
        taken = [chosen[one.rank] for one in ranks if one.host == rank.host and one.rank in chosen]
        free = [device for device in rank.devices if device not in taken]
        if not free and not (shared and rank.devices):
            alike = [one for one in ranks if one.host == rank.host]
            raise UnavailableError(
                f"{rank.host} has {len(alike)} ranks, and {rank.name()} may use {_counted(rank.devices)}. "
                "Each rank needs a device of its own."
            )
        chosen[rank.rank] = free[0] if free else min(rank.devices, key=taken.count)
    return tuple(chosen[one.rank] for one in ranks)


def _counted(devices: Sequence[str]) -> str:
    if not devices:
        return "no device"
    return f"{len(devices)} {'device' if len(devices) == 1 else 'devices'} ({listed(devices)})"
