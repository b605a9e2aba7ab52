"""The event file of a training run for TensorBoard: curves, distributions and input images.

It is written from the figures. Of TensorBoard's package only the parts that import no framework are used;
tensorboardX, which is smaller, imports PyTorch wherever it is installed.
"""

import contextlib
import io
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from bench.recipes.metrics import Distribution, Figure
from bench.recipes.records import EVENTS, Training

IMAGES = 10
LOSS_EVERY = 10
"""Of the losses of the steps, every tenth is written."""
_FILE = "events.out.tfevents.samework"
_VERSION = "brain.Event:2"


class EventFiles:
    """The `events` folder of a training run; as a context it leaves the file complete.

    The file is written again from the start, so that no step is there twice after a continuation. The time of
    an event is the start of the training run plus the seconds of training.
    """

    def __init__(self, training: Training, images: npt.NDArray[np.uint8]) -> None:
        """`images` are what the network trains on, uint8 (n, h, w, c); the first `IMAGES` are shown."""
        folder = training.folder / EVENTS
        folder.mkdir(exist_ok=True)
        self._begun = datetime.fromisoformat(training.header.created_at).timestamp()
        part = folder / f".{_FILE}.part"
        self._file = part.open("wb")
        self._records = RecordWriter(self._file)
        try:
            self._write_past(training, images)
            part.replace(folder / _FILE)  # only now, so that a full disk leaves the file that was there
        except BaseException:
            with contextlib.suppress(OSError):
                self._file.close()
            part.unlink(missing_ok=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _write_past(self, training: Training, images: npt.NDArray[np.uint8]) -> None:
        self._write(Event(wall_time=self._begun, file_version=_VERSION))
        shown = [_image(f"input/{number}", image) for number, image in enumerate(images[:IMAGES])]
        self._write(Event(wall_time=self._begun, step=0, summary=Summary(value=shown)))
        for figure in training.figures:
            self.add(figure)

    def add(self, figure: Figure) -> None:
        """Write a figure, and flush it, so that an open TensorBoard shows it."""
        scalars = {
            "accuracy/test": figure.test_accuracy,
            "accuracy/train": figure.train_accuracy,
            "cross-entropy/test": figure.test_loss,
            "cross-entropy/train": figure.train_loss,
        }
        self._add_losses(figure)
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        values += [_histogram(name, spread) for name, spread in figure.distributions.items()]
        time = self._begun + figure.train_s
        self._write(Event(wall_time=time, step=figure.step, summary=Summary(value=values)))

    def _add_losses(self, figure: Figure) -> None:
        losses = np.frombuffer(figure.losses, "<f4")
        first = figure.step - len(losses) + 1
        time = self._begun + figure.train_s
        for step, loss in enumerate(losses.tolist(), start=first):
            if step % LOSS_EVERY == 0:
                value = Summary.Value(tag="cross-entropy/step", simple_value=loss)
                self._write(Event(wall_time=time, step=step, summary=Summary(value=[value])))

    def _write(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        self._records.flush()


def _histogram(name: str, spread: Distribution) -> Any:
    low, high = spread.quantiles[0], spread.quantiles[-1]
    # The bins are those of `records.distribution`: for equal values NumPy spans 0.5 to either side.
    ends = (low, high) if high > low else (low - 0.5, low + 0.5)
    limits = np.linspace(*ends, len(spread.counts) + 1)[1:]
    histogram = HistogramProto(
        min=low,
        max=high,
        num=sum(spread.counts),
        sum=spread.total,
        sum_squares=spread.total_of_squares,
        bucket_limit=limits.tolist(),
        bucket=list(spread.counts),
    )
    return Summary.Value(tag=name, histo=histogram)


def _image(tag: str, image: npt.NDArray[np.uint8]) -> Any:
    height, width, channels = image.shape
    content = io.BytesIO()
    Image.fromarray(image[..., 0] if channels == 1 else np.asarray(image)).save(content, format="PNG")
    shown = Summary.Image(
        height=height, width=width, colorspace=channels, encoded_image_string=content.getvalue()
    )
    return Summary.Value(tag=tag, image=shown)
