"""The checks of PyTorch's input pipelines, and of the samples of mode tutorial."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from torch_kit import CNN, LOADERS, data, make, order

from backends.base import TrainingData
from bench.workloads.specs import DatasetInfo


def a_loader_gives_the_batches_that_were_asked_for() -> None:
    import torch

    given, rows = data(), order(7)
    for mode in LOADERS:
        batches = list(make(mode)._runner.data.batches(rows))
        assert len(batches) == 7, mode
        for (images, labels), row in zip(batches, rows, strict=True):
            assert type(images) is torch.Tensor, f"{mode}: {type(images)}"
            assert (images.dtype, labels.dtype) == (torch.float32, torch.int64), mode
            expected = given.images[row].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
            np.testing.assert_array_equal(images.numpy(), expected, err_msg=mode)
            np.testing.assert_array_equal(labels.numpy(), given.labels[row], err_msg=mode)


def a_dataset_of_batches_is_asked_once_for_each() -> None:
    loaded, asked = make("dataloader-batches")._runner.data, []
    inner = loaded.dataset.__getitem__
    with mock.patch.object(
        type(loaded.dataset), "__getitem__", lambda self, row: asked.append(row) or inner(row)
    ):
        assert len(list(loaded.batches(order(7)))) == 7
    np.testing.assert_array_equal(np.stack(asked), order(7))


def a_pipeline_computes_what_eager_does() -> None:
    expected = make("eager", CNN).train_steps(order(20))
    for mode in LOADERS:
        # The same operations on the same numbers; only the layout of a convolution's input may differ.
        np.testing.assert_allclose(make(mode, CNN).train_steps(order(20)), expected, rtol=2e-6, err_msg=mode)


def a_tutorial_says_what_makes_its_samples() -> None:
    from backends import torch_pipeline as pipeline
    from backends.torch_tutorial import PillowDataset

    assert make("eager").describe()["input_transforms"] is None
    assert make("dataloader-samples").describe()["input_transforms"] == "plain torch, an image at a time"
    for mode in LOADERS:
        assert make(mode).describe()["input_workers"] == pipeline.WORKERS, mode

    for text in ("raise RuntimeError('operator torchvision::nms does not exist')", "raise ImportError('no')"):
        with torchvision_from({"torchvision.py": text}):
            tutorial = make("tutorial")
        described = str(tutorial.describe()["input_transforms"])
        assert isinstance(tutorial._runner.data.dataset, PillowDataset)
        assert described.startswith("the operations of torchvision"), described
        assert text.split("'")[1] in described, described


@contextlib.contextmanager
def torchvision_from(files: dict[str, str]) -> Iterator[None]:
    """Let `import torchvision` find these files and nothing else."""

    def ours() -> dict[str, Any]:
        names = [name for name in sys.modules if name.startswith(("torchvision", "backends.torchvision"))]
        return {name: sys.modules.pop(name) for name in names}

    here = ours()
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(sys, "path", [folder, *sys.path]):
        for name, text in files.items():
            Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, name).write_text(text)
        yield
    ours()
    sys.modules.update(here)


PLAYED_TORCHVISION = {
    "torchvision/__init__.py": "__version__ = 'played'",
    "torchvision/datasets.py": """
from PIL import Image

class VisionDataset:
    def __init__(self, root=None, transforms=None, transform=None):
        self.transform = transform

    def __len__(self):
        return len(self.data)

class MNIST(VisionDataset):
    def __getitem__(self, index):
        image = Image.fromarray(self.data[index].numpy())
        assert image.mode == "L"
        return self.transform(image), int(self.targets[index])

class CIFAR10(VisionDataset):
    def __getitem__(self, index):
        image = Image.fromarray(self.data[index])
        assert image.mode == "RGB"
        return self.transform(image), self.targets[index]
""",
    "torchvision/transforms/__init__.py": """
import numpy
import torch

def ToTensor():
    def tensor_of(image):
        height, width = image.size[::-1]
        pixels = torch.from_numpy(numpy.array(image).reshape(height, width, -1))
        return pixels.permute(2, 0, 1).contiguous().to(torch.float32) / 255
    return tensor_of
""",
}
"""torchvision as far as mode tutorial uses it, with the layouts of the real one."""


def a_tutorial_gets_its_samples_from_torchvision() -> None:
    with torchvision_from(PLAYED_TORCHVISION):
        samples_are_right("torchvision")


def torchvision_makes_the_samples_of_a_tutorial() -> bool:
    """Return whether there is a torchvision to ask."""
    try:
        import torchvision  # noqa: F401 (only whether it can be imported)
    except (ImportError, RuntimeError):
        return False
    samples_are_right("torchvision")
    return True


def without_torchvision_a_tutorial_gets_the_same_samples() -> None:
    with torchvision_from({"torchvision.py": "raise ImportError('no')"}):
        samples_are_right("backends")


def samples_are_right(maker: str) -> None:
    """Check the samples of mode tutorial, gray and in color, and the package whose code makes them."""
    import torch

    from backends.torch_tutorial import make_dataset

    rng = np.random.default_rng(0)
    for name, shape in (("MNIST", (28, 28, 1)), ("CIFAR10", (32, 32, 3))):
        images = rng.integers(0, 256, (20, *shape), dtype=np.uint8)
        given = TrainingData(
            info=DatasetInfo(name="noise", image_shape=shape, classes=10),
            images=images,
            labels=rng.integers(0, 10, 20, dtype=np.uint8),
        )
        dataset, described = make_dataset(given)
        owner = next(kind for kind in type(dataset).__mro__ if "__getitem__" in vars(kind))
        assert owner.__module__.partition(".")[0] == maker
        if maker == "torchvision":
            assert owner.__name__ == name
            assert described == f"torchvision {sys.modules['torchvision'].__version__}: {name}, ToTensor"
        assert len(dataset) == 20
        for index in (0, 7, 19):
            sample, label = dataset[index]
            expected = images[index].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
            assert (sample.dtype, sample.is_contiguous()) == (torch.float32, True)
            np.testing.assert_array_equal(sample.numpy(), expected)
            assert (type(label), label) == (int, given.labels[index])


PIPELINE_CHECKS = (
    a_loader_gives_the_batches_that_were_asked_for,
    a_dataset_of_batches_is_asked_once_for_each,
    a_pipeline_computes_what_eager_does,
    a_tutorial_says_what_makes_its_samples,
    without_torchvision_a_tutorial_gets_the_same_samples,
    a_tutorial_gets_its_samples_from_torchvision,
    torchvision_makes_the_samples_of_a_tutorial,
)
