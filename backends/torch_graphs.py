"""PyTorch's mode cuda-graphs: training steps recorded as a CUDA graph, launched together, without Python.

After "Whole-network capture" in PyTorch's notes on CUDA semantics.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from backends.torch_backend import TorchBackend
from backends.torch_compiled import SeveralSteps, Step, one_by_one
from bench.errors import UnavailableError

Record: TypeAlias = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Takes what is to be recorded; returns what repeats it, and the tensor that holds its result after that."""

WARM_UP_STEPS = 3
"""Repetitions before the recording: in the first ones libraries choose their algorithms and allocate."""


class CudaGraphs(SeveralSteps):
    """Mode cuda-graphs: the step of mode compile is recorded, eight times in a row and once."""

    call_steps = 8

    def __init__(self, backend: TorchBackend) -> None:
        if backend.device.type != "cuda":
            raise UnavailableError("mode cuda-graphs of PyTorch needs a GPU; on a CPU take mode compile")
        super().__init__(backend)
        self.record_steps(backend, record_cuda_graph)

    def record_steps(self, backend: TorchBackend, record: Record) -> None:
        """Replace the step, and several of it at once, by what `record` makes of them."""
        changed = [*backend.network.state_dict().values(), *self.optimizer.state_tensors()]
        several = one_by_one(self.step, backend.workload.batch_size)
        self.step, self.several = (Recorded(one, changed, record) for one in (self.step, several))


class Recorded:
    """A step on images of one shape, which is recorded at the first call and repeated at each."""

    def __init__(self, step: Step, changed: Sequence[Tensor], record: Record) -> None:
        """Wrap a step that changes the tensors in `changed`, in place, and no others."""
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
        # A graph reads where it read when it was recorded.
        self._images, self._labels = images.clone(), labels.clone()
        before = [value.clone() for value in self._changed]
        self._repeat, self._loss = self._record(lambda: self._step(self._images, self._labels))
        for value, kept in zip(self._changed, before, strict=True):
            value.copy_(kept)  # the warm-up has trained


def record_cuda_graph(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Warm a step up and record it. The warm-up changes what the step changes; the recording does not."""
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
