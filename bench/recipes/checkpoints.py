"""Files of a training: checkpoints to go on from, of which the newest two are kept, and the trained model.

Both are safetensors (https://huggingface.co/docs/safetensors): a table of names, dtypes and shapes in JSON,
then plain bytes, which any framework's own reader takes. A checkpoint holds a backend's state, which only
that backend understands; a model holds parameters by their canonical names and in canonical layout.
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
from bench.errors import RecordError, UsageError
from bench.recipes.records import CHECKPOINTS
from bench.workloads.parameters import Params
from bench.workloads.specs import Cell, Workload

KEPT = 2
_ABOUT, _DIGEST = "samework", "sha256"
"""Keys of safetensors' own metadata: what the file describes, in JSON, and the digest of that and of the
tensors, which safetensors does not check."""
_STATE, _LOSSES = "state/", "losses"


class AboutCheckpoint(msgspec.Struct, frozen=True, kw_only=True, tag="checkpoint", tag_field="kind"):
    """What a checkpoint describes."""

    step: int
    train_s: float


class AboutModel(msgspec.Struct, frozen=True, kw_only=True, tag="model", tag_field="kind"):
    """What a model describes: all that is needed to evaluate it, and its origin."""

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
    """Where a training can be taken up again."""

    path: Path
    about: AboutCheckpoint
    state: State
    losses: npt.NDArray[np.float32]
    """The losses of the steps since the last figure."""


def save_checkpoint(
    folder: Path, state: State, *, step: int, train_s: float, losses: npt.NDArray[np.float32]
) -> None:
    """Write a checkpoint, then delete all but the newest two; a crash on the way leaves those there were."""
    tensors = {f"{_STATE}{name}": value for name, value in state.items()} | {_LOSSES: losses}
    about = AboutCheckpoint(step=step, train_s=train_s)
    _write(folder / CHECKPOINTS / f"step-{step}.safetensors", tensors, about)
    for old in checkpoint_files(folder)[KEPT:]:
        old.unlink(missing_ok=True)


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the checkpoints of a training, the newest first."""
    found = [
        (path, path.stem.removeprefix("step-")) for path in folder.glob(f"{CHECKPOINTS}/step-*.safetensors")
    ]
    return [
        path for path, _ in sorted(((p, int(n)) for p, n in found if n.isdigit()), key=lambda one: -one[1])
    ]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; raise RecordError where it is cut off, changed, or none at all."""
    about, tensors = _read(path, AboutCheckpoint)
    state = {name.removeprefix(_STATE): value for name, value in tensors.items() if name.startswith(_STATE)}
    return Checkpoint(path=path, about=about, state=state, losses=tensors[_LOSSES])


def newest_checkpoint(folder: Path, before: int) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """Return the newest checkpoint before a step that can be read, and what is wrong with newer ones."""
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
    """Write a model, in one step."""
    about = AboutModel(step=step, workload=workload, cell=cell, seed=seed)
    _write(path, params, about)


def load_model(path: Path) -> Model:
    """Read a model; raise UsageError where there is none, RecordError where it is damaged or another's."""
    if not path.is_file():
        raise UsageError(f"there is no model {path}. (bench train makes one)")
    about, params = _read(path, AboutModel)
    workload = about.workload
    if workload.dataset not in DATASETS:
        raise RecordError(f"{path} is of a data set that is not known here, {workload.dataset!r}.")
    shapes = workload.architecture.parameter_shapes(workload.seen(DATASETS[workload.dataset].info))
    if shapes != {name: value.shape for name, value in params.items()}:
        raise RecordError(f"{path} does not hold the parameters of the network that it names.")
    return Model(path=path, about=about, params={name: params[name] for name in shapes})


def model_name(recipe: str, step: int) -> str:
    return f"{recipe}-step-{step}.safetensors"


def find_model(path: Path) -> Path:
    """Return a model's file, given itself or its training's folder, whose newest it then is."""
    if not path.is_dir():
        return path
    found = sorted(path.glob("*-step-*.safetensors"), key=step_of)
    if not found:
        raise UsageError(f"{path} holds no model: its training has not ended.")
    return found[-1]


def step_of(path: Path) -> int:
    """Return the step in a file's name, or -1 where its name has none."""
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _write(path: Path, tensors: Mapping[str, npt.NDArray[Any]], about: msgspec.Struct) -> None:
    whole = {name: np.ascontiguousarray(value).reshape(np.shape(value)) for name, value in tensors.items()}
    said = msgspec.json.encode(about).decode()
    content = save(whole, metadata={_ABOUT: said, _DIGEST: _digest(whole, said)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        store.write_durably(path, content)
    except OSError as error:
        raise RecordError(
            f"cannot write {path}: {error.strerror}. What was written before is kept."
        ) from error


def _read(path: Path, kind: Any) -> tuple[Any, dict[str, npt.NDArray[Any]]]:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            said = metadata.get(_ABOUT)
            if said is None:
                raise RecordError(f"{path} was not written by samework: it says nothing of what it holds.")
            about = msgspec.json.decode(said, type=AboutCheckpoint | AboutModel)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (OSError, SafetensorError, msgspec.DecodeError) as error:
        raise RecordError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(about, kind):
        raise RecordError(f"{path} is a {about.__struct_config__.tag}, not a {kind.__struct_config__.tag}.")
    if _digest(tensors, said) != metadata.get(_DIGEST):
        raise RecordError(f"{path} is damaged: it is not what was written.")
    return about, tensors


def _digest(tensors: Mapping[str, npt.NDArray[Any]], said: str) -> str:
    digest = hashlib.sha256(said.encode())
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {value.dtype.str} {np.shape(tensors[name])}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
