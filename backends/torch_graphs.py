"""Training steps recorded as a CUDA graph, whose kernels are launched together, without Python.

After "Whole-network capture" in PyTorch's notes on CUDA semantics.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Step: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Learns from images and labels, of one batch or several, and returns the loss or losses."""
Record: TypeAlias = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Given what is to be recorded, returns what repeats it, and the tensor that holds its result after that."""

WARM_UP_STEPS = 3
"""Repetitions before it is recorded: in the first ones libraries choose their algorithms and allocate."""


class Recorded:
    """A step on images of one shape, which is recorded when the first ones come and repeated for each."""

    def __init__(self, step: Step, changed: Sequence[Tensor], record: Record) -> None:
        """Wrap a step that changes the tensors in `changed`, in place, and no others."""
        self._step, self._changed, self._record = step, changed, record
        self._repeat: Callable[[], None] | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Do as the step does."""
        if self._repeat is None:
            self._begin(images, labels)
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._repeat()
        return self._loss.clone()

    def _begin(self, images: Tensor, labels: Tensor) -> None:
        # A graph reads where it read when it was recorded.
        self._images, self._labels = images.clone(), labels.clone()
        before = [value.clone() for value in self._changed]
        self._repeat, self._loss = self._record(lambda: self._step(self._images, self._labels))
        for value, kept in zip(self._changed, before, strict=True):
            value.copy_(kept)  # warming up has trained


def record_cuda_graph(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Warm a step up and record it; what it changes is changed by warming up, not by recording."""
    current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
    aside.wait_stream(current)
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP_STEPS):
            step()
    current.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    return graph.replay, loss
