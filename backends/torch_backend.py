"""PyTorch: mode eager, and what all its modes share.

Mode eager is the training loop of PyTorch's tutorials, tuned: the images are on the device, batches are
gathered for several steps at a time, the update is fused, and `torch_settings.TUNED` applies. Mode tutorial,
in `torch_tutorial`, is that loop as it is taught.

From top to bottom: the network, the batches, the training step, evaluation, parameters in and out.
`backends.catalog` names the class of each mode. `Eager` and `ChannelsFirst` are here. The others are in
`torch_compiled`, `torch_graphs`, `torch_pipeline` and `torch_tutorial`.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from backends.base import State, TrainingData
from backends.builds import build_of
from backends.catalog import TORCH
from backends.runners import load_runner
from backends.step_clock import StepClock
from backends.torch_augmentation import augment
from backends.torch_instruments import counted_flops, measure_peak, synchronise
from backends.torch_optimizers import TorchOptim
from backends.torch_settings import TUNED, Settings
from bench.errors import UnavailableError
from bench.workloads.instruments import Peak, StepSplit
from bench.workloads.parameters import Params
from bench.workloads.ranks import Place
from bench.workloads.specs import (
    NORM_DECAY,
    NORM_EPSILON,
    Architecture,
    DatasetInfo,
    Device,
    Precision,
    Workload,
)

EVALUATION_BATCH = 1000
GATHERED_STEPS = 8
"""Steps whose images are gathered and scaled together, as calling an operation takes as long as its work.
A multiple of the `call_steps` of every mode."""
NORM_NAMES = {"scale": "weight", "offset": "bias", "mean": "running_mean", "variance": "running_var"}


# The network


def build_network(
    architecture: Architecture, info: DatasetInfo, norm: Callable[[int], nn.Module] | None = None
) -> nn.Sequential:
    """Return the network: float32 images (n, channels, height, width) in, logits (n, classes) out.

    `norm` makes the batch normalisation of so many features; without it `BatchNorm` does.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    height, width, channels = info.image_shape
    for number, block in enumerate(architecture.convs, start=1):
        layers[f"conv{number}"] = nn.Conv2d(
            channels, block.filters, block.kernel, padding=block.kernel // 2, bias=not block.normalise
        )
        if block.normalise:
            layers[f"conv{number}_norm"] = (norm or BatchNorm)(block.filters)
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
    """Batch normalisation whose running variance follows the biased variance; PyTorch takes the unbiased."""

    def __init__(self, features: int) -> None:
        super().__init__(features, eps=NORM_EPSILON, momentum=1 - NORM_DECAY)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        # Backward needs the statistics unchanged, so batch_norm gets copies to change.
        mean, variance = self.running_mean.clone(), self.running_var.clone()
        normal = functional.batch_norm(
            x, mean, variance, self.weight, self.bias, training=True, momentum=self.momentum, eps=self.eps
        )
        values = x.numel() // x.shape[1]
        with torch.no_grad():
            # batch_norm added momentum * n / (n - 1) * biased variance, of n values, to the variance.
            biased = variance * ((values - 1) / values) + self.running_var * (NORM_DECAY / values)
            self.running_mean.copy_(mean)
            self.running_var.copy_(biased)
        return normal


# The batches


class DeviceData:
    """The training split on the device; it gathers batches.

    Images stay uint8 (N, h, w, c) and are scaled on use; labels are int64 (N,). On a CPU the images are not
    copied: all processes share the mapped file.
    """

    def __init__(
        self,
        data: TrainingData,
        device: torch.device,
        memory_format: torch.memory_format,
        *,
        scaled: bool = True,
    ) -> None:
        """Put the data on the device.

        Batches are float32 (n, c, h, w) in `memory_format` if `scaled`, else uint8 (n, h, w, c).
        """
        self.images = torch.from_numpy(data.images).to(device)
        self.labels = torch.from_numpy(data.labels).to(device, torch.int64)
        self._device, self._memory_format, self._scaled = device, memory_format, scaled

    def batches(self, order: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images and labels of each row of `order`, int32 (steps, batch)."""
        for images, labels in self.gathered(order):
            yield from in_parts(images, labels, order.shape[1])

    def gathered(self, order: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images and labels of `GATHERED_STEPS` rows of `order` together, at last of the rest."""
        for rows in torch.from_numpy(order).to(self._device).split(GATHERED_STEPS):
            yield self.gather(rows)

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        indices = rows.flatten()
        images, labels = self.images.index_select(0, indices), self.labels.index_select(0, indices)
        return (scale(images, self._memory_format) if self._scaled else images), labels

    def timed_batches(self, order: np.ndarray, clock: StepClock) -> Iterator[tuple[Tensor, Tensor]]:
        """Do what `batches` does row by row, and time each part until the device has finished it."""
        clock.begin()
        for row in order:
            rows = torch.from_numpy(row[None]).to(self._device)
            synchronise(self._device)
            clock.mark("transfer")
            [batch] = in_parts(*self.gather(rows), len(row))
            synchronise(self._device)
            clock.mark("data")
            yield batch


def in_parts(images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels, `size` at a time; the last part holds the rest."""
    return zip(images.split(size), labels.split(size), strict=True)


def scale(images: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Scale uint8 (n, h, w, c) to float32 (n, c, h, w) from 0 to 1, in that memory format."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=memory_format).div_(255)


# Training


class Eager:
    """Mode eager: Python calls each operation.

    The class of every mode has `settings`, `call_steps`, `facts`, `data`, `optimizer`, `train`, `step` and
    `count_flops`.
    """

    settings: Settings = TUNED
    call_steps = 1
    facts: Mapping[str, str | int] = {}
    """What `describe` adds in this mode."""
    source: Callable[..., Any] = DeviceData
    """The class that makes the batches."""

    def __init__(self, backend: "TorchBackend") -> None:
        self._device, self._network, self._workload = backend.device, backend.network, backend.workload
        self._autocast, self._reduction = backend.autocast, backend.workload.loss
        self._memory_format = backend.settings.memory_format
        self.data = self.source(backend.data, backend.device, self._memory_format)
        self.optimizer = TorchOptim(
            self._workload.optimizer,
            list(self._network.parameters()),
            matched=self._workload.matched,
            fused=backend.settings.fused,
        )

    def train(self, order: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
        return self._trained(order, draws).cpu().numpy()  # the copy waits for the device

    def _trained(self, order: np.ndarray, draws: np.ndarray | None) -> Tensor:
        """Train and return the losses, (steps,), on the device."""
        batches = self.data.batches(order) if draws is None else self._augmented_batches(order, draws)
        return torch.stack([self.step(images, labels) for images, labels in batches])

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Train on one batch and return its loss, a scalar."""
        loss = self.loss(images, labels)
        loss.backward()
        self.optimizer.step()
        # Here as in PyTorch's quickstart: between forward and backward it made steps up to 4 % longer.
        self.optimizer.zero_grad()
        return loss.detach()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of scaled images (n, c, h, w) and labels (n,)."""
        with self._autocast:
            logits = self._network(images)
        return functional.cross_entropy(logits.float(), labels, reduction=self._reduction)

    def _augmented_batches(self, order: np.ndarray, draws: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        rows, drawn = (torch.from_numpy(part).to(self._device) for part in (order, draws))
        for batch, factors in zip(rows, drawn, strict=True):
            yield self._augment(batch, factors), self.data.labels[batch]

    def _augment(self, batch: Tensor, draws: Tensor) -> Tensor:
        crop = self._workload.augmentation.crop
        return augment(self.data.images, batch, draws, crop, self._memory_format)

    def augmented(self, batch: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Do what `backends.base.Augmenting` says."""
        on_device = (torch.from_numpy(part).to(self._device) for part in (batch, draws))
        return self._augment(*on_device).permute(0, 2, 3, 1).cpu().numpy()

    def count_flops(self, order: np.ndarray) -> float | None:
        """Return the operations of the first step of `order`; None in modes that cannot count them."""
        images, labels = next(self.data.batches(order))
        # The counter counts no operation of an update, so none is made.
        flops = counted_flops(lambda: self.loss(images, labels).backward())
        self._network.zero_grad(set_to_none=True)
        return flops


class ChannelsFirst(Eager):
    """Mode channels-first: mode eager with images and kernels in contiguous memory (n, c, h, w).

    Channels-last is the faster layout where convolutions run on tensor cores. In float32 they do not, and
    either layout may be the faster one.
    """

    settings = msgspec.structs.replace(TUNED, memory_format=torch.contiguous_format)


class TorchBackend:
    """One network trained by PyTorch; `backends.base.Backend` is its contract.

    Public names beyond the contract are for the classes of the modes.
    """

    def __init__(
        self,
        workload: Workload,
        data: TrainingData,
        *,
        mode: str,
        device: Device,
        precision: Precision,
        place: Place | None = None,
    ) -> None:
        self.workload, self.data, self.mode, self._precision = workload, data, mode, precision
        self.place, self.device = place, find_device(device)
        runner = load_runner(TORCH, mode, place)
        if place is not None:
            runner.join(place, device)
        self.settings: Settings = runner.settings.for_network(workload.architecture)
        self.settings.apply()
        set_precision(precision)
        # A disabled autocast would still take a twentieth of a small step.
        half = torch.autocast(self.device.type, torch.bfloat16)
        self.autocast = half if precision == "bf16" else contextlib.nullcontext()
        self._info = workload.seen(data.info)
        norm = BatchNorm if place is None else runner.norm
        self.network = build_network(workload.architecture, self._info, norm).to(
            self.device, memory_format=self.settings.memory_format
        )
        self._runner = runner(self)
        self.call_steps = self._runner.call_steps

    def train_steps(self, order: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
        return self._runner.train(order, draws)

    def augmented(self, batch: np.ndarray, draws: np.ndarray) -> np.ndarray:
        return self._runner.augmented(batch, draws)

    # Ranks

    def longest(self, seconds: float) -> float:
        return self._runner.longest(seconds)

    @staticmethod
    def leave() -> None:
        if dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()

    def refuse_augmentation(self) -> None:
        """Raise UnavailableError if the workload augments its images."""
        if self.workload.augmentation is not None:
            raise UnavailableError(f"mode {self.mode} of PyTorch augments no images; mode eager does")

    # Evaluation

    @torch.inference_mode()
    def predict(self, images: np.ndarray) -> np.ndarray:
        parts = []
        self.network.eval()
        for start in range(0, len(images), EVALUATION_BATCH):
            batch = torch.tensor(images[start : start + EVALUATION_BATCH], device=self.device)
            with self.autocast:
                parts.append(self.network(scale(batch, self.settings.memory_format)).float().cpu())
        self.network.train()
        return torch.cat(parts).numpy()

    # Parameters and state

    @torch.no_grad()
    def load_params(self, params: Params) -> None:
        own = self.network.state_dict()
        for name, value in params.items():
            own[torch_name(name)].copy_(torch.from_numpy(self._to_torch(name, value)))
        self._runner.optimizer.reset()

    def export_params(self) -> Params:
        state = self.network.state_dict()
        names = self.workload.architecture.parameter_shapes(self._info)
        return {name: self._from_torch(name, state[torch_name(name)].cpu().numpy()) for name in names}

    def _to_torch(self, name: str, value: np.ndarray) -> np.ndarray:
        """Convert from canonical to PyTorch's layout: kernels OIHW and (out, in), features channels first."""
        if value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
        elif name == self._first_dense():
            value = value.reshape(*self._feature_map(), -1).transpose(3, 2, 0, 1)
            value = value.reshape(len(value), -1)
        elif value.ndim == 2:
            value = value.T
        return np.ascontiguousarray(value)

    def _from_torch(self, name: str, value: np.ndarray) -> np.ndarray:
        if value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)
        elif name == self._first_dense():
            height, width, channels = self._feature_map()
            value = value.reshape(-1, channels, height, width).transpose(2, 3, 1, 0)
            value = value.reshape(-1, value.shape[-1])
        elif value.ndim == 2:
            value = value.T
        return np.array(value, order="C")

    def _first_dense(self) -> str:
        return "dense1/kernel" if self.workload.architecture.hidden else "logits/kernel"

    def _feature_map(self) -> tuple[int, int, int]:
        """Return height, width and channels of the last feature map, which the first dense layer gets."""
        height, width, channels = self._info.image_shape
        for block in self.workload.architecture.convs:
            height, width, channels = height // block.pool, width // block.pool, block.filters
        return height, width, channels

    def save_state(self) -> State:
        state = {f"param/{name}": value for name, value in self.network.state_dict().items()}
        return {
            key: value.numpy(force=True).copy() for key, value in state.items()
        } | self._runner.optimizer.save_state()

    def restore_state(self, state: State) -> None:
        self.network.load_state_dict(
            {
                key.removeprefix("param/"): torch.from_numpy(np.array(value))
                for key, value in state.items()
                if key.startswith("param/")
            }
        )
        self._runner.optimizer.restore_state(state)

    # PyTorch's own defaults, for a workload that is not matched

    def initialise(self, seed: int) -> None:
        torch.manual_seed(seed)
        network = build_network(self.workload.architecture, self._info)  # on the CPU: the same on any device
        self.network.load_state_dict(network.state_dict())
        self._runner.optimizer.reset()

    def permutation(self, seed: int, epoch: int) -> np.ndarray:
        # As RandomSampler after torch.manual_seed(seed): a seed for each epoch, and from it the order.
        seeds = torch.empty(epoch + 1, dtype=torch.int64).random_(
            generator=torch.Generator().manual_seed(seed)
        )
        generator = torch.Generator().manual_seed(int(seeds[epoch]))
        return torch.randperm(len(self.data.images), generator=generator).numpy().astype(np.int32)

    # Instruments

    def split_steps(self, order: np.ndarray) -> StepSplit:
        clock = StepClock()
        synchronise(self.device)
        for images, labels in self._runner.data.timed_batches(order, clock):
            self._runner.step(images, labels)
            clock.mark("dispatch")
            synchronise(self.device)
            clock.mark("device")
        return clock.split(len(order))

    def count_flops(self) -> float | None:
        first = np.arange(self.workload.batch_size, dtype=np.int32) % len(self.data.images)
        return self._runner.count_flops(first[None])

    def peak(self) -> Peak:
        return measure_peak(self.device, self._precision)

    def describe(self) -> dict[str, str | int | float | bool | None]:
        on_gpu = next(self.network.parameters()).is_cuda
        thread = "its own" if self.settings.backward_thread else "the caller's"
        return {
            "device": "gpu" if on_gpu else "cpu",
            "device_name": torch.cuda.get_device_name() if on_gpu else "cpu",
            "dtype": str(torch.bfloat16 if self._precision == "bf16" else torch.float32),
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "memory_format": str(self.settings.memory_format).removeprefix("torch."),
            "backward_thread": thread if on_gpu else None,
            "cudnn_benchmark": torch.backends.cudnn.benchmark if on_gpu else None,
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32 if on_gpu else None,
            "tf32_convolution": torch.backends.cudnn.allow_tf32 if on_gpu else None,
            "build": build_of("torch"),
            "cudnn": torch.backends.cudnn.version() if on_gpu else None,
            "input_transforms": None,
            "input_workers": None,
            "graph_breaks": sum(torch._dynamo.utils.counters["graph_break"].values()),
            "cudagraph_skips": torch._dynamo.utils.counters["inductor"]["cudagraph_skips"],
            "peak_device_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        } | self._runner.facts


def find_device(device: Device) -> torch.device:
    """Return the device; raise UnavailableError if PyTorch does not see it."""
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UnavailableError(
            f"PyTorch {torch.__version__}, built for {build_of('torch')}, sees no GPU here"
        )
    return torch.device("cuda", 0)


def set_precision(precision: Precision) -> None:
    """Allow TF32 only in `tf32`; matrix products and convolutions have separate switches."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def torch_name(name: str) -> str:
    """Return PyTorch's name: `conv1.weight` for `conv1/kernel`, `conv1_norm.weight` for `conv1/scale`."""
    layer, _, kind = name.partition("/")
    if kind in NORM_NAMES:
        return f"{layer}_norm.{NORM_NAMES[kind]}"
    return f"{layer}.{'weight' if kind == 'kernel' else kind}"
