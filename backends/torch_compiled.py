"""PyTorch's modes that use `torch.compile`: for the model alone, or for whole training steps."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value
from torch.nn.functional import cross_entropy

from backends.torch_backend import DeviceData, Eager, TorchBackend, in_parts, scale
from backends.torch_optimizers import Foreach
from backends.torch_settings import TUNED
from backends.torch_toolchain import require_toolchain
from bench.errors import UnavailableError

UNRECORDED = (
    "mode reduce-overhead: PyTorch did not record {} of its programs as CUDA graphs, so this is the speed of "
    "compile-step. TORCH_LOGS=cudagraphs shows why."
)
Step: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Trains on the images and labels of one batch or several, and returns the loss or losses."""


class CompileModel(Eager):
    """Mode compile-model: mode eager with `torch.compile(model)`; loss and update are not compiled.

    Where PyTorch cannot compile the model as one graph, `fullgraph` makes that an error.
    """

    def __init__(self, backend: TorchBackend) -> None:
        require_toolchain(backend.mode, gpu=backend.device.type == "cuda")
        super().__init__(backend)
        torch.compiler.reset()  # see `compiled`
        self._network = torch.compile(backend.network, fullgraph=True)

    def count_flops(self, _order: np.ndarray) -> None:
        """Return None: PyTorch's counter sees operations, not the kernels that they are compiled to."""


class CompileStep:
    """Mode compile-step: a step is one program, from the images to the updated parameters."""

    settings = TUNED
    call_steps = 1
    facts: Mapping[str, str | int] = {}
    compile_mode = "default"
    """The mode of `torch.compile`."""

    def __init__(self, backend: TorchBackend) -> None:
        backend.refuse_augmentation()
        on_gpu = backend.device.type == "cuda"
        require_toolchain(backend.mode, gpu=on_gpu)
        # A program for a GPU scales the images where it reads them. A program for a CPU without AVX-512 reads
        # bytes slowly: a step of softmax regression took a quarter longer.
        self._program_scales = on_gpu
        self._memory_format = backend.settings.memory_format
        self.data = DeviceData(backend.data, backend.device, self._memory_format, scaled=not on_gpu)
        self._network, workload = backend.network, backend.workload
        self._autocast, self._reduction = backend.autocast, workload.loss
        # A compiled step reads and writes these tensors, which share the memory of the network's parameters.
        self._parameters = {name: value.detach() for name, value in self._network.named_parameters()}
        self._statistics = dict(self._network.named_buffers())
        self.optimizer = Foreach(
            workload.optimizer, list(self._parameters.values()), matched=workload.matched
        )
        torch.compiler.reset()  # see `compiled`
        self.step = compiled(self.whole_step, self.compile_mode)

    def train(self, order: np.ndarray, _draws: None = None) -> np.ndarray:
        losses = torch.stack([self.step(images, labels) for images, labels in self.data.batches(order)])
        return losses.cpu().numpy()  # the copy waits for the device

    def whole_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Train on one batch with functions that can be compiled; return the loss."""

        def loss_of(parameters: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            # torch.func lets a function change only tensors in place that it made itself.
            statistics = {name: value.clone() for name, value in self._statistics.items()}

            x = scale(images, self._memory_format) if self._program_scales else images
            with self._autocast:
                logits = functional_call(self._network, (parameters, statistics), (x,))
            return cross_entropy(logits.float(), labels, reduction=self._reduction), statistics

        gradients, (loss, statistics) = grad_and_value(loss_of, has_aux=True)(self._parameters)
        self.optimizer.update(list(gradients.values()))
        for name, value in statistics.items():
            self._statistics[name].copy_(value)
        return loss

    def changed(self) -> list[Tensor]:
        """Return every tensor that a step changes in place."""
        return [*self._parameters.values(), *self._statistics.values(), *self.optimizer.state_tensors()]

    def count_flops(self, _order: np.ndarray) -> None:
        """Return None: PyTorch's counter sees operations, not the kernels that they are compiled to."""


class ReduceOverhead(CompileStep):
    """Mode reduce-overhead: compile-step whose program PyTorch itself records as a CUDA graph.

    Where PyTorch cannot record the program it runs it unrecorded and only logs why. `describe` then warns.
    """

    compile_mode = "reduce-overhead"

    def __init__(self, backend: TorchBackend) -> None:
        if backend.device.type != "cuda":
            raise UnavailableError(
                "mode reduce-overhead of PyTorch needs a GPU; on a CPU take mode compile-step"
            )
        super().__init__(backend)
        self.use_graphs()

    def use_graphs(self) -> None:
        """Let PyTorch record the step, and keep each loss from the repetition that follows."""
        # PyTorch records no graph that changes its inputs, unless their addresses are said never to change.
        for value in self.changed():
            torch._dynamo.mark_static_address(value)
        program = self.step

        def step(images: Tensor, labels: Tensor) -> Tensor:
            torch.compiler.cudagraph_mark_step_begin()
            return program(images, labels).clone()  # the next repetition writes to the same memory

        self.step = step

    @property
    def facts(self) -> Mapping[str, str | int]:
        """A warning if PyTorch has not recorded the program."""
        skipped = torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]
        return {"warning": UNRECORDED.format(skipped)} if skipped else {}


class SeveralSteps(CompileStep):
    """Trains `call_steps` steps per call, and the remaining steps one by one."""

    several: Step
    """Trains on `call_steps` batches, which lie one behind the other, and returns their losses."""

    def train(self, order: np.ndarray, _draws: None = None) -> np.ndarray:
        return torch.cat(list(self._losses(order))).cpu().numpy()

    def _losses(self, order: np.ndarray) -> Iterator[Tensor]:
        """Train, and yield the losses (n,) of each call, or of the remaining steps."""
        batch = order.shape[1]
        for pictures in self.data.gathered(order):
            for images, labels in in_parts(*pictures, self.call_steps * batch):
                if len(labels) == self.call_steps * batch:
                    yield self.several(images, labels)
                else:
                    yield torch.stack([self.step(*one) for one in in_parts(images, labels, batch)])


class CompileLoop(SeveralSteps):
    """Mode compile-loop: four steps are one program."""

    call_steps = 4

    def __init__(self, backend: TorchBackend) -> None:
        super().__init__(backend)
        several = one_by_one(self.whole_step, backend.workload.batch_size)
        self.several = compiled(several, self.compile_mode)


def one_by_one(step: Step, batch: int) -> Step:
    """Return a function that takes a step for each of several batches, which lie one behind the other."""

    def several(images: Tensor, labels: Tensor) -> Tensor:
        return torch.stack([step(*one) for one in in_parts(images, labels, batch)])

    return several


def compiled(step: Step, mode: str) -> Step:
    """Return a step as one program; `torch.compiler.reset` must have dropped those of former networks.

    `torch.compile` takes a mode or options, not both, so the options of the `mode` are looked up and passed.

    PyTorch compiles 8 versions of a function in a process and then goes on uncompiled, maybe with a warning;
    `fullgraph` makes that, and a graph break, an error. A call checks the tensors and constants for which a
    program was compiled, but not the modules: they never change, and the check would take some percent of a
    step of softmax regression.
    """
    guards = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
    options = torch._inductor.list_mode_options(mode) | guards
    return torch.compile(step, dynamic=False, fullgraph=True, options=options)
