"""PyTorch's mode tutorial: the training loop of PyTorch's quickstart, with its defaults.

The quickstart is https://docs.pytorch.org/tutorials/beginner/basics/quickstart_tutorial.html. Two things
differ from it. The harness has the images in memory already, so the data sets of torchvision read no files.
The harness gives the order of the images.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from backends.base import TrainingData
from backends.torch_backend import TorchBackend
from backends.torch_pipeline import LoadedData, Loader
from backends.torch_settings import TAUGHT


def make_dataset(data: TrainingData) -> tuple[Dataset[tuple[Any, int]], str]:
    """Return torchvision's data set, or one that does the same where it cannot be imported, and its name."""
    images, labels = np.asarray(data.images), np.asarray(data.labels)
    try:
        import torchvision
        from torchvision.transforms import ToTensor

        from backends.torchvision_datasets import ArrayCIFAR10, ArrayMNIST
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision was built for another torch
        return PillowDataset(images, labels), f"the operations of torchvision, which is missing: {error}"
    kind = ArrayMNIST if data.info.image_shape[2] == 1 else ArrayCIFAR10
    name = f"torchvision {torchvision.__version__}: {kind.__base__.__name__}, ToTensor"
    return kind(images, labels, ToTensor()), name


class PillowDataset(Dataset[tuple[Tensor, int]]):
    """What torchvision's MNIST and CIFAR10 do with `ToTensor`, operation by operation.

    The row then does the work of the quickstart on every machine. Source: `MNIST.__getitem__`,
    `CIFAR10.__getitem__` and `transforms.functional.to_tensor` of torchvision 0.29.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Take images uint8 (n, h, w, c) of one or three channels, and labels (n,)."""
        gray = images.shape[3] == 1
        self._images = torch.from_numpy(images).squeeze(3) if gray else images
        self._labels = torch.from_numpy(labels).long() if gray else labels.tolist()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self._images[index]
        image = Image.fromarray(np.asarray(pixels))
        return to_tensor(image), int(self._labels[index])


def to_tensor(image: Image.Image) -> Tensor:
    """Return an image of bytes as float32 (c, h, w) in [0, 1]."""
    pixels = torch.from_numpy(np.array(image, np.uint8, copy=True))
    pixels = pixels.view(image.size[1], image.size[0], len(image.getbands()))
    return pixels.permute((2, 0, 1)).contiguous().to(torch.get_default_dtype()).div(255)


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
