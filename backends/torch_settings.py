"""What a mode of PyTorch sets before it builds the network: PyTorch's own defaults, or a tuned choice."""

import msgspec
import torch


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a mode runs PyTorch. The defaults here are PyTorch's own."""

    memory_format: torch.memory_format = torch.contiguous_format
    """How the images and the kernels of convolutions lie in memory."""
    backward_thread: bool = True
    """Whether the backward pass of a GPU runs in a thread of its own. To wake it takes a third of a small
    network's step."""
    cudnn_benchmark: bool = False
    """Whether cuDNN times its algorithms for each new shape and takes the fastest. Here shapes are fixed."""
    fused: bool = False
    """Whether an optimizer of `torch.optim` updates all parameters in one kernel, where it can."""

    def apply(self) -> None:
        """Set what belongs to the whole process; the backend that is built last decides."""
        torch.autograd.set_multithreading_enabled(self.backward_thread)
        torch.backends.cudnn.benchmark = self.cudnn_benchmark


TAUGHT = Settings()
TUNED = Settings(memory_format=torch.channels_last, backward_thread=False, cudnn_benchmark=True, fused=True)
