"""The tasks and events between harness and worker for following a recipe and evaluating a model."""

from typing import TypeAlias

import msgspec

from backends.info import BackendInfo
from bench.recipes.metrics import Figure
from bench.worker.protocol import AnyEvent, DataSource, Event
from bench.workloads.specs import Cell, Workload


class TrainTask(msgspec.Struct, frozen=True, kw_only=True, tag="train", tag_field="task"):
    """Follow a recipe: train, evaluate, save checkpoints, and write the model at the end."""

    backend: BackendInfo
    data: DataSource
    cell: Cell
    workload: Workload
    seed: int
    steps: int
    figures: tuple[int, ...]
    """The steps after which a figure is due."""
    checkpoint_every: int
    folder: str
    checkpoint: str | None
    """The checkpoint file to continue from; None starts from the initial weights."""


class EvaluateTask(msgspec.Struct, frozen=True, kw_only=True, tag="evaluate", tag_field="task"):
    """Load a model and evaluate it on the test images."""

    backend: BackendInfo
    data: DataSource
    cell: Cell
    model: str
    logits: str
    """The file to write the logits to: float32 (n, classes), in the format of `numpy.save`."""


class Trained(Event, frozen=True, kw_only=True, tag="trained"):
    step: int


class FigureMade(Event, frozen=True, kw_only=True, tag="figure"):
    figure: Figure


class CheckpointSaved(Event, frozen=True, kw_only=True, tag="checkpoint"):
    step: int


class Scored(Event, frozen=True, kw_only=True, tag="scored"):
    test_loss: float
    test_accuracy: float


AnyRecipeEvent: TypeAlias = AnyEvent | Trained | FigureMade | CheckpointSaved | Scored
