"""Augmentation in PyTorch, a batch at a time: the formulas of `bench.workloads.augmentation`.

torchvision's functions change all images of a batch by one factor, or draw a factor themselves. Nothing here
copies a value from the host to the device or back: on a GPU the copy would make every step wait.
"""

import torch
from torch import Tensor

from bench.workloads.augmentation import BRIGHTNESS, COLUMN, CONTRAST, FLIP, HUE, ROW, SATURATION


def augment(
    images: Tensor, indices: Tensor, draws: Tensor, crop: int, memory_format: torch.memory_format
) -> Tensor:
    """Return the uint8 images (N, h, w, c) at `indices` (n,), augmented: float32 (n, c, crop, crop)."""
    x = crop_and_flip(images, indices, draws, crop).permute(0, 3, 1, 2).float() / 255
    values = draws[:, :, None, None, None]
    x = turn_hue(x, values[:, HUE])
    mean = x.mean(dim=(2, 3), keepdim=True)
    x = torch.lerp(mean, x, values[:, CONTRAST]) + values[:, BRIGHTNESS]
    x = scale_saturation(x, values[:, SATURATION])
    return x.clamp(0, 1).contiguous(memory_format=memory_format)


def crop_and_flip(images: Tensor, indices: Tensor, draws: Tensor, crop: int) -> Tensor:
    """Return a window of each image, mirrored where its draw is 1: uint8 (n, crop, crop, c)."""
    places = torch.arange(crop, device=images.device)
    rows = draws[:, ROW, None].long() + places
    mirrored = draws[:, FLIP, None] == 1
    columns = draws[:, COLUMN, None].long() + torch.where(mirrored, places.flip(0), places)
    return images[indices[:, None, None], rows[:, :, None], columns[:, None, :]]


def turn_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of images (n, c, h, w) in [0, 1] by `turns` (n, 1, 1, 1); grey images have no hue."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    value, least = x.amax(1), x.amin(1)
    chroma = value - least
    safe = torch.where(chroma > 0, chroma, 1)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    # 5, 3, 1 for red, green and blue, computed on the device: torch.tensor would copy them from the host.
    sixths = torch.arange(5, 0, -2, device=x.device)[:, None, None]
    k = (sixths + hue[:, None] + 6 * turns).remainder(6)
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def scale_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply the saturation of images (n, c, h, w) by a factor (n, 1, 1, 1)."""
    value, least = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    chroma = value - least
    safe = torch.where(chroma > 0, chroma, 1)
    factor = torch.where(value > 0, torch.minimum(factor, value / safe), 0)
    return value - (value - x) * factor
