"""Train a small CNN on MNIST with PyTorch.

This file needs torch and NumPy, and nothing else:

    pip install torch numpy
    python examples/mnist_pytorch.py FOLDER

FOLDER holds the four files of MNIST as they are published, gzipped or not. This command writes them:

    bench data export mnist FOLDER

mnist_tensorflow.py and mnist_jax.py train the same network from the same weights with the same batches.
"""

import argparse
import gzip
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

SEED, BATCH, RATE = 0, 100, 0.1
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


# The data


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Read a file such as train-images-idx3-ubyte.gz: uint8 (images, 28, 28) or, of labels, (images,)."""
    found = sorted(folder.glob(f"{name}*"))
    if not found:
        raise SystemExit(f"{folder} has no file {name}-...; write it with: bench data export mnist {folder}")
    content = found[0].read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def to_device(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Put all images on the device once. They stay bytes: as float32 they would take four times as much."""
    x, y = torch.tensor(images), torch.tensor(labels, dtype=torch.int64)
    return x.unsqueeze(1).to(DEVICE), y.to(DEVICE)  # images (n, 1, 28, 28): PyTorch has channels first


def batches(images: Tensor, labels: Tensor, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of an epoch in an order of its own, without an incomplete last one."""
    order = np.random.Generator(np.random.PCG64([SEED, epoch])).permutation(len(images))
    for rows in order[: len(order) // BATCH * BATCH].reshape(-1, BATCH):
        chosen = torch.from_numpy(rows).to(DEVICE)
        yield images[chosen].float() / 255, labels[chosen]


# The network


class CNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=5, padding="same")
        self.conv2 = nn.Conv2d(32, 64, kernel_size=5, padding="same")
        self.dense1 = nn.Linear(64 * 7 * 7, 128)
        self.logits = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, start_dim=1)
        return self.logits(F.relu(self.dense1(x)))


def glorot(number: int, *shape: int) -> np.ndarray:
    """Draw a kernel, (height, width, in, out) or (in, out), from a random stream of its own."""
    area = int(np.prod(shape[:-2]))
    limit = np.sqrt(6.0 / (area * (shape[-2] + shape[-1])))
    generator = np.random.Generator(np.random.PCG64([SEED, number]))
    return generator.uniform(-limit, limit, shape).astype(np.float32)


@torch.no_grad()
def make_model() -> CNN:
    """Return the network with the weights from which the files for the other frameworks start, too."""
    model = CNN()
    # PyTorch has channels first, the others have them last.
    model.conv1.weight.copy_(torch.from_numpy(glorot(0, 5, 5, 1, 32).transpose(3, 2, 0, 1)))
    model.conv2.weight.copy_(torch.from_numpy(glorot(2, 5, 5, 32, 64).transpose(3, 2, 0, 1)))
    kernel = glorot(4, 7 * 7 * 64, 128).reshape(7, 7, 64, 128).transpose(3, 2, 0, 1).reshape(128, -1)
    model.dense1.weight.copy_(torch.from_numpy(kernel))
    model.logits.weight.copy_(torch.from_numpy(glorot(6, 128, 10).T))
    for layer in model.children():
        nn.init.zeros_(layer.bias)
    return model.to(DEVICE)


# Training


def train_epoch(model: nn.Module, images: np.ndarray, labels: np.ndarray, epoch: int) -> list[float]:
    """Train for one epoch and return the loss of each step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    model.train()
    losses = []
    for x, y in batches(*to_device(images, labels), epoch):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())  # stays on the device: .item() would wait for it at every step
    return torch.stack(losses).tolist()


@torch.inference_mode()
def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    model.eval()
    x, y = to_device(images, labels)
    right = [
        (model(part.float() / 255).argmax(dim=1) == of_part).sum()
        for part, of_part in zip(x.split(1000), y.split(1000), strict=True)
    ]
    return float(sum(right)) / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small CNN on MNIST with PyTorch.")
    parser.add_argument("folder", type=Path, help="with the four files of MNIST")
    parser.add_argument("--epochs", type=int, default=1)
    asked = parser.parse_args()
    names = ("train-images", "train-labels", "t10k-images", "t10k-labels")
    train_x, train_y, test_x, test_y = (read_idx(asked.folder, name) for name in names)
    model = make_model()
    for epoch in range(asked.epochs):
        start = time.perf_counter()
        losses = train_epoch(model, train_x, train_y, epoch)
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, {seconds:.1f} s", end=", ")
        print(f"test accuracy {accuracy(model, test_x, test_y):.2%}")


if __name__ == "__main__":
    main()
