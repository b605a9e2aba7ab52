"""PyTorch's mode cuda-graphs: training steps recorded as a CUDA graph, which one launch repeats.

It follows "Whole-network capture" in PyTorch's notes on CUDA semantics.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from backends.torch_backend import TorchBackend
from backends.torch_compiled import SeveralSteps, Step, one_by_one
from bench.errors import UnavailableError

Record: TypeAlias = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Takes a function to record; returns a function that repeats it, and the tensor that holds its result."""

WARM_UP_STEPS = 3
"""Calls before the recording: in the first ones libraries choose their algorithms and allocate memory."""


class CudaGraphs(SeveralSteps):
    """Mode cuda-graphs: two recordings, of one step of mode compile-step and of eight in a row."""

    call_steps = 8

    def __init__(self, backend: TorchBackend) -> None:
        if backend.device.type != "cuda":
            raise UnavailableError("mode cuda-graphs of PyTorch needs a GPU; on a CPU take mode compile-step")
        super().__init__(backend)
        self.record_steps(backend, record_cuda_graph)

    def record_steps(self, backend: TorchBackend, record: Record) -> None:
        """Replace the single step and the several steps by recordings that `record` makes."""
        changed = self.changed()
        several = one_by_one(self.step, backend.workload.batch_size)
        self.step, self.several = (Recorded(one, changed, record) for one in (self.step, several))


class Recorded:
    """A step on images of one shape; the first call records it, and every call repeats the recording."""

    def __init__(self, step: Step, changed: Sequence[Tensor], record: Record) -> None:
        """Wrap a step that changes, in place, the tensors in `changed` and no others."""
        self._step, self._changed, self._record = step, changed, record
        self._repeat: Callable[[], None] | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Do what the step does."""
        if self._repeat is None:
            self._begin(images, labels)
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._repeat()
        return self._loss.clone()

    def _begin(self, images: Tensor, labels: Tensor) -> None:
        # A graph reads from the memory from which it read when it was recorded.
        self._images, self._labels = images.clone(), labels.clone()
        before = [value.clone() for value in self._changed]
        self._repeat, self._loss = self._record(lambda: self._step(self._images, self._labels))
        for value, kept in zip(self._changed, before, strict=True):
            value.copy_(kept)  # the warm-up has trained


def record_cuda_graph(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Warm a step up and record it, on the same stream. The warm-up trains; the recording does not.

    Libraries make a handle and a workspace for each stream when they first see it, which can fail in a
    recording (https://github.com/pytorch/pytorch/pull/187745).
    """
    current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
    aside.wait_stream(current)
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP_STEPS):
            step()
    current.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=aside):
        loss = step()
    return graph.replay, loss
