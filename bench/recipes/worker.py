"""What a worker does to follow a recipe or to evaluate a model."""

import io

import msgspec
import numpy as np
import numpy.typing as npt

from backends.base import Backend, TrainingData
from bench.datasets.cache import Dataset
from bench.errors import WriteError
from bench.paths import advice, from_text, refusal
from bench.recipes import checkpoints
from bench.recipes.metrics import LATEST, Figure
from bench.recipes.protocol import CheckpointSaved, EvaluateTask, FigureMade, Scored, Trained, TrainTask
from bench.recipes.records import distribution
from bench.worker.protocol import Emit
from bench.worker.timed_loop import Batches, Trainer, build, evaluate, load_data, score, training_data
from bench.workloads.augmentation import seen_images
from bench.workloads.parameters import initial_params
from bench.workloads.specs import Workload

STRETCH = 50
"""The most steps in one call of `train_steps`, so the most between two reports of progress. Calls begin at
multiples of it and do not depend on time, so that a repeated training run makes the same calls."""
_NONE: npt.NDArray[np.float32] = np.empty(0, np.float32)


def follow(task: TrainTask, backend_class: type[Backend], emit: Emit) -> None:
    """Train from the checkpoint, or from the initial weights, to the last step, and write the model."""
    folder, workload = from_text(task.folder), task.workload
    dataset = load_data(task.data)
    data = training_data(workload, dataset)
    batches = Batches(workload, data, seed=task.seed)
    backend = build(backend_class, workload, data, task.cell)
    trainer, losses, made = _begin(task, backend, dataset, batches)
    maker = _FigureMaker(backend, workload, data, dataset, batches)
    for stop in stops(task):
        if stop > trainer.steps:
            trainer.train(stop - trainer.steps)
            losses = np.concatenate([losses, trainer.losses])
            emit(Trained(step=stop))
        # The figure comes first: after a crash, a checkpoint must not lie beyond a missing figure.
        if stop in task.figures and stop > made:
            emit(FigureMade(figure=maker.make(trainer, losses)))
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


def _begin(
    task: TrainTask, backend: Backend, dataset: Dataset, batches: Batches
) -> tuple[Trainer, npt.NDArray[np.float32], int]:
    """Return the trainer, the losses since the last figure, and the step of the checkpoint or -1."""
    workload = task.workload
    backend.load_params(
        initial_params(
            workload.architecture,
            workload.seen(dataset.info),
            seed=task.seed,
            initialiser=workload.initialiser,
        )
    )
    if task.checkpoint is None:
        return Trainer(backend, batches), _NONE, -1
    begun = checkpoints.load_checkpoint(from_text(task.checkpoint))
    backend.restore_state(begun.state)
    step = begun.about.step
    return Trainer(backend, batches, steps=step, train_s=begun.about.train_s), begun.losses, step


def stops(task: TrainTask) -> list[int]:
    """Return the steps after which training pauses: for progress, figures and checkpoints, and at the end."""
    every = (STRETCH, task.checkpoint_every)
    regular = {stop for step in every for stop in range(0, task.steps + 1, step)}
    return sorted(regular | set(task.figures) | {task.steps})


class _FigureMaker:
    """Makes the figures of a training run."""

    def __init__(
        self, backend: Backend, workload: Workload, data: TrainingData, dataset: Dataset, batches: Batches
    ) -> None:
        self._backend, self._workload, self._data, self._batches = backend, workload, data, batches
        self._test_images = seen_images(workload, dataset.test_images)
        self._test_labels = dataset.test_labels

    def make(self, trainer: Trainer, losses: npt.NDArray[np.float32]) -> Figure:
        """Evaluate; `losses` are those of the steps since the previous figure."""
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
    """Return images and labels of the `LATEST` batches before a step, or of the first batch at step 0.

    The images are as the network sees them in evaluation: cropped if the workload augments, else unchanged.
    """
    start = max(step - LATEST, 0)
    order = batches.order(start, max(step - start, 1)).ravel()
    return seen_images(workload, data.images[order]), data.labels[order]


def evaluate_model(task: EvaluateTask, backend_class: type[Backend], emit: Emit) -> None:
    """Load a model, evaluate it on the test images, and write their logits to the task's file."""
    model = checkpoints.load_model(from_text(task.model))
    dataset = load_data(task.data)
    workload = msgspec.structs.replace(model.about.workload, held_out=0)  # nothing is trained
    backend = build(backend_class, workload, training_data(workload, dataset), task.cell)
    backend.load_params(model.params)
    logits = backend.predict(seen_images(workload, dataset.test_images))
    place = from_text(task.logits)
    content = io.BytesIO()
    np.save(content, logits, allow_pickle=False)
    try:
        place.write_bytes(content.getvalue())
    except OSError as error:
        raise WriteError(f"cannot write {place}: {refusal(error, place)}.{advice(place)}") from error
    loss, accuracy = score(logits, dataset.test_labels)
    emit(Scored(test_loss=loss, test_accuracy=accuracy))
