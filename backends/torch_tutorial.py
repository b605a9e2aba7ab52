"""PyTorch's mode tutorial: the training loop of PyTorch's quickstart, with its defaults.

The quickstart is https://docs.pytorch.org/tutorials/beginner/basics/quickstart_tutorial.html. Three things
differ from it. The harness has the images in memory already, so the data sets of torchvision read no files.
The harness gives the order of the images. `ToTensor`, which torchvision calls deprecated, is replaced as its
documentation says: by `v2.ToImage` and `v2.ToDtype`.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from backends.base import TrainingData
from backends.torch_backend import TorchBackend
from backends.torch_pipeline import ImageDataset, LoadedData, Loader
from backends.torch_settings import TAUGHT


def make_dataset(data: TrainingData) -> tuple[Dataset[tuple[Any, int]], str]:
    """Return a data set, of torchvision where that can be imported and else of plain torch, and its name."""
    try:
        import torchvision
        from torchvision.transforms import v2

        from backends.torchvision_datasets import ArrayCIFAR10, ArrayMNIST
    except (ImportError, RuntimeError):  # RuntimeError: torchvision was built for another torch
        plain = ImageDataset(data)
        return plain, plain.transforms
    kind = ArrayMNIST if data.info.image_shape[2] == 1 else ArrayCIFAR10
    transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    name = f"torchvision {torchvision.__version__}: {kind.__base__.__name__}, ToImage, ToDtype"
    return kind(np.asarray(data.images), np.asarray(data.labels), transform), name


class TutorialData(LoadedData):
    """A data set of torchvision and a DataLoader, with nothing but the order set."""

    workers = 0

    def __init__(self, data: TrainingData, device: torch.device, memory_format: torch.memory_format) -> None:
        super().__init__(*make_dataset(data), device, memory_format)

    def loader(self, order: np.ndarray) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(self.dataset, batch_sampler=order.tolist())

    def transfer(self, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N803 (the quickstart's names)
        return X.to(self._device), y.to(self._device)


class Tutorial(Loader):
    """Mode tutorial."""

    settings = TAUGHT
    source = TutorialData

    def __init__(self, backend: TorchBackend) -> None:
        super().__init__(backend)
        self.model, self.loss_fn = backend.network, nn.CrossEntropyLoss(reduction=backend.workload.loss)

    def step(self, X: Tensor, y: Tensor) -> Tensor:  # noqa: N803
        """Train on one batch and return its loss, a scalar."""
        loss = self.loss(X, y)

        # Backpropagation
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def loss(self, X: Tensor, y: Tensor) -> Tensor:  # noqa: N803
        # Compute prediction error
        with self._autocast:  # only in bf16; in fp32 it does nothing
            pred = self.model(X)
        return self.loss_fn(pred.float(), y)
