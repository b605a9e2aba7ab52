"""PyTorch: torch.nn layers, a fused optimizer, data resident on the device, channels-last images.

Its input pipeline is in `torch_pipeline`; clocks and counters are in `torch_instruments`.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from backends.base import Params, State, TrainingData
from backends.torch_instruments import StepClock, counted_flops, measure_peak
from backends.torch_pipeline import WORKERS, ImageDataset, make_loader
from bench.errors import UnavailableError
from bench.records import Peak, StepSplit
from bench.specs import Architecture, DatasetInfo, Device, OptimizerSpec, Precision, Workload

EVALUATION_BATCH = 1000


class TorchBackend:
    """One network trained by PyTorch; see `backends.base.Backend` for what is owed."""

    def __init__(
        self, workload: Workload, data: TrainingData, *, mode: str, device: Device, precision: Precision
    ) -> None:
        self._device = find_device(device)
        set_precision(precision)
        self._autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=precision == "bf16")
        self._precision = precision
        self._mode = mode
        self._workload = workload
        self._info = data.info
        self._count = len(data.images)

        self._dataset = ImageDataset(data) if mode == "dataloader" else None
        if self._dataset is None:
            # uint8 stays uint8 on the device: a batch is gathered there and scaled on use.
            self._images = torch.tensor(data.images, device=self._device)
            self._labels = torch.tensor(data.labels, device=self._device, dtype=torch.int64)

        self._network = build_network(workload.architecture, data.info).to(
            self._device, memory_format=torch.channels_last
        )
        self._batch_loss = self._loss
        if mode == "compile":
            # PyTorch compiles 8 versions of a function in a process and then goes on uncompiled, with a
            # warning at most; `fullgraph` makes that, and a graph break, an error.
            torch.compiler.reset()
            self._batch_loss = torch.compile(self._loss_of_bytes, dynamic=False, fullgraph=True)
        self._reset_optimizer()

    # Training

    def train_steps(self, order: np.ndarray) -> np.ndarray:
        losses = [self._step(images, labels) for images, labels in self._batches(order)]
        return torch.stack(losses).cpu().numpy()  # the copy waits for the device

    def _batches(self, order: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        if self._dataset is None:
            for indices in torch.from_numpy(order).to(self._device):
                yield self._gather(indices)
        else:
            for images, labels in make_loader(self._dataset, order, self._device):
                yield self._transfer(images, labels)

    def _gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        images = self._images.index_select(0, indices)
        labels = self._labels.index_select(0, indices)
        return (images if self._mode == "compile" else scale(images)), labels

    def _transfer(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        images = images.to(self._device, non_blocking=True, memory_format=torch.channels_last)
        return images, labels.to(self._device, non_blocking=True)

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        loss = self._batch_loss(images, labels)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        if self._scheduler is not None:
            self._scheduler.step()
        return loss.detach()

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with self._autocast:
            logits = self._network(images)
        return functional.cross_entropy(logits.float(), labels)

    def _loss_of_bytes(self, images: Tensor, labels: Tensor) -> Tensor:
        return self._loss(scale(images), labels)  # compiled, the scaling is part of what reads it

    def _reset_optimizer(self, steps_before: int = 0) -> None:
        """Make the optimizer anew, and the schedule of its rate as it stands after so many steps."""
        self._steps_before = steps_before
        spec = self._workload.optimizer
        make = make_optimizer if self._workload.matched else make_default_optimizer
        # The first optimizer of a process imports torch._dynamo, which takes about a second: a cost that
        # everyone who uses torch.optim has, and nearly all of what it takes to build a small network.
        self._optimizer = make(spec, self._network.parameters())
        self._scheduler = None
        if spec.decay_rate != 1.0:
            self._scheduler = torch.optim.lr_scheduler.LambdaLR(
                self._optimizer,
                lambda step: spec.decay_rate ** ((self._steps_before + step) / spec.decay_steps),
            )

    # Evaluation

    @torch.inference_mode()
    def predict(self, images: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(images), EVALUATION_BATCH):
            batch = torch.tensor(images[start : start + EVALUATION_BATCH], device=self._device)
            with self._autocast:
                parts.append(self._network(scale(batch)).float().cpu())
        return torch.cat(parts).numpy()

    # What a run looks at more closely

    def split_steps(self, order: np.ndarray) -> StepSplit:
        loaded = None if self._dataset is None else iter(make_loader(self._dataset, order, self._device))
        clock = StepClock(self._device)
        for row in order:
            if loaded is None:
                indices = torch.from_numpy(row).to(self._device)
                clock.lap("transfer")
                images, labels = self._gather(indices)
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
        if self._mode == "compile":
            return None  # the counter sees operations, not the kernels that they are compiled to
        first = np.arange(self._workload.batch_size, dtype=np.int32)[None] % self._count
        images, labels = next(self._batches(first))
        # Of the update it would count nothing: so nothing is updated.
        flops = counted_flops(lambda: self._loss(images, labels).backward())
        self._optimizer.zero_grad(set_to_none=True)
        return flops

    def peak(self) -> Peak:
        return measure_peak(self._device, self._precision)

    # PyTorch's own defaults, for a workload that is not matched

    def initialise(self, seed: int) -> None:
        torch.manual_seed(seed)
        network = build_network(self._workload.architecture, self._info)  # on the CPU: the same on any device
        self._network.load_state_dict(network.state_dict())
        self._reset_optimizer()

    def permutation(self, seed: int, epoch: int) -> np.ndarray:
        # As RandomSampler draws it after torch.manual_seed(seed): a seed for each epoch, from that the order.
        seeds = torch.empty(epoch + 1, dtype=torch.int64).random_(
            generator=torch.Generator().manual_seed(seed)
        )
        generator = torch.Generator().manual_seed(int(seeds[epoch]))
        return torch.randperm(self._count, generator=generator).numpy().astype(np.int32)

    # Parameters and state

    def load_params(self, params: Params) -> None:
        state = {
            torch_name(name): torch.from_numpy(self._to_torch(name, value)) for name, value in params.items()
        }
        self._network.load_state_dict(state)
        self._reset_optimizer()

    def export_params(self) -> Params:
        state = self._network.state_dict()
        names = self._workload.architecture.parameter_shapes(self._info)
        return {name: self._from_torch(name, state[torch_name(name)].cpu().numpy()) for name in names}

    def save_state(self) -> State:
        optimizer = self._optimizer.state_dict()["state"]
        state = {f"param/{name}": value for name, value in self._network.state_dict().items()}
        state |= {
            f"slot/{i}/{slot}": value for i, slots in optimizer.items() for slot, value in slots.items()
        }
        steps = 0 if self._scheduler is None else self._steps_before + self._scheduler.last_epoch
        return {key: value.numpy(force=True).copy() for key, value in state.items()} | {
            "step": np.array(steps)
        }

    def restore_state(self, state: State) -> None:
        tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
        self._network.load_state_dict(
            {key.removeprefix("param/"): value for key, value in tensors.items() if key.startswith("param/")}
        )
        self._reset_optimizer(int(state["step"]))
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("slot/"):
                _, index, slot = key.split("/")
                slots.setdefault(int(index), {})[slot] = value
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": slots})

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
        layers[f"conv{number}"] = nn.Conv2d(channels, block.filters, block.kernel, padding=block.kernel // 2)
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


def scale(images: Tensor) -> Tensor:
    """uint8 (n, h, w, c) to float32 (n, c, h, w) in [0, 1]; NHWC memory seen as NCHW is channels-last."""
    return images.permute(0, 3, 1, 2).float() / 255


def torch_name(name: str) -> str:
    """`conv1/kernel` is `conv1.weight` in PyTorch."""
    return name.replace("/kernel", ".weight").replace("/", ".")


def make_optimizer(spec: OptimizerSpec, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer with every constant stated; `fused` updates all parameters in one kernel."""
    rate = spec.learning_rate
    match spec.name:
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=0.0, weight_decay=0.0, fused=True)
        case "momentum":
            return torch.optim.SGD(
                parameters,
                lr=rate,
                momentum=spec.momentum,
                dampening=0.0,
                nesterov=False,
                weight_decay=0.0,
                fused=True,
            )
        case "adam":
            betas = (spec.beta1, spec.beta2)
            return torch.optim.Adam(
                parameters,
                lr=rate,
                betas=betas,
                eps=spec.epsilon,
                weight_decay=0.0,
                amsgrad=False,
                fused=True,
            )
        case "rmsprop":
            return RMSProp(parameters, lr=rate, rho=spec.rho, epsilon=spec.epsilon)


def make_default_optimizer(spec: OptimizerSpec, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return torch.optim's own, constants too; a momentum, which is none by default, is the workload's."""
    match spec.name:
        case "sgd":
            return torch.optim.SGD(parameters)
        case "momentum":
            return torch.optim.SGD(parameters, momentum=spec.momentum)
        case "adam":
            return torch.optim.Adam(parameters)
        case "rmsprop":
            return torch.optim.RMSprop(parameters)


class RMSProp(torch.optim.Optimizer):
    """RMSProp with epsilon inside the root; torch.optim.RMSprop has it outside."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, rho: float, epsilon: float) -> None:
        super().__init__(parameters, {"lr": lr, "rho": rho, "epsilon": epsilon})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in parameters]
            for p in parameters:
                if not self.state[p]:
                    self.state[p]["square"] = torch.zeros_like(p)
            squares = [self.state[p]["square"] for p in parameters]
            torch._foreach_mul_(squares, group["rho"])
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["rho"])
            roots = torch._foreach_sqrt(torch._foreach_add(squares, group["epsilon"]))
            torch._foreach_addcdiv_(parameters, gradients, roots, -group["lr"])
