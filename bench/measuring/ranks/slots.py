"""Where the ranks of a job run: each has a slot, which is one core or one GPU, of this host or another."""

import os
import platform
import socket
from collections.abc import Sequence
from typing import Protocol

import msgspec
import psutil

from bench.errors import UnavailableError, UsageError
from bench.machine.environment import usable_cpus
from bench.machine.visible_gpus import show_gpus
from bench.measuring.link import Launch, Link, LocalLink
from bench.workloads.specs import Device

LOOPBACK = "127.0.0.1"


class Slot(Protocol):
    """A place for one rank of every job. Rank 0 has the first slot of a run, rank 1 the second."""

    @property
    def host(self) -> str:
        """The name of its host. Ranks of one host are numbered among themselves, too."""

    @property
    def cpus(self) -> tuple[int, ...]:
        """The CPUs that a worker is pinned to; none on a GPU."""

    @property
    def gpu(self) -> str | None:
        """What CUDA_VISIBLE_DEVICES is for a worker: the UUID of one GPU; None on the CPU."""

    @property
    def interface(self) -> str | None:
        """The network interface by which the ranks reach each other; None: the framework's choice."""

    def address(self) -> str:
        """Return `HOST:PORT` at which nothing listens at the moment, and which all other slots reach."""

    def start(self, launch: Launch) -> Link:
        """Start a worker."""


class LocalSlot(msgspec.Struct, frozen=True, kw_only=True):
    """A slot of this host."""

    host: str
    cpus: tuple[int, ...] = ()
    gpu: str | None = None
    interface: str | None = None
    at: str = LOOPBACK
    """The address of this host at which ranks meet; no other host reaches the loopback."""

    def address(self) -> str:
        return f"{self.at}:{free_port(self.at)}"

    def start(self, launch: Launch) -> Link:
        return LocalLink(launch)


def free_port(address: str) -> int:
    """Return a port at which nothing listens at the moment, at an address of this host."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def device_of(slot: Slot) -> str:
    """Return the name of a slot's device in records: `CPU 1`, or the UUID of a GPU."""
    return slot.gpu or ", ".join(f"CPU {cpu}" for cpu in slot.cpus) or "not pinned"


def device_number(slot: Slot) -> int | str:
    """Return the number of a slot's CPU, or the UUID of its GPU."""
    return slot.gpu or slot.cpus[0]


def hosts_of(slots: Sequence[Slot]) -> tuple[str, ...]:
    """Return the hosts of slots; none if all are on this host."""
    hosts = tuple(slot.host for slot in slots)
    return hosts if set(hosts) - {platform.node()} else ()


def sharing(slots: Sequence[Slot]) -> int:
    """Return how many of the slots have the same device, at most; 1 if each has its own, or there is none."""
    devices = [(slot.host, slot.cpus, slot.gpu) for slot in slots]
    return max((devices.count(device) for device in devices), default=1)


def local_slots(
    device: Device, count: int, asked: Sequence[int | str] = (), *, shared: bool = False
) -> tuple[LocalSlot, ...]:
    """Return so many slots of this host.

    `asked` are the numbers of CPUs, or numbers or UUIDs of visible GPUs, in the order of the ranks; by
    default the first ones that this process may use. On GPUs, from here on CUDA_VISIBLE_DEVICES shows this
    process only those of the slots. With `shared`, several ranks may have the same CPU, which is right where
    nothing is timed. Raises UsageError or UnavailableError if there are too few devices, or not those asked.
    """
    if len(set(asked)) < len(asked):
        raise UsageError(f"--devices {_listed(asked)}: a device can be named only once.")
    host, interface = platform.node(), interface_of(LOOPBACK)
    if device == "gpu":
        uuids = show_gpus(asked, count)
        return tuple(LocalSlot(host=host, gpu=uuid, interface=interface) for uuid in uuids)
    cpus = _cpus(asked)
    if len(cpus) < count and not shared:
        raise UnavailableError(f"--ranks {count}: {_there_are(cpus, asked)}, and every rank needs its own.")
    return tuple(
        LocalSlot(host=host, cpus=(cpus[rank % len(cpus)],), interface=interface) for rank in range(count)
    )


def _cpus(asked: Sequence[int | str]) -> list[int]:
    """Return the CPUs for ranks: those asked for, or as many of the first as this process may keep busy."""
    if not hasattr(os, "sched_setaffinity"):
        raise UnavailableError("--ranks: this system cannot pin a process to a CPU core; Linux can.")
    allowed = sorted(os.sched_getaffinity(0))
    for cpu in asked:
        if cpu not in allowed:
            raise UnavailableError(
                f"--devices {cpu}: this process may not run on that CPU; it may use {_listed(allowed)}."
            )
    return [cpu for cpu in asked if isinstance(cpu, int)] or allowed[: usable_cpus()]


def _there_are(cpus: Sequence[int], asked: Sequence[int | str]) -> str:
    many = f"{len(cpus)} CPU core{'' if len(cpus) == 1 else 's'}"
    return f"--devices names {many}" if asked else f"this process may use {many}"


def _listed(values: Sequence[object]) -> str:
    return ",".join(map(str, values))


def interface_of(address: str) -> str | None:
    """Return the name of the network interface that has an address, such as `lo`; None if none has it."""
    return next(
        (
            name
            for name, addresses in psutil.net_if_addrs().items()
            if any(one.address == address for one in addresses)
        ),
        None,
    )
