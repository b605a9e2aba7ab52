"""PyTorch's modes dataloader-samples and dataloader-batches: batches through its input pipeline."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from backends.base import TrainingData
from backends.step_clock import StepClock
from backends.torch_backend import Eager, TorchBackend, scale
from backends.torch_instruments import synchronise

WORKERS = 0
"""Processes that make samples; with 0, DataLoader's default, the training process makes them itself.

On a quiet machine of two cores 100 images take it 1.3 ms at 28 x 28 and 1.8 ms at 32 x 32. One or two workers
that are kept alive take 2.2 to 4.5 ms: such small images are made faster than sent.
"""


class LoadedData:
    """The training split in host memory, from which a DataLoader makes batches for the device."""

    workers = WORKERS

    def __init__(
        self, dataset: Dataset[Any], transforms: str, device: torch.device, memory_format: torch.memory_format
    ) -> None:
        """Take a dataset, and the description of its transforms that `describe` returns."""
        self.dataset, self.transforms = dataset, transforms
        self._device, self._memory_format = device, memory_format

    def loader(self, order: np.ndarray) -> DataLoader[tuple[Tensor, Tensor]]:
        """Return the loader of the batches that are the rows of `order`, int32 (steps, batch)."""
        raise NotImplementedError

    def transfer(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the loader gave on the device: images float32 (n, c, h, w), labels int64 (n,)."""
        images = images.to(self._device, non_blocking=True, memory_format=self._memory_format)
        return images, labels.to(self._device, non_blocking=True)

    def batches(self, order: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """Do what `DeviceData.batches` does."""
        for images, labels in self.loader(order):
            yield self.transfer(images, labels)

    def timed_batches(self, order: np.ndarray, clock: StepClock) -> Iterator[tuple[Tensor, Tensor]]:
        """Do what `DeviceData.timed_batches` does."""
        loader = iter(self.loader(order))
        clock.begin()
        for images, labels in loader:
            synchronise(self._device)
            clock.mark("data")
            batch = self.transfer(images, labels)
            synchronise(self._device)
            clock.mark("transfer")
            yield batch

    @property
    def pinned(self) -> bool:
        """Whether the loader copies batches to memory from which a GPU can read while the CPU goes on."""
        return self._device.type == "cuda"


class Loader(Eager):
    """The step of mode eager, on batches from a DataLoader."""

    def __init__(self, backend: TorchBackend) -> None:
        backend.refuse_augmentation()
        super().__init__(backend)
        self.facts = {"input_transforms": self.data.transforms, "input_workers": self.data.workers}


# Sample by sample


class SampleData(LoadedData):
    """Batches that DataLoader stacks from samples."""

    def __init__(self, data: TrainingData, device: torch.device, memory_format: torch.memory_format) -> None:
        # torchvision's transforms are made for more than bytes to floats, and take about four times as long.
        transforms = "plain torch, an image at a time"
        super().__init__(ImageDataset(data), transforms, device, memory_format)

    def loader(self, order: np.ndarray) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(
            self.dataset, batch_sampler=order.tolist(), num_workers=WORKERS, pin_memory=self.pinned
        )


class SampleLoader(Loader):
    """Mode dataloader-samples: the dataset makes single images, as most datasets do."""

    source = SampleData


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """The training split; a sample is an image, float32 (c, h, w) in [0, 1], and its label."""

    def __init__(self, data: TrainingData) -> None:
        self._images = np.asarray(data.images)  # indexing an np.memmap takes longer
        self._labels = data.labels.tolist()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return scale_image(self._images[index]), self._labels[index]


def scale_image(image: np.ndarray) -> Tensor:
    """Return an image uint8 (h, w, c) as float32 (c, h, w) in [0, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1).contiguous().to(torch.float32) / 255


# Batch by batch


class BatchData(LoadedData):
    """Batches that the dataset makes: DataLoader's own batching is off (`batch_size=None`)."""

    def __init__(self, data: TrainingData, device: torch.device, memory_format: torch.memory_format) -> None:
        transforms = "plain torch, a batch at a time: index_select in the loader, scaled on the device"
        super().__init__(BatchDataset(data), transforms, device, memory_format)

    def loader(self, order: np.ndarray) -> DataLoader[tuple[Tensor, Tensor]]:
        rows = torch.from_numpy(order)
        return DataLoader(
            self.dataset, batch_size=None, sampler=rows, num_workers=WORKERS, pin_memory=self.pinned
        )

    def transfer(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        images = images.to(self._device, non_blocking=True)  # as bytes, a quarter of what floats would be
        return scale(images, self._memory_format), labels.to(self._device, non_blocking=True)


class BatchLoader(Loader):
    """Mode dataloader-batches: the dataset makes a whole batch from a row of indices."""

    source = BatchData


class BatchDataset(Dataset[tuple[Tensor, Tensor]]):
    """The training split; an item is a batch: images uint8 (n, h, w, c) and labels int64 (n,)."""

    def __init__(self, data: TrainingData) -> None:
        self._images, self._labels = torch.from_numpy(data.images), torch.from_numpy(data.labels).long()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: Tensor) -> tuple[Tensor, Tensor]:
        return self._images.index_select(0, row), self._labels.index_select(0, row)
