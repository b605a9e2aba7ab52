"""What a command does with a launcher: rank 0 gathers the others and goes on, and the others follow."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from rich.console import Console

from bench.datasets import cache as datasets
from bench.errors import UsageError
from bench.machine.visible_gpus import show_gpus
from bench.measuring.backends import find_backends, installed_versions
from bench.measuring.data import Split
from bench.measuring.hosts.channel import Meeting, key_of
from bench.measuring.hosts.follower import Follower, follow
from bench.measuring.hosts.gathering import WAIT, WAIT_S, gather
from bench.measuring.hosts.identity import data_of, identify
from bench.measuring.hosts.launchers import KEY, Launched, launched
from bench.measuring.hosts.remote import Followers
from bench.measuring.ranks.slots import Slot, local_slots
from bench.measuring.selection import Available, choose_device
from bench.paths import from_text
from bench.progress import DownloadProgress, Lines, Teller
from bench.worker.protocol import DataSource
from bench.workloads.specs import Device


def started_with_others() -> Launched | None:
    """Return what the launcher says; None if none has started this process, or it alone.

    Raises UsageError as `launched` does.
    """
    found = launched(os.environ)
    return found if found is not None and found.ranks > 1 else None


def asked_ranks(asked: tuple[int, ...], found: Launched | None, *, alone: bool) -> tuple[int, ...]:
    """Return the numbers of ranks that the user asks for, else all that a launcher has started.

    With `alone`, one rank comes before all of them.
    """
    if asked or found is None:
        return asked
    return (1, found.ranks) if alone else (found.ranks,)


def follow_rank_0(
    found: Launched, *, device: str, pythons: Mapping[str, Path], cache: Path, offline: bool, console: Console
) -> None:
    """Work for rank 0 until it dismisses this rank; `cache` is the folder of the data sets on this host.

    Raises UnavailableError if rank 0 is not found in time, is lost, or ends with an error.
    """
    registry = find_backends()
    chosen = choose_device(device, ranks=True)
    infos = list(registry.backends.values())
    versions = {name: own for name, (own, _) in installed_versions(infos, pythons).items()}

    def prepare(sources: tuple[DataSource, ...]) -> Mapping[str, str]:
        for source in sources:
            if source.cache is not None:
                folder = from_text(source.cache)
                progress = DownloadProgress(display)
                datasets.fetch(source.name, cache=folder, offline=offline, progress=progress)
        return data_of(sources)

    with Lines(console) as display:
        follower = Follower(
            identity=identify(found, device=chosen, versions=versions),
            infos=registry.backends,
            pythons=pythons,
            cache=cache,
            prepare=prepare,
            say=display.say,
        )
        follow(follower, found, _key(found), os.environ, limit_s=_wait_s())


class Hosts:
    """Where the ranks of a run are: on this host, or wherever a launcher has started them.

    A context, which dismisses the ranks that a launcher has started.
    """

    def __init__(self, found: Launched | None = None, console: Console | None = None) -> None:
        """`found` is the place that a launcher gave this process, rank 0; None: none started it.

        Progress goes to `console`.
        """
        self._found, self._console = found, console or Console(stderr=True)
        self._followers: Followers | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._followers is not None:
            self._followers.finish(error)

    @property
    def dealt(self) -> bool:
        """Whether a launcher has given the ranks their devices."""
        return self._found is not None

    def dismiss(self, why: str) -> None:
        """Tell the ranks that the run is over before its end, and why."""
        if self._followers is not None:
            self._followers.dismiss(why)

    def slots(
        self,
        device: Device,
        count: int,
        available: Available,
        devices: Sequence[int | str] = (),
        *,
        shared: bool = False,
    ) -> tuple[Slot, ...]:
        """Return so many slots. With a launcher, this waits until all ranks have come.

        `devices` are those that the user names, and with `shared`, ranks may share a CPU. Raises UsageError
        or UnavailableError if there are too few devices or ranks, if ranks do not come in time, or if they
        differ.
        """
        if self._found is None:
            return local_slots(device, count, devices, shared=shared)
        if devices:
            named = ",".join(map(str, devices))
            raise UsageError(
                f"--devices {named}: {self._found.launcher} has started the ranks and gives each its devices."
            )
        if self._followers is None:
            self._followers = self._gather(self._found, device, available)
        slots = self._followers.slots(count, shared=shared)
        if slots[0].gpu is not None:
            show_gpus((slots[0].gpu,), 1)
        return slots

    def prepare(self, splits: Mapping[str, Split], display: Teller) -> None:
        """Let all ranks prepare the data that this one has. Raises UnavailableError if theirs are others."""
        if self._followers is not None:
            sources = {split.source.name: split.source for split in splits.values()}
            self._followers.prepare(tuple(sources.values()), data_of(sources.values()), display)

    def _gather(self, found: Launched, device: Device, available: Available) -> Followers:
        versions = {
            name: own for name, own in available.versions.items() if name not in available.unavailable
        }
        own = identify(found, device=device, versions=versions)
        with Lines(self._console) as display:
            return gather(
                own, Meeting(found, _key(found)), display, os.environ,
                one_host=found.one_host, limit_s=_wait_s(),
            )  # fmt: skip


def _key(found: Launched) -> bytes:
    return key_of(found, os.environ.get(KEY))


def _wait_s() -> float:
    text = os.environ.get(WAIT)
    try:
        seconds = WAIT_S if text is None else float(text)
    except ValueError:
        seconds = float("nan")
    if not 1 <= seconds <= 86400:  # also false for NaN
        raise UsageError(f"{WAIT}={text!r} is not a number of seconds from 1 to 86400.")
    return seconds
