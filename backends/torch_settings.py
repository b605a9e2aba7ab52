"""What a mode of PyTorch sets before it builds the network: PyTorch's own defaults, or a tuned choice."""

from typing import Self

import msgspec
import torch

from bench.workloads.specs import Architecture


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a mode runs PyTorch. The defaults here are PyTorch's own."""

    memory_format: torch.memory_format = torch.contiguous_format
    """How the images and the kernels of convolutions lie in memory."""
    backward_thread: bool = True
    """Whether a GPU's backward pass runs in its own thread. Waking that thread takes up to a third of a small
    network's step."""
    cudnn_benchmark: bool = False
    """Whether cuDNN times its algorithms for each new shape and takes the fastest. Here shapes are fixed."""
    fused: bool = False
    """Whether an optimizer of `torch.optim` updates all parameters in one kernel, where it can."""

    def for_network(self, architecture: Architecture) -> Self:
        """Return the settings for a network: only one with convolutions gains by channels-last.

        Images in that layout would be copied in every step of another network, which flattens them first.
        """
        if architecture.convs:
            return self
        return msgspec.structs.replace(self, memory_format=torch.contiguous_format)

    def apply(self) -> None:
        """Set what belongs to the process, or to the thread that trains; the last built backend decides."""
        torch.autograd.set_multithreading_enabled(self.backward_thread)
        torch.backends.cudnn.benchmark = self.cudnn_benchmark


TAUGHT = Settings()
TUNED = Settings(memory_format=torch.channels_last, backward_thread=False, cudnn_benchmark=True, fused=True)
