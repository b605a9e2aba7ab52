"""Data sets of torchvision on images that are in memory; importing this module needs torchvision.

Only how they get their images differs: `__getitem__`, which makes a sample, is torchvision's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torchvision.datasets import CIFAR10, MNIST, VisionDataset


class ArrayMNIST(MNIST):
    """torchvision's MNIST from images uint8 (n, h, w, 1) and labels uint8 (n,)."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable[[Any], Any]) -> None:
        VisionDataset.__init__(self, root="", transform=transform)
        self.data, self.targets = torch.from_numpy(images).squeeze(3), torch.from_numpy(labels).long()


class ArrayCIFAR10(CIFAR10):
    """torchvision's CIFAR10 from images uint8 (n, h, w, 3) and labels uint8 (n,)."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable[[Any], Any]) -> None:
        VisionDataset.__init__(self, root="", transform=transform)
        self.data, self.targets = images, labels.tolist()
