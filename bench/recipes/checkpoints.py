"""The files of a training run: its checkpoints, of which the newest two are kept, and the trained model.

Both are safetensors (https://huggingface.co/docs/safetensors): names, dtypes and shapes in JSON, then the raw
bytes. A checkpoint holds the state of a backend, which only that backend understands. A model holds
parameters under their canonical names and in canonical layout.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from backends.base import State
from bench import store
from bench.datasets.catalog import DATASETS
from bench.errors import RecordError, UsageError, WriteError
from bench.paths import refusal
from bench.recipes.records import CHECKPOINTS
from bench.workloads.parameters import Params
from bench.workloads.specs import Cell, Workload

KEPT = 2
_ABOUT, _DIGEST = "samework", "sha256"
"""Keys in the metadata of safetensors: the description of the file in JSON, and a digest of it and of
the tensors, as safetensors itself has no checksum."""
_STATE, _LOSSES = "state/", "losses"


class AboutCheckpoint(msgspec.Struct, frozen=True, kw_only=True, tag="checkpoint", tag_field="kind"):
    """The description of a checkpoint."""

    step: int
    train_s: float


class AboutModel(msgspec.Struct, frozen=True, kw_only=True, tag="model", tag_field="kind"):
    """The description of a model: its origin, and all that its evaluation needs."""

    step: int
    workload: Workload
    cell: Cell
    seed: int


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A trained network, as read from its file."""

    path: Path
    about: AboutModel
    params: Params


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A point from which a training run can continue, as read from its file."""

    path: Path
    about: AboutCheckpoint
    state: State
    losses: npt.NDArray[np.float32]
    """The losses of the steps since the last figure, shape (steps,)."""


def save_checkpoint(
    folder: Path, state: State, *, step: int, train_s: float, losses: npt.NDArray[np.float32]
) -> None:
    """Write a checkpoint, then delete all but the newest two.

    Raises RecordError if it cannot be written; the older checkpoints are kept then, as after a crash.
    """
    tensors = {f"{_STATE}{name}": value for name, value in state.items()} | {_LOSSES: losses}
    about = AboutCheckpoint(step=step, train_s=train_s)
    _write(folder / CHECKPOINTS / f"step-{step}.safetensors", tensors, about)
    for old in checkpoint_files(folder)[KEPT:]:
        old.unlink(missing_ok=True)


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the checkpoints of a training run, the newest first."""
    paths = folder.glob(f"{CHECKPOINTS}/step-*.safetensors")
    return sorted((path for path in paths if step_of(path) >= 0), key=step_of, reverse=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; raise RecordError if the file is missing, damaged or something else."""
    about, tensors = _read(path, AboutCheckpoint)
    state = {name.removeprefix(_STATE): value for name, value in tensors.items() if name.startswith(_STATE)}
    return Checkpoint(path=path, about=about, state=state, losses=tensors[_LOSSES])


def newest_checkpoint(folder: Path, before: int) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """Return the newest readable checkpoint before a step, and why each newer file cannot be read."""
    faults: list[str] = []
    for path in checkpoint_files(folder):
        try:
            found = load_checkpoint(path)
        except RecordError as error:
            faults.append(str(error))
            continue
        if found.about.step < before:
            return found, tuple(faults)
    return None, tuple(faults)


def save_model(path: Path, params: Params, *, step: int, workload: Workload, cell: Cell, seed: int) -> None:
    """Write a model; a reader never sees half of it. Raises RecordError if it cannot be written."""
    about = AboutModel(step=step, workload=workload, cell=cell, seed=seed)
    _write(path, params, about)


def load_model(path: Path) -> Model:
    """Read a model; raise UsageError if there is no such file, RecordError if it is damaged or no model."""
    if not path.is_file():
        raise UsageError(f"there is no model {path}. (bench train makes one)")
    about, params = _read(path, AboutModel)
    workload = about.workload
    if workload.dataset not in DATASETS:
        raise RecordError(f"{path} was trained on an unknown data set, {workload.dataset!r}.")
    shapes = workload.architecture.parameter_shapes(workload.seen(DATASETS[workload.dataset].info))
    if shapes != {name: value.shape for name, value in params.items()}:
        raise RecordError(f"{path} does not hold the parameters of the network that it names.")
    return Model(path=path, about=about, params={name: params[name] for name in shapes})


def model_name(recipe: str, step: int) -> str:
    return f"{recipe}-step-{step}.safetensors"


def find_model(path: Path) -> Path:
    """Return the newest model in the folder of a training run, or the path itself if it is not a folder."""
    if not path.is_dir():
        return path
    found = sorted(path.glob("*-step-*.safetensors"), key=step_of)
    if not found:
        raise UsageError(f"{path} holds no model: its training has not ended.")
    return found[-1]


def step_of(path: Path) -> int:
    """Return the step in the name of a checkpoint or model, or -1 if the name has none."""
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _write(path: Path, tensors: Mapping[str, npt.NDArray[Any]], about: msgspec.Struct) -> None:
    whole = {name: np.ascontiguousarray(value).reshape(np.shape(value)) for name, value in tensors.items()}
    description = msgspec.json.encode(about).decode()
    content = save(whole, metadata={_ABOUT: description, _DIGEST: _digest(whole, description)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        store.write_durably(path, content)
    except OSError as error:
        raise WriteError(
            f"cannot write {path}: {refusal(error, path)}. What was written before is kept."
        ) from error


def _read(path: Path, kind: Any) -> tuple[Any, dict[str, npt.NDArray[Any]]]:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            description = metadata.get(_ABOUT)
            if description is None:
                raise RecordError(f"{path} was not written by samework: it has no description.")
            about = msgspec.json.decode(description, type=AboutCheckpoint | AboutModel)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (OSError, SafetensorError, msgspec.DecodeError) as error:
        raise RecordError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(about, kind):
        raise RecordError(f"{path} is a {about.__struct_config__.tag}, not a {kind.__struct_config__.tag}.")
    if _digest(tensors, description) != metadata.get(_DIGEST):
        raise RecordError(f"{path} is damaged: its content does not have the digest that was written.")
    return about, tensors


def _digest(tensors: Mapping[str, npt.NDArray[Any]], description: str) -> str:
    digest = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {value.dtype.str} {np.shape(tensors[name])}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
