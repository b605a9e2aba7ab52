"""Backends that misbehave, each in one way of its own, and what the tests of the harness share.

Workers import this module as `fakes`, by way of PYTHONPATH, so it imports no more than they have anyway.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt

from backends.base import State, TrainingData
from backends.info import BackendInfo, LessonsInfo, Mode
from backends.numpy_backend import NumpyBackend
from bench.datasets import cache as datasets
from bench.errors import UnavailableError
from bench.records.schema import JobSpec
from bench.run.plan import Preset
from bench.worker.protocol import DataSource, MeasureTask
from bench.worker.timed_loop import Batches
from bench.workloads.catalog import find_workload
from bench.workloads.instruments import Peak
from bench.workloads.parameters import initial_params
from bench.workloads.specs import Cell

TESTS = Path(__file__).parent
WORKLOAD = "mnist-softmax"
STEP_S = 0.010
"""A step takes this long whatever the machine does, so that a window's rate is steady."""
PARITY_BATCH = 8
END_AT = "FAKE_END_AT"
Facts = dict[str, str | int | float | bool | None]
Losses = npt.NDArray[np.float32]


def wait_until(end: float) -> None:
    """Wait for a time of the performance counter; a sleep alone comes back too late for a steady rate."""
    time.sleep(max(0.0, end - time.perf_counter() - 0.002))
    while time.perf_counter() < end:
        pass


class Steady(NumpyBackend):
    """Trains as the reference does, at an even pace."""

    _pace_s = STEP_S

    def train_steps(self, order: npt.NDArray[np.int32]) -> Losses:
        end = time.perf_counter() + self._pace_s * len(order)
        losses = super().train_steps(order)
        wait_until(end)
        return losses

    def peak(self) -> Peak:
        """Figures for the asking: to measure them takes seconds."""
        return Peak(flops_per_s=1e10, bytes_per_s=1e10)


class Quick(Steady):
    """The same at twice the pace."""

    _pace_s = STEP_S / 2


class Exits(Steady):
    """Learns for a while, so that there are events to keep, then ends the process without a word."""

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        print("about to exit", file=sys.stderr, flush=True)
        os._exit(7)


class Segfaults(Steady):
    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        print("about to fault", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError("the signal ends the process")


class Hangs(Steady):
    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        time.sleep(600)
        raise AssertionError("nobody waits that long")


class ExitsInTraining(Steady):
    """Passes parity, and ends the process in its first full batch."""

    def train_steps(self, order: npt.NDArray[np.int32]) -> Losses:
        if order.shape[1] > PARITY_BATCH:
            os._exit(7)
        return super().train_steps(order)


class HangsInTraining(Steady):
    """Passes parity, and hangs in its first full batch."""

    def train_steps(self, order: npt.NDArray[np.int32]) -> Losses:
        if order.shape[1] > PARITY_BATCH:
            time.sleep(600)
        return super().train_steps(order)


class WrongInTraining(Steady):
    """Passes parity, and drops a gradient in full batches."""

    def loss_and_gradients(self, pixels: Any, labels: Any) -> Any:
        loss, gradients = super().loss_and_gradients(pixels, labels)
        if len(labels) > PARITY_BATCH:
            gradients["logits/bias"] *= 0
        return loss, gradients


class OutOfMemory(Steady):
    def train_steps(self, order: npt.NDArray[np.int32]) -> Losses:
        raise MemoryError("no room for 9 GiB")


class OutOfDeviceMemory(Steady):
    def train_steps(self, order: npt.NDArray[np.int32]) -> Losses:
        raise RuntimeError("RESOURCE_EXHAUSTED: no room\nfor 9 GiB on the device")


class Raises(Steady):
    def train_steps(self, order: npt.NDArray[np.int32]) -> Losses:
        raise ValueError("shapes \x1b[31m(3,)\x1b[0m and (4,)\nnot aligned")


class LosesNumbers(Steady):
    def train_steps(self, order: npt.NDArray[np.int32]) -> Losses:
        losses = super().train_steps(order)
        losses[-1] = np.nan
        return losses


class Elsewhere(Steady):
    """Asked for the CPU, it runs on a GPU, and says so."""

    def describe(self) -> Facts:
        return super().describe() | {"device": "gpu"}


class Loud(Steady):
    """Prints more than any pipe holds, to both outputs, before and after it trains."""

    def train_steps(self, order: npt.NDArray[np.int32]) -> Losses:
        for stream in (sys.stdout, sys.stderr):
            stream.write('{"event":"done"}\n' * 60_000)
        return super().train_steps(order)


class Clings(Steady):
    """Leaves a helper behind that holds every descriptor open, the channel for events among them."""

    def load_params(self, params: Any) -> None:
        super().load_params(params)
        if not hasattr(self, "_helper"):
            self._helper = os.fork()
            if self._helper == 0:
                time.sleep(600)
                os._exit(0)

    def describe(self) -> Facts:
        return super().describe() | {"helper": getattr(self, "_helper", None)}


class Litters(Steady):
    """Leaves a temporary file, as a framework does that meant to remove it at exit."""

    def describe(self) -> Facts:
        file, path = tempfile.mkstemp()
        os.close(file)
        return super().describe() | {"left": path}


class Drifts(Steady):
    """Every call is 3 % slower than the one before."""

    def train_steps(self, order: npt.NDArray[np.int32]) -> Losses:
        self._pace_s *= 1.03
        return super().train_steps(order)


class DriftsOnce(Drifts):
    """The first process of those that share a folder for caches does so, once it has passed parity."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._marker = Path(os.environ["XDG_CACHE_HOME"]) / "drifted"
        self._drifts = not self._marker.exists()

    def train_steps(self, order: npt.NDArray[np.int32]) -> Losses:
        if not self._drifts or order.shape[1] <= PARITY_BATCH:
            return Steady.train_steps(self, order)
        self._marker.touch()
        return super().train_steps(order)


class Incomplete:
    """Keeps half of the contract."""

    def load_params(self, params: Any) -> None: ...
    def train_steps(self, order: Any) -> Any: ...
    def predict(self, images: Any) -> Any: ...


class OnGpu(Steady):
    """Plays a framework on a GPU: computes on the CPU, and says that it runs where it was asked to."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options | {"device": "cpu"})
        self._asked = options["device"]

    def describe(self) -> Facts:
        return super().describe() | {"device": self._asked}


class NotHere(Steady):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise UnavailableError("its driver is too old: 1.2, it needs 3.4")


class Lingers(Steady):
    """Does all it is asked, but a thread of it keeps the process from ending."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        threading.Thread(target=time.sleep, args=(600,)).start()


class Garbles(Steady):
    """Writes into the channel for events, as a library might that mistakes a descriptor for its own."""

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        os.write(int(sys.argv[1]), b"I am a log line\n")
        return super().predict(images)


class Tells(Steady):
    """Says what it finds in its environment."""

    def describe(self) -> Facts:
        names = (
            "SAMEWORK_SECRET", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "FAKE_CACHE", "FAKE_ON_CPU",
            "TORCH_LOGS", "TORCH_TOKEN",
        )  # fmt: skip
        told = {name: os.environ.get(name) for name in names} | {"group": os.getpgrp()}
        return super().describe() | told | {"padding": len(os.environ.get("SAMEWORK_PADDING", ""))}


class AsksAChild(Steady):
    """Starts an interpreter, as a framework does that compiles in processes of its own."""

    def describe(self) -> Facts:
        command = [sys.executable, "-c", "import json, numpy, typing, bench, backends"]
        done = subprocess.run(command, check=False, capture_output=True)
        return super().describe() | {"child": str(done.returncode)}


class EndsBadly(Steady):
    """Computes what it should, and crashes when asked a second time what it is."""

    _asked = 0

    def describe(self) -> Facts:
        self._asked += 1
        if self._asked > 1:
            os._exit(9)
        return super().describe()


class Wrong(Steady):
    """Says it runs where it was asked to, and computes something else."""

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return super().predict(images) * np.float32(1.01)


class NanLogits(Steady):
    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return super().predict(images) * np.float32(np.nan)


class EndsAt(NumpyBackend):
    """Trains as the reference does, and ends the process before the step that a variable names."""

    def train_steps(self, order: npt.NDArray[np.int32], draws: Any = None) -> Losses:
        last = int(os.environ.get(END_AT, sys.maxsize))
        done = super().train_steps(order[: max(0, last - self._step)], draws)
        if len(done) < len(order):
            print("no further", file=sys.stderr, flush=True)
            os._exit(7)
        return done


class Forgetful(NumpyBackend):
    """Takes up parameters and the step count, and starts its optimizer anew."""

    def restore_state(self, state: State) -> None:
        super().restore_state({name: value for name, value in state.items() if not name.startswith("slot/")})


SLOW_FACTOR = 3
"""How many times as long the slow ways of `GivesLessons` take."""


class GivesLessons:
    """Keeps the contract of `backends.lessons`: a step takes a fixed time, the slow ways thrice as long.

    It refuses a wrong shape and a label out of range, and trains on whatever else is wrong.
    """

    def __init__(self, data: TrainingData, *, device: str) -> None:
        self._images = data.images

    def device(self) -> str:
        return "cpu"

    def batch_by_batch(self, steps: int, batch_size: int) -> None:
        time.sleep(steps * (0.001 + 1e-5 * batch_size))

    compiled = batch_by_batch

    def sample_by_sample(self, steps: int, batch_size: int) -> None:
        for _ in range(SLOW_FACTOR):
            self.batch_by_batch(steps, batch_size)

    def not_compiled(self, steps: int, batch_size: int) -> None:
        self.sample_by_sample(steps, batch_size)

    def loss_every_step(self, steps: int, batch_size: int) -> None:
        self.batch_by_batch(steps, batch_size)

    def step_on(self, images: npt.NDArray[Any], labels: npt.NDArray[np.uint8]) -> float:
        if images.shape[1:] != self._images.shape[1:]:
            raise ValueError(f"in {TESTS.parent}:\n  {images.shape[1:]} does not fit\x1b[31m </SCRIPT>")
        if labels.max() > 9:
            raise IndexError(f"first{'x' * 9000}last")
        return float(images.mean())

    def checked_step_on(self, images: npt.NDArray[Any], labels: npt.NDArray[np.uint8]) -> float:
        if not np.isfinite(images).all():
            raise FloatingPointError("nan")
        return self.step_on(images, labels)


class FailsInOneLesson(GivesLessons):
    def loss_every_step(self, steps: int, batch_size: int) -> None:
        raise MemoryError("no room")


class ExitsInALesson(GivesLessons):
    """Ends the process in the third lesson."""

    def loss_every_step(self, steps: int, batch_size: int) -> None:
        os._exit(7)


class HangsInALesson(GivesLessons):
    def loss_every_step(self, steps: int, batch_size: int) -> None:
        time.sleep(600)


class LessonsElsewhere(GivesLessons):
    def device(self) -> str:
        return "gpu"


class RefusesRightBatches(GivesLessons):
    def step_on(self, images: npt.NDArray[Any], labels: npt.NDArray[np.uint8]) -> float:
        raise RuntimeError("no batch is right")


class HalfLessons:
    """Keeps half of the contract."""

    def __init__(self, data: TrainingData, *, device: str) -> None:
        """Take anything."""

    def device(self) -> str:
        return "cpu"


def info(name: str, target: str, **changes: Any) -> BackendInfo:
    fields: dict[str, Any] = {
        "name": name,
        "title": name.title(),
        "target": target,
        "distributions": ("numpy",),
        "modes": (Mode(name="only", summary="the only one", default=True),),
        "cpu_precisions": ("fp32",),
        "gpu_precisions": (),
        "environment": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},  # else threads fight over CPUs
    }
    return BackendInfo(**fields | changes)


def with_lessons(kind: str, name: str = "teaches") -> BackendInfo:
    """Return a backend whose lessons are given by a class of this module."""
    lessons = LessonsInfo(target=f"fakes:{kind}", network="GivesLessons", step="wait_until")
    return info(name, "fakes:Steady", lessons=lessons)


STEADY = info("steady", "fakes:Steady")
QUICK = info("quick", "fakes:Quick")
EXITS = info("exits", "fakes:Exits")
HANGS = info("hangs", "fakes:Hangs")
RAISES = info("raises", "fakes:Raises")
WRONG = info("wrong", "fakes:Wrong")
ABSENT = info("absent", "no_such_framework:Backend", distributions=("no-such-framework|no-such-twin",))

TINY = Preset(
    name="quick", summary="as small as can be", budget_s=60, modes="default", min_blocks=2, windows=5,
    window_s=0.04, epochs=1, least_epochs=1, seeds=1, target_half_width=1e6,
    fewest_to_stop=2,
)  # fmt: skip


def task_for(backend: BackendInfo, *, epochs: float = 0.2, limit: int = 500, windows: int = 5) -> MeasureTask:
    """Return a small job of a backend on the shipped sample."""
    cell = Cell(workload=WORKLOAD, backend=backend.name, mode="only", device="cpu", precision="fp32")
    spec = JobSpec(
        job_id="test", cell=cell, workload=find_workload(WORKLOAD), seed=3, block=0, position=0, hash_seed=1,
        windows=windows, window_s=0.04, epochs=epochs, time_limit_s=60,
    )  # fmt: skip
    return MeasureTask(backend=backend, data=DataSource(name="mnist", cache=None, limit=limit), spec=spec)


def backend_on_sample(**changes: Any) -> tuple[NumpyBackend, Batches, datasets.Dataset]:
    sample = datasets.load_sample("mnist", 400)
    workload = msgspec.structs.replace(find_workload(WORKLOAD), **changes)
    data = TrainingData(info=sample.info, images=sample.train_images, labels=sample.train_labels)
    backend = NumpyBackend(workload, data, mode="float64", device="cpu", precision="fp32")
    backend.load_params(initial_params(workload.architecture, sample.info, seed=5))
    return backend, Batches(workload, data, seed=5), sample


class Screen:
    """A display that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.overalls: list[tuple[str, float, float | None]] = []
        self.jobs: list[tuple[str, float | None]] = []
        self.tables: list[list[Any]] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def detail(self, text: str) -> None:
        self.lines.append(text)

    def rows(self, rows: Sequence[Any]) -> None:
        self.tables.append(list(rows))

    def overall(self, text: str, done: float, left_s: float | None) -> None:
        self.overalls.append((text, done, left_s))

    def job(self, text: str, done: float | None) -> None:
        self.jobs.append((text, done))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def distribution(folder: Path, entries: Mapping[str, str], *, name: str = "fakes") -> Path:
    """Put an installed distribution with these entry points in a folder, for sys.path or PYTHONPATH."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{name} = {target}" for name, target in entries.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[bench.backends]", *lines, ""]))
    return folder


def python_path(*folders: Path) -> str:
    """Return a PYTHONPATH on which this module, the checkout and these folders are found."""
    return os.pathsep.join(map(str, (*folders, TESTS, TESTS.parent)))


def program(path: Path, lines: Sequence[str]) -> Path:
    """Write an executable shell script."""
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def whole_mnist(folder: Path) -> Path:
    """Put the sample into a cache folder, over and over, as if it were the whole of MNIST."""
    sample = datasets.load_sample("mnist")
    (folder / "mnist").mkdir(parents=True)
    for split, images in (("train", 60_000), ("test", 10_000)):
        for kind in ("images", "labels"):
            array = getattr(sample, f"{split}_{kind}")
            np.save(folder / "mnist" / f"{split}_{kind}.npy", np.resize(array, (images, *array.shape[1:])))
    return folder
