"""PyTorch's mode dataloader: batches come through its input pipeline, Dataset and DataLoader."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from backends.base import TrainingData
from backends.step_clock import StepClock
from backends.torch_backend import Eager, TorchBackend
from backends.torch_instruments import synchronise

WORKERS = 0
"""Processes that make samples; with 0, DataLoader's default, the training process makes them itself.

With plain torch, on a quiet machine of two cores, 100 images take it 1.3 ms at 28 x 28 and 1.8 ms at 32 x 32.
One or two workers that are kept alive take 2.2 to 4.5 ms: such small images are made faster than sent.
Workers may pay if cores are idle and torchvision, about four times as slow, makes the samples.
"""

Transform = Callable[[np.ndarray], Tensor]


class LoadedData:
    """The training split in host memory, from which a DataLoader makes batches for the device."""

    def __init__(self, data: TrainingData, device: torch.device) -> None:
        self.dataset, self._device = ImageDataset(data), device

    def batches(self, order: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """Do what `DeviceData.batches` does."""
        for images, labels in make_loader(self.dataset, order, self._device):
            yield self.transfer(images, labels)

    def timed_batches(self, order: np.ndarray, clock: StepClock) -> Iterator[tuple[Tensor, Tensor]]:
        """Do what `DeviceData.timed_batches` does."""
        loader = iter(make_loader(self.dataset, order, self._device))
        clock.begin()
        for images, labels in loader:
            synchronise(self._device)
            clock.mark("data")
            batch = self.transfer(images, labels)
            synchronise(self._device)
            clock.mark("transfer")
            yield batch

    def transfer(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        images = images.to(self._device, non_blocking=True, memory_format=torch.channels_last)
        return images, labels.to(self._device, non_blocking=True)


class Loader(Eager):
    """Mode dataloader: the step of mode eager, and batches from a DataLoader."""

    source = LoadedData

    def __init__(self, backend: TorchBackend) -> None:
        backend.refuse_augmentation()
        super().__init__(backend)
        self.facts = {"input_transforms": self.data.dataset.transforms, "input_workers": WORKERS}


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """The training split; a sample is an image, float32 (c, h, w) in [0, 1], and its label."""

    def __init__(self, data: TrainingData) -> None:
        self._images = np.asarray(data.images)  # indexing an np.memmap takes longer
        self._labels = data.labels.tolist()
        self._transform, self.transforms = find_transforms()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._images[index]), self._labels[index]


def make_loader(dataset: ImageDataset, order: np.ndarray, device: torch.device) -> DataLoader:
    """Return the loader of the batches that are the rows of `order`, int32 (steps, batch)."""
    return DataLoader(
        dataset, batch_sampler=order.tolist(), num_workers=WORKERS, pin_memory=device.type == "cuda"
    )


def find_transforms() -> tuple[Transform, str]:
    """Return a function that scales an image, uint8 (h, w, c), and its name; if possible torchvision's."""
    try:
        import torchvision
        from torchvision.transforms import v2
    except (ImportError, RuntimeError) as error:
        # RuntimeError: torchvision was built for another torch and lacks operators ("torchvision::nms").
        return scale_image, f"plain torch, as torchvision is not available: {error}"
    transforms = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    return transforms, f"torchvision {torchvision.__version__}: ToImage, ToDtype"


def scale_image(image: np.ndarray) -> Tensor:
    """Do what torchvision's transforms do, but divide by 255 where they multiply by its inverse."""
    return torch.from_numpy(image).permute(2, 0, 1).contiguous().to(torch.float32) / 255
