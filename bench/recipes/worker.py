"""What a worker does to follow a recipe: train from figure to figure, evaluate, and keep checkpoints."""

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from backends.base import Backend, TrainingData
from bench.datasets.cache import Dataset
from bench.recipes import checkpoints
from bench.recipes.metrics import LATEST, Figure
from bench.recipes.protocol import CheckpointSaved, EvaluateTask, FigureMade, Scored, Trained, TrainTask
from bench.recipes.records import distribution
from bench.worker.protocol import Emit
from bench.worker.training import Batches, Trainer, build, evaluate, load_data, score, training_data
from bench.workloads.augmentation import seen_images
from bench.workloads.parameters import initial_params
from bench.workloads.specs import Workload

STRETCH = 50
"""Steps to a call of `train_steps` at most, counted from 0: how often progress can be told. It does not hang
on time, so that a training and its repetition make the same calls."""
_NONE: npt.NDArray[np.float32] = np.empty(0, np.float32)


def follow(task: TrainTask, backend_class: type[Backend], emit: Emit) -> None:
    """Train from the checkpoint that is named, or from the start, to the last step; write the model."""
    folder, workload = Path(task.folder), task.workload
    dataset = load_data(task.data)
    data = training_data(workload, dataset)
    backend = build(backend_class, workload, data, task.cell)
    backend.load_params(
        initial_params(
            workload.architecture,
            workload.seen(dataset.info),
            seed=task.seed,
            initialiser=workload.initialiser,
        )
    )
    batches = Batches(workload, data, seed=task.seed)
    trainer, losses, made = Trainer(backend, batches), _NONE, -1
    if task.checkpoint is not None:
        begun = checkpoints.load_checkpoint(Path(task.checkpoint))
        backend.restore_state(begun.state)
        made, losses = begun.about.step, begun.losses
        trainer = Trainer(backend, batches, steps=made, train_s=begun.about.train_s)
    looker = _Looker(backend, workload, data, dataset, batches)
    for stop in stops(task):
        if stop > trainer.steps:
            trainer.train(stop - trainer.steps)
            losses = np.concatenate([losses, trainer.losses])
            emit(Trained(step=stop))
        if stop in task.figures and stop > made:
            emit(FigureMade(figure=looker.look(trainer, losses)))
            losses = _NONE
        if stop > max(made, 0) and (stop % task.checkpoint_every == 0 or stop == task.steps):
            checkpoints.save_checkpoint(
                folder, backend.save_state(), step=stop, train_s=trainer.train_s, losses=losses
            )
            emit(CheckpointSaved(step=stop))
    path = folder / checkpoints.model_name(workload.name, task.steps)
    checkpoints.save_model(
        path,
        backend.export_params(),
        step=task.steps,
        workload=workload,
        cell=task.cell,
        seed=task.seed,
    )


def stops(task: TrainTask) -> list[int]:
    """Return after which steps training pauses: for progress, figures and checkpoints, and at the end."""
    every = (STRETCH, task.checkpoint_every)
    regular = {stop for step in every for stop in range(0, task.steps + 1, step)}
    return sorted(regular | set(task.figures) | {task.steps})


class _Looker:
    """Evaluates where a training stands."""

    def __init__(
        self, backend: Backend, workload: Workload, data: TrainingData, dataset: Dataset, batches: Batches
    ) -> None:
        self._backend, self._workload, self._data, self._batches = backend, workload, data, batches
        self._test_images = seen_images(workload, dataset.test_images)
        self._test_labels = dataset.test_labels

    def look(self, trainer: Trainer, losses: npt.NDArray[np.float32]) -> Figure:
        step = trainer.steps
        images, labels = latest_images(self._workload, self._data, self._batches, step)
        train_loss, train_accuracy = evaluate(self._backend, images, labels)
        test_loss, test_accuracy = evaluate(self._backend, self._test_images, self._test_labels)
        return Figure(
            step=step,
            train_s=trainer.train_s,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            losses=losses.astype("<f4").tobytes(),
            distributions={
                name: distribution(value) for name, value in self._backend.export_params().items()
            },
        )


def latest_images(
    workload: Workload, data: TrainingData, batches: Batches, step: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return images and labels of the `LATEST` batches before a step, or of the first where there is none.

    They are as the network sees images for evaluation: cropped, where it augments them, and else unchanged.
    """
    start = max(step - LATEST, 0)
    order = batches.order(start, max(step - start, 1)).ravel()
    return seen_images(workload, data.images[order]), data.labels[order]


def evaluate_model(task: EvaluateTask, backend_class: type[Backend], emit: Emit) -> None:
    """Load a model, and write the logits of the test images to the file that is named."""
    model = checkpoints.load_model(Path(task.model))
    dataset = load_data(task.data)
    workload = msgspec.structs.replace(model.about.workload, held_out=0)  # nothing is trained
    backend = build(backend_class, workload, training_data(workload, dataset), task.cell)
    backend.load_params(model.params)
    logits = backend.predict(seen_images(workload, dataset.test_images))
    np.save(task.logits, logits, allow_pickle=False)
    loss, accuracy = score(logits, dataset.test_labels)
    emit(Scored(test_loss=loss, test_accuracy=accuracy))
