"""PyTorch: torch.nn layers, data resident on the device, channels-last images.

Its optimizers are in `torch_optimizers`, its input pipeline in `torch_pipeline`, its clocks and counters in
`torch_instruments`.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.nn import functional

from backends.base import State, TrainingData
from backends.torch_augmentation import augment
from backends.torch_graphs import Record, Recorded, Step, record_cuda_graph
from backends.torch_instruments import StepClock, counted_flops, measure_peak
from backends.torch_optimizers import Foreach, TorchOptim
from backends.torch_pipeline import WORKERS, ImageDataset, make_loader
from backends.torch_toolchain import require_toolchain
from bench.errors import UnavailableError
from bench.workloads.instruments import Peak, StepSplit
from bench.workloads.parameters import Params
from bench.workloads.specs import (
    NORM_DECAY,
    NORM_EPSILON,
    Architecture,
    DatasetInfo,
    Device,
    Precision,
    Workload,
)

COMPILED = ("compile", "compile-loop", "cuda-graphs")
EVALUATION_BATCH = 1000
GATHERED_STEPS = 8
"""Steps whose images are gathered and scaled together: a call of an operation takes as long as its work.
A multiple of the steps below."""
LOOP_STEPS = {"compile-loop": 4, "cuda-graphs": 8}
"""Steps to a call, of a program or of a graph; what is left over is trained step by step."""
NORM_NAMES = {"scale": "weight", "offset": "bias", "mean": "running_mean", "variance": "running_var"}


class TorchBackend:
    """One network trained by PyTorch; see `backends.base.Backend` for what is owed."""

    def __init__(
        self, workload: Workload, data: TrainingData, *, mode: str, device: Device, precision: Precision
    ) -> None:
        self._device = find_device(device)
        if mode == "cuda-graphs" and self._device.type != "cuda":
            raise UnavailableError("mode cuda-graphs of PyTorch needs a GPU; on a CPU take mode compile")
        set_precision(precision)
        # A GPU has a thread of its own for backward, and waking it takes a third of a small network's step.
        torch.autograd.set_multithreading_enabled(False)
        # An autocast that is not enabled would take a twentieth of a small step.
        half = torch.autocast(self._device.type, torch.bfloat16)
        self._autocast = half if precision == "bf16" else contextlib.nullcontext()
        self._precision = precision
        self._mode = mode
        self.call_steps = LOOP_STEPS.get(mode, 1)
        self._workload = workload
        self._info = workload.seen(data.info)
        self._count = len(data.images)
        if workload.augmentation is not None and mode != "eager":
            raise UnavailableError(f"mode {mode} of PyTorch augments no images; mode eager does")

        self._dataset = ImageDataset(data) if mode == "dataloader" else None
        if self._dataset is None:
            # uint8 stays uint8 on the device: a batch is gathered there and scaled on use.
            # On a CPU no copy is made of the images: all processes share the mapped file.
            self._images = torch.from_numpy(data.images).to(self._device)
            self._labels = torch.from_numpy(data.labels).to(self._device, torch.int64)

        self._network = build_network(workload.architecture, self._info).to(
            self._device, memory_format=torch.channels_last
        )
        self._compiled = mode in COMPILED
        if self._compiled:
            require_toolchain(mode, gpu=self._device.type == "cuda")
        # What is compiled for a GPU scales by itself, as part of what reads the images. Compiled for a CPU
        # without AVX-512 it reads bytes slowly: a step of softmax regression took a quarter longer.
        self._program_scales = self._compiled and self._device.type == "cuda"
        # A compiled step reads and writes tensors; they share the memory of the network's parameters.
        self._parameters = {name: value.detach() for name, value in self._network.named_parameters()}
        self._statistics = dict(self._network.named_buffers())
        trained = list(self._parameters.values() if self._compiled else self._network.parameters())
        make = Foreach if self._compiled else TorchOptim
        self._optimizer = make(workload.optimizer, trained, matched=workload.matched)
        self._step = self._plain_step
        if self._compiled:
            torch.compiler.reset()
            self._step = compiled(self._whole_step)
        if mode == "cuda-graphs":
            self.record_steps(record_cuda_graph)
        elif mode == "compile-loop":
            self._loop = compiled(self._loop_of(self._whole_step))

    # Training

    def train_steps(self, order: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
        if draws is not None:
            losses = torch.stack([self._step(*batch) for batch in self._augmented_batches(order, draws)])
        elif self._mode in LOOP_STEPS:
            losses = torch.cat(list(self._chunks(order)))
        else:
            losses = torch.stack([self._step(images, labels) for images, labels in self._batches(order)])
        return losses.cpu().numpy()  # the copy waits for the device

    def _batches(self, order: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        if self._dataset is None:
            for rows in torch.from_numpy(order).to(self._device).split(GATHERED_STEPS):
                yield from self._gather(rows)
        else:
            for images, labels in make_loader(self._dataset, order, self._device):
                yield self._transfer(images, labels)

    def _augmented_batches(self, order: np.ndarray, draws: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        rows, drawn = (torch.from_numpy(part).to(self._device) for part in (order, draws))
        for batch, factors in zip(rows, drawn, strict=True):
            yield self._augment(batch, factors), self._labels[batch]

    def _augment(self, batch: Tensor, draws: Tensor) -> Tensor:
        return augment(self._images, batch, draws, self._workload.augmentation.crop)

    def augmented(self, batch: np.ndarray, draws: np.ndarray) -> np.ndarray:
        on_device = (torch.from_numpy(part).to(self._device) for part in (batch, draws))
        return self._augment(*on_device).permute(0, 2, 3, 1).cpu().numpy()

    def _chunks(self, order: np.ndarray) -> Iterator[Tensor]:
        """Train, and yield losses, one or several to a tensor."""
        batch, steps = order.shape[1], self.call_steps
        for rows in torch.from_numpy(order).to(self._device).split(GATHERED_STEPS):
            for images, labels in in_parts(self._pictures(rows), steps * batch):
                if len(labels) == steps * batch:
                    yield self._loop(images, labels)
                else:
                    yield torch.stack([self._step(*one) for one in in_parts((images, labels), batch)])

    def _gather(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the batches of rows of indices."""
        return in_parts(self._pictures(rows), rows.shape[1])

    def _pictures(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and the labels of all rows of indices together."""
        indices = rows.flatten()
        images, labels = self._images.index_select(0, indices), self._labels.index_select(0, indices)
        return (images if self._program_scales else scale(images)), labels

    def _transfer(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        images = images.to(self._device, non_blocking=True, memory_format=torch.channels_last)
        return images, labels.to(self._device, non_blocking=True)

    def _plain_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Learn from one batch, whose images are scaled, and return its loss."""
        loss = self._loss(self._network, images, labels)
        self._optimizer.learn(loss)
        return loss.detach()

    def _whole_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Learn from one batch by functions alone, all of which can be compiled."""

        def loss_of(parameters: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            # What a function changes in place it must have made itself.
            statistics = {name: value.clone() for name, value in self._statistics.items()}

            def network(x: Tensor) -> Tensor:
                return functional_call(self._network, (parameters, statistics), (x,))

            return self._loss(network, scale(images) if self._program_scales else images, labels), statistics

        gradients, (loss, statistics) = grad_and_value(loss_of, has_aux=True)(self._parameters)
        self._optimizer.update(list(gradients.values()))
        for name, value in statistics.items():
            self._statistics[name].copy_(value)
        return loss

    def _loop_of(self, step: Step) -> Step:
        """Return what takes a step for each of several batches, which come one behind the other."""
        batch = self._workload.batch_size

        def loop(images: Tensor, labels: Tensor) -> Tensor:
            return torch.stack([step(*one) for one in in_parts((images, labels), batch)])

        return loop

    def record_steps(self, record: Record) -> None:
        """Replace the step, and several of it at once, by what `record` makes of them."""
        changed = [*self._network.state_dict().values(), *self._optimizer.state_tensors()]
        step = self._step
        self._step, self._loop = (Recorded(one, changed, record) for one in (step, self._loop_of(step)))

    def _loss(self, network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
        with self._autocast:
            logits = network(images)
        return functional.cross_entropy(logits.float(), labels, reduction=self._workload.loss)

    # Evaluation

    @torch.inference_mode()
    def predict(self, images: np.ndarray) -> np.ndarray:
        parts = []
        self._network.eval()
        for start in range(0, len(images), EVALUATION_BATCH):
            batch = torch.tensor(images[start : start + EVALUATION_BATCH], device=self._device)
            with self._autocast:
                parts.append(self._network(scale(batch)).float().cpu())
        self._network.train()
        return torch.cat(parts).numpy()

    # What a run looks at more closely

    def split_steps(self, order: np.ndarray) -> StepSplit:
        loaded = None if self._dataset is None else iter(make_loader(self._dataset, order, self._device))
        clock = StepClock(self._device)
        for row in order:
            if loaded is None:
                rows = torch.from_numpy(row[None]).to(self._device)
                clock.lap("transfer")
                [(images, labels)] = self._gather(rows)
                clock.lap("data")
            else:
                batch = next(loaded)
                clock.lap("data")
                images, labels = self._transfer(*batch)
                clock.lap("transfer")
            self._step(images, labels)
            clock.lap("dispatch", wait=False)
            clock.lap("device")
        return clock.split(len(order))

    def count_flops(self) -> float | None:
        if self._compiled:
            return None  # the counter sees operations, not the kernels that they are compiled to
        first = np.arange(self._workload.batch_size, dtype=np.int32)[None] % self._count
        images, labels = next(self._batches(first))
        # Of the update it would count nothing: so nothing is updated.
        flops = counted_flops(lambda: self._loss(self._network, images, labels).backward())
        self._network.zero_grad(set_to_none=True)
        return flops

    def peak(self) -> Peak:
        return measure_peak(self._device, self._precision)

    # PyTorch's own defaults, for a workload that is not matched

    def initialise(self, seed: int) -> None:
        torch.manual_seed(seed)
        network = build_network(self._workload.architecture, self._info)  # on the CPU: the same on any device
        self._network.load_state_dict(network.state_dict())
        self._optimizer.reset()

    def permutation(self, seed: int, epoch: int) -> np.ndarray:
        # As RandomSampler draws it after torch.manual_seed(seed): a seed for each epoch, from that the order.
        seeds = torch.empty(epoch + 1, dtype=torch.int64).random_(
            generator=torch.Generator().manual_seed(seed)
        )
        generator = torch.Generator().manual_seed(int(seeds[epoch]))
        return torch.randperm(self._count, generator=generator).numpy().astype(np.int32)

    # Parameters and state

    @torch.no_grad()
    def load_params(self, params: Params) -> None:
        own = self._network.state_dict()
        for name, value in params.items():
            own[torch_name(name)].copy_(torch.from_numpy(self._to_torch(name, value)))
        self._optimizer.reset()

    def export_params(self) -> Params:
        state = self._network.state_dict()
        names = self._workload.architecture.parameter_shapes(self._info)
        return {name: self._from_torch(name, state[torch_name(name)].cpu().numpy()) for name in names}

    def save_state(self) -> State:
        state = {f"param/{name}": value for name, value in self._network.state_dict().items()}
        return {
            key: value.numpy(force=True).copy() for key, value in state.items()
        } | self._optimizer.save_state()

    def restore_state(self, state: State) -> None:
        self._network.load_state_dict(
            {
                key.removeprefix("param/"): torch.from_numpy(np.array(value))
                for key, value in state.items()
                if key.startswith("param/")
            }
        )
        self._optimizer.restore_state(state)

    def _to_torch(self, name: str, value: np.ndarray) -> np.ndarray:
        """Canonical layout to PyTorch's: kernels OIHW and (out, in), features flattened channel first."""
        if name.startswith("conv") and value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
        elif value.ndim == 2:
            value = value.T
            if name == self._first_dense():
                height, width, channels = self._feature_map()
                value = (
                    value.reshape(-1, height, width, channels).transpose(0, 3, 1, 2).reshape(len(value), -1)
                )
        return np.ascontiguousarray(value)

    def _from_torch(self, name: str, value: np.ndarray) -> np.ndarray:
        if name.startswith("conv") and value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)
        elif value.ndim == 2:
            if name == self._first_dense():
                height, width, channels = self._feature_map()
                value = (
                    value.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(value), -1)
                )
            value = value.T
        return np.array(value, order="C")

    def _first_dense(self) -> str:
        return "dense1/kernel" if self._workload.architecture.hidden else "logits/kernel"

    def _feature_map(self) -> tuple[int, int, int]:
        height, width, channels = self._info.image_shape
        for block in self._workload.architecture.convs:
            height, width, channels = height // block.pool, width // block.pool, block.filters
        return height, width, channels

    def describe(self) -> dict[str, str | int | float | bool | None]:
        on_gpu = next(self._network.parameters()).is_cuda
        return {
            "device": "gpu" if on_gpu else "cpu",
            "device_name": torch.cuda.get_device_name() if on_gpu else "cpu",
            "dtype": str(torch.bfloat16 if self._precision == "bf16" else torch.float32),
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "backward_thread": "the caller's" if on_gpu else None,
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32 if on_gpu else None,
            "tf32_convolution": torch.backends.cudnn.allow_tf32 if on_gpu else None,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if on_gpu else None,
            "input_transforms": self._dataset.transforms if self._dataset else None,
            "input_workers": WORKERS if self._dataset else None,
            "graph_breaks": sum(torch._dynamo.utils.counters["graph_break"].values()),
            "peak_device_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        }


def find_device(device: Device) -> torch.device:
    """Return the device asked for; never another one."""
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UnavailableError(f"PyTorch {torch.__version__} sees no GPU here")
    return torch.device("cuda", 0)


def set_precision(precision: Precision) -> None:
    """Say whether TF32 may be used: matrix products and convolutions have a switch each."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True  # shapes never change here: let cuDNN time its algorithms once


def build_network(architecture: Architecture, info: DatasetInfo) -> nn.Sequential:
    """Return the network; it takes float32 images (n, channels, height, width) and gives logits."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    height, width, channels = info.image_shape
    for number, block in enumerate(architecture.convs, start=1):
        layers[f"conv{number}"] = nn.Conv2d(
            channels, block.filters, block.kernel, padding=block.kernel // 2, bias=not block.normalise
        )
        if block.normalise:
            layers[f"conv{number}_norm"] = BatchNorm(block.filters)
        layers[f"conv{number}_relu"] = nn.ReLU()
        layers[f"conv{number}_pool"] = nn.MaxPool2d(block.pool)
        height, width, channels = height // block.pool, width // block.pool, block.filters
    layers["flatten"] = nn.Flatten()
    features = height * width * channels
    for number, units in enumerate(architecture.hidden, start=1):
        layers[f"dense{number}"] = nn.Linear(features, units)
        layers[f"dense{number}_relu"] = nn.ReLU()
        features = units
    layers["logits"] = nn.Linear(features, info.classes)
    return nn.Sequential(layers)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation whose running variance is of the biased variance; PyTorch's is of the unbiased."""

    def __init__(self, features: int) -> None:
        super().__init__(features, eps=NORM_EPSILON, momentum=1 - NORM_DECAY)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        # The gradient needs what it was given; so it is given copies.
        mean, variance = self.running_mean.clone(), self.running_var.clone()
        normal = functional.batch_norm(
            x, mean, variance, self.weight, self.bias, training=True, momentum=self.momentum, eps=self.eps
        )
        values = x.numel() // x.shape[1]
        with torch.no_grad():
            # To the variance it added momentum * n / (n - 1) * biased variance, of n values.
            biased = variance * ((values - 1) / values) + self.running_var * (NORM_DECAY / values)
            self.running_mean.copy_(mean)
            self.running_var.copy_(biased)
        return normal


def compiled(step: Step) -> Step:
    """Return a step as one program; the programs of the process's former networks must be forgotten.

    PyTorch compiles 8 versions of a function in a process and then goes on uncompiled, with a warning at
    most; `fullgraph` makes that, and a graph break, an error. A call looks over the tensors and constants
    that the program was compiled for, but not over the modules: none of them changes, and a step of softmax
    regression would spend some percent on it.
    """
    options = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
    return torch.compile(step, dynamic=False, fullgraph=True, options=options)


def in_parts(pictures: tuple[Tensor, Tensor], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Return images and labels, so many at a time; the last are what is left."""
    images, labels = pictures
    return zip(images.split(size), labels.split(size), strict=True)


def scale(images: Tensor) -> Tensor:
    """uint8 (n, h, w, c) to float32 (n, c, h, w) in [0, 1]; NHWC memory seen as NCHW is channels-last."""
    return images.permute(0, 3, 1, 2).float().div_(255)


def torch_name(name: str) -> str:
    """`conv1/kernel` is `conv1.weight` in PyTorch, and `conv1/scale` is `conv1_norm.weight`."""
    layer, _, kind = name.partition("/")
    if kind in NORM_NAMES:
        return f"{layer}_norm.{NORM_NAMES[kind]}"
    return f"{layer}.{'weight' if kind == 'kernel' else kind}"
