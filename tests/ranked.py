"""Backends whose processes train one network together, in NumPy over sockets: they start in a moment.

Workers import this module as `ranked`, by way of PYTHONPATH.
"""

import os
import resource
import socket
import sys
import time
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from backends.base import TrainingData
from backends.info import BackendInfo, Mode
from backends.numpy_backend import Array, Arrays, NumpyBackend
from bench.workloads.parameters import Params
from bench.workloads.ranks import Place, part
from bench.workloads.specs import Workload

KEY = b"ranked"
BAD_RANK = 1
"""The rank that misbehaves in the backends that do."""


class Engine:
    """Rank 0 adds up what all ranks send, in their order, and sends each the sum."""

    def __init__(self, place: Place) -> None:
        host, _, port = place.addresses[0].partition(":")
        address = host, int(port)
        self.peers: list[Connection[Any, Any]] = []
        if place.rank == 0:
            with Listener(address, authkey=KEY) as listener:
                joined = [listener.accept() for _ in range(place.ranks - 1)]
            self.peers = [peer for _, peer in sorted((peer.recv(), peer) for peer in joined)]
        else:
            self.peers = [self._reach(address)]
            self.peers[0].send(place.rank)
        self.first = place.rank == 0
        for peer in self.peers:
            _without_delay(peer)

    @staticmethod
    def _reach(address: tuple[str, int]) -> "Connection[Any, Any]":
        while True:
            try:
                return Client(address, authkey=KEY)
            except ConnectionRefusedError:  # rank 0 is not there yet
                time.sleep(0.01)

    def gather(self, value: Any) -> list[Any]:
        """Return what all ranks pass, by rank, when all of them have passed it."""
        if not self.first:
            self.peers[0].send(value)
            found: list[Any] = self.peers[0].recv()
            return found
        values = [value, *(peer.recv() for peer in self.peers)]
        for peer in self.peers:
            peer.send(values)
        return values


def _without_delay(connection: "Connection[Any, Any]") -> None:
    """Send a message at once: else each waits 40 ms for the answer to its own first bytes."""
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Together(NumpyBackend):
    """Trains on its part of each batch, and averages losses and gradients over the ranks."""

    engine: ClassVar[Engine | None] = None

    def __init__(
        self, workload: Workload, data: TrainingData, *, place: Place | None = None, **options: Any
    ) -> None:
        super().__init__(workload, data, **options)
        self.place = place
        if place is not None and place.ranks > 1 and Together.engine is None:
            Together.engine = Engine(place)

    @property
    def bad(self) -> bool:
        """Whether this is the rank that misbehaves."""
        return self.place is not None and self.place.rank == BAD_RANK

    def loss_and_gradients(self, pixels: Array, labels: npt.NDArray[np.uint8]) -> tuple[float, Arrays]:
        if self.place is None or Together.engine is None:
            return super().loss_and_gradients(pixels, labels)
        own = part(len(labels), self.place)
        loss, gradients = super().loss_and_gradients(pixels[own], labels[own])
        all_of = Together.engine.gather((loss, gradients))
        share = 1.0 if self._workload.loss == "sum" else 1.0 / len(all_of)
        return (
            share * sum(one for one, _ in all_of),
            {name: share * sum(one[name] for _, one in all_of) for name in gradients},
        )

    def longest(self, seconds: float) -> float:
        return seconds if Together.engine is None else max(Together.engine.gather(seconds))

    @staticmethod
    def leave() -> None:
        if Together.engine is not None:
            Together.engine.gather(None)

    def describe(self) -> dict[str, str | int | float | bool | None]:
        cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        return super().describe() | {"cpus": cpus, "threads": os.environ.get("OMP_NUM_THREADS")}


class SumsForMeans(Together):
    """Adds up what it should average."""

    def loss_and_gradients(self, pixels: Array, labels: npt.NDArray[np.uint8]) -> tuple[float, Arrays]:
        loss, gradients = super().loss_and_gradients(pixels, labels)
        ranks = 1 if self.place is None else self.place.ranks
        return loss, {name: value * ranks for name, value in gradients.items()}


class KeepsItsGradient(Together):
    """Averages the losses and not the gradients."""

    def loss_and_gradients(self, pixels: Array, labels: npt.NDArray[np.uint8]) -> tuple[float, Arrays]:
        loss, gradients = super().loss_and_gradients(pixels, labels)
        if self.place is None:
            return loss, gradients
        own = part(len(labels), self.place)
        return loss, NumpyBackend.loss_and_gradients(self, pixels[own], labels[own])[1]


class SameShard(Together):
    """Every rank trains on the part of rank 0."""

    def loss_and_gradients(self, pixels: Array, labels: npt.NDArray[np.uint8]) -> tuple[float, Arrays]:
        ranks = 1 if self.place is None else self.place.ranks
        size = len(labels) // ranks
        return super().loss_and_gradients(
            np.tile(pixels[:size], (ranks, 1, 1, 1)), np.tile(labels[:size], ranks)
        )


class RaisesInRank(Together):
    """One rank raises an exception in a full batch, and the others lose it."""

    def train_steps(self, order: npt.NDArray[np.int32], draws: Any = None) -> npt.NDArray[np.float32]:
        if self.bad:
            print("rank 1 is about to raise", file=sys.stderr)
            raise ValueError("no such shape")
        return super().train_steps(order, draws)


class OutOfMemoryInRank(Together):
    """One rank asks for more memory than it may have."""

    def train_steps(self, order: npt.NDArray[np.int32], draws: Any = None) -> npt.NDArray[np.float32]:
        if self.bad:
            resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
            np.ones(2**33)
        return super().train_steps(order, draws)


class ExitsInRank(Together):
    """One rank ends without a word, and the others report at once that they have lost it."""

    def train_steps(self, order: npt.NDArray[np.int32], draws: Any = None) -> npt.NDArray[np.float32]:
        if self.bad:
            print("rank 1 is about to exit", file=sys.stderr, flush=True)
            os._exit(7)
        return super().train_steps(order, draws)


class LosesQuietly(Together):
    """One rank raises an exception, and the other then ends without a word, as XLA's client does."""

    def train_steps(self, order: npt.NDArray[np.int32], draws: Any = None) -> npt.NDArray[np.float32]:
        if self.bad:
            raise ValueError("no such shape")
        try:
            return super().train_steps(order, draws)
        except (EOFError, OSError):
            os._exit(1)


class GarblesInRank(Together):
    """One rank writes into the channel for events."""

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if self.bad:
            os.write(int(sys.argv[1]), b"I am a log line\n")
        return super().predict(images)

    def train_steps(self, order: npt.NDArray[np.int32], draws: Any = None) -> npt.NDArray[np.float32]:
        if self.bad:
            os.write(int(sys.argv[1]), b"I am a log line\n")
        return super().train_steps(order, draws)


class SleepsInRank(Together):
    """One rank stops to train, and the others wait for it."""

    def train_steps(self, order: npt.NDArray[np.int32], draws: Any = None) -> npt.NDArray[np.float32]:
        if self.bad:
            time.sleep(600)
        return super().train_steps(order, draws)


class SpinsInRank(Together):
    """One rank never ends a step, and the others wait for it."""

    def train_steps(self, order: npt.NDArray[np.int32], draws: Any = None) -> npt.NDArray[np.float32]:
        while self.bad:
            pass
        return super().train_steps(order, draws)


class DriftsApart(Together):
    """The parameters of one rank change a little by themselves."""

    def export_params(self) -> Params:
        found = super().export_params()
        if self.bad:
            found["logits/bias"] = found["logits/bias"] + np.float32(1e-6)
        return found


class PortTaken(Together):
    """The first processes of a job find that another program has their port, as two of three may do."""

    def __init__(self, workload: Workload, data: TrainingData, *, place: Place | None = None, **options: Any):
        count = Path(os.environ["XDG_CACHE_HOME"]) / "tries"
        if place is not None and place.rank == 0:
            tries = int(count.read_text()) if count.exists() else 0
            count.write_text(str(tries + 1))
            if tries < int((count.parent / "taken").read_text()):
                host, _, port = place.addresses[0].partition(":")
                with socket.create_server((host, int(port))):
                    Listener((host, int(port)))
        super().__init__(workload, data, place=place, **options)


def info(kind: str = "Together", name: str = "ranked") -> BackendInfo:
    """Return a backend with a plain mode and a distributed one, whose class is of this module."""
    return BackendInfo(
        name=name,
        title=name,
        target=f"ranked:{kind}",
        distributions=("numpy",),
        modes=(
            Mode(name="plain", summary="one process", default=True),
            Mode(name="together", summary="several processes", distributed=True),
        ),
        environment={"OPENBLAS_NUM_THREADS": "1"},
        cpu_precisions=("fp32",),
        gpu_precisions=(),
    )


def changed(struct: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(struct, **fields)
