"""PyTorch's lessons: slow and quick ways to train, as users write them.

`Network` and `train_step` are written in the style of PyTorch's quickstart. Nothing is tuned.
Both are without types, as students write them. `backends.lessons` is the contract.
"""

from collections.abc import Iterator
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)
from torch.utils.data import DataLoader, Dataset

from backends.base import TrainingData
from backends.torch_backend import find_device
from backends.torch_toolchain import require_toolchain
from bench.workloads.specs import Device

RATE = 0.01


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden1 = nn.Linear(28 * 28, 512)
        self.hidden2 = nn.Linear(512, 256)
        self.logits = nn.Linear(256, 10)

    def forward(self, x):
        x = torch.flatten(x, start_dim=1)
        x = F.relu(self.hidden1(x))
        x = F.relu(self.hidden2(x))
        return self.logits(x)


def train_step(model, optimizer, images, labels):
    loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


class Images(Dataset[tuple[Tensor, Tensor]]):
    """A data set that gives single images, float32 (1, 28, 28), and labels."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index].float() / 255, self.labels[index]


class TorchLessons:
    """Keeps the contract `backends.lessons.Lessons`."""

    def __init__(self, data: TrainingData, *, device: Device) -> None:
        self._device = find_device(device)
        self.images = torch.tensor(data.images).squeeze(-1)  # uint8 (n, 28, 28)
        self.labels = torch.tensor(data.labels, dtype=torch.int64)
        self.model = Network().to(self._device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)

    def device(self) -> str:
        return "gpu" if next(self.model.parameters()).is_cuda else "cpu"

    @cached_property
    def compiled_model(self) -> nn.Module:
        """The network, compiled; UnavailableError if there is no compiler here."""
        require_toolchain("compiled", gpu=self.device() == "gpu")
        return torch.compile(self.model)

    # Why is mine slow?

    def sample_by_sample(self, steps: int, batch_size: int) -> list[float]:
        losses = []
        for images, labels in islice(self.loaded(batch_size), steps):
            losses.append(train_step(self.model, self.optimizer, images, labels))
        return torch.stack(losses).tolist()

    def batch_by_batch(self, steps: int, batch_size: int) -> list[float]:
        losses = []
        for images, labels in islice(self.cut_out(batch_size), steps):
            losses.append(train_step(self.model, self.optimizer, images, labels))
        return torch.stack(losses).tolist()

    not_compiled = batch_by_batch

    def compiled(self, steps: int, batch_size: int) -> list[float]:
        losses = []
        for images, labels in islice(self.cut_out(batch_size), steps):
            losses.append(train_step(self.compiled_model, self.optimizer, images, labels))
        return torch.stack(losses).tolist()

    def loss_every_step(self, steps: int, batch_size: int) -> list[float]:
        losses = []
        for images, labels in islice(self.cut_out(batch_size), steps):
            losses.append(train_step(self.model, self.optimizer, images, labels).item())
        return losses

    # Batches without end, each epoch in a new order

    def loaded(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Ask the data set for every single image, and join them, as a DataLoader does."""
        loader = DataLoader(Images(self.images, self.labels), batch_size, shuffle=True, drop_last=True)
        while True:
            for images, labels in loader:
                yield images.to(self._device), labels.to(self._device)

    def cut_out(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Take all images of a batch with one call, and scale them with one."""
        while True:
            order = torch.randperm(len(self.images))
            for rows in order[: len(order) // batch_size * batch_size].split(batch_size):
                images = self.images[rows].to(self._device).float() / 255
                yield images, self.labels[rows].to(self._device)

    # What does an error look like?

    def step_on(self, images: np.ndarray, labels: np.ndarray) -> float:
        model = Network().to(self._device)
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        x, y = torch.tensor(images), torch.tensor(labels, dtype=torch.int64)
        return train_step(model, optimizer, x.to(self._device), y.to(self._device)).item()

    def checked_step_on(self, images: np.ndarray, labels: np.ndarray) -> float:
        with torch.autograd.detect_anomaly():
            return self.step_on(images, labels)
