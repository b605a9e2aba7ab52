"""PyTorch's mode `ddp`: the step of mode eager in every rank, gradients averaged by DistributedDataParallel.

The ranks meet at a store of PyTorch (`TCPStore`) that rank 0 serves. Collectives are gloo's on a CPU and
NCCL's on a GPU.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.nn.parallel import DistributedDataParallel

from backends.runners import name_interface
from backends.torch_backend import BatchNorm, Eager
from bench.workloads.ranks import Place, part
from bench.workloads.specs import Device

if TYPE_CHECKING:
    from backends.torch_backend import TorchBackend


class WholeBatchNorm(BatchNorm):
    """Batch normalisation by the statistics of the whole batch, of which every rank has an equal part.

    `torch.nn.SyncBatchNorm` runs on GPUs alone, and its running variance follows the unbiased one.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        values = x.float()
        mean = MeanOfRanks.apply(values.mean(dim=(0, 2, 3)))
        centred = values - mean[:, None, None]
        variance = MeanOfRanks.apply(centred.square().mean(dim=(0, 2, 3)))
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class MeanOfRanks(Function):
    """The mean of a tensor over all ranks, in each of them. It is linear and symmetric: its own gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return mean_of_ranks(x.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return mean_of_ranks(gradient.clone())


def mean_of_ranks(x: Tensor) -> Tensor:
    """Replace a tensor by its mean over all ranks, and return it."""
    dist.all_reduce(x)  # a sum, as gloo has no mean
    return x.div_(dist.get_world_size())


class Ddp(Eager):
    """Mode ddp.

    Gradients are averaged over the ranks, in buckets, while the backward pass still computes others. The loss
    of a rank is therefore scaled so that its mean over the ranks is the loss of the whole batch.
    """

    norm = WholeBatchNorm
    """The class of batch normalisation."""

    @staticmethod
    def join(place: Place, device: Device) -> None:
        if dist.is_initialized():
            return
        name_interface(place, "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
        host, _, port = place.addresses[0].rpartition(":")
        store = dist.TCPStore(host, int(port), place.ranks, is_master=place.rank == 0)
        dist.init_process_group(
            "nccl" if device == "gpu" else "gloo",
            store=store,
            rank=place.rank,
            world_size=place.ranks,
            device_id=torch.device("cuda", 0) if device == "gpu" else None,
        )

    def __init__(self, backend: "TorchBackend") -> None:
        super().__init__(backend)
        self._place = backend.place
        # A static graph pays only where parameters get no gradient, which DDP would otherwise have to find.
        # `WholeBatchNorm` keeps the statistics of all ranks equal, so nothing has to be sent before a step.
        self._network = DistributedDataParallel(
            backend.network, broadcast_buffers=False, gradient_as_bucket_view=True
        )
        self.facts = {
            "engine": "DistributedDataParallel",
            "ranks": dist.get_world_size(),
            "collectives": dist.get_backend(),
        }

    def train(self, order: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
        mine = part(order.shape[1], self._place)
        losses = self._trained(order[:, mine], None if draws is None else draws[:, mine])
        return mean_of_ranks(losses).cpu().numpy()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return a loss whose mean over the ranks is that of the whole batch."""
        loss = super().loss(images, labels)
        return loss * self._place.ranks if self._reduction == "sum" else loss

    def longest(self, seconds: float) -> float:
        found = torch.tensor(seconds, dtype=torch.float64, device=self._device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return found.item()
