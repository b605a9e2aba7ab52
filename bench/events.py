"""TensorBoard's event files of a training, written from its figures: curves, distributions, input images."""

import shutil
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from tensorboardX import SummaryWriter

from bench.trainings import EVENTS, Distribution, Figure, Training

IMAGES = 10


class EventFiles:
    """The `events` folder of a training; as a context it leaves the files complete.

    They are written anew from the figures that are kept, so that after a resumption no step is told twice.
    """

    def __init__(self, training: Training, images: npt.NDArray[np.uint8]) -> None:
        """`images` are what the network trains on, uint8 (n, h, w, c); the first few are shown."""
        folder = training.folder / EVENTS
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder), max_queue=1000)
        self._writer.add_images("input", np.asarray(images[:IMAGES]), 0, dataformats="NHWC")
        for figure in training.figures:
            self.add(figure)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def add(self, figure: Figure) -> None:
        """Write what a figure tells, and flush it, so that a TensorBoard that looks on sees it."""
        for name in ("test_loss", "test_accuracy", "train_loss", "train_accuracy"):
            split, measure = name.split("_")
            shown = "cross-entropy" if measure == "loss" else measure
            self._writer.add_scalar(f"{shown}/{split}", getattr(figure, name), figure.step)
        for name, spread in figure.distributions.items():
            self._add_histogram(name, spread, figure.step)
        self._writer.flush()

    def _add_histogram(self, name: str, spread: Distribution, step: int) -> None:
        low, high = spread.quantiles[0], spread.quantiles[-1]
        limits = np.linspace(low, high if high > low else low + 1.0, len(spread.counts) + 1)[1:]
        self._writer.add_histogram_raw(
            name, min=low, max=high, num=sum(spread.counts), sum=spread.total,
            sum_squares=spread.total_of_squares, bucket_limits=limits.tolist(),
            bucket_counts=list(spread.counts), global_step=step,
        )  # fmt: skip
