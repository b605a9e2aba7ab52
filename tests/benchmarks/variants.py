"""Variants of a loop by hand, by turns in one process: for questions that docs/performance.md answers.

    python tests/benchmarks/variants.py QUESTION [--workload NAME] [--batch N] [--rounds N]

The first variant is what the others are held against. What a variable of the environment changes is asked of
`bench ab --head NAME=VALUE`, which trains in processes of their own.
"""

import argparse
import math
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from bench.datasets import cache as datasets
from bench.worker.stopwatch import Stopwatch
from bench.workloads.batches import BatchOrder
from bench.workloads.catalog import find_workload, swept
from bench.workloads.parameters import initial_params

TURN_S = 0.1
WARMUP_S = 1.0
MOST_UNROLLED = 16
"""Steps to a call, at most; all that is trained is a multiple, so that nothing is left over."""
SEED = 0
Train = Callable[[np.ndarray], np.ndarray]


class Given:
    """What every variant is made from."""

    def __init__(self, workload: str, batch: int) -> None:
        self.workload = swept(find_workload(workload), batch)
        self.data = datasets.load(self.workload.dataset, cache=datasets.cache_dir())

    def made(self, how: Callable[..., Train], pictures: Any) -> Train:
        start = initial_params(self.workload.architecture, self.data.info, seed=SEED)
        return how(start, self.workload.optimizer.learning_rate, pictures)

    @property
    def images(self) -> np.ndarray:
        return self.data.train_images

    @property
    def labels(self) -> np.ndarray:
        return self.data.train_labels


def jax_unrolled(given: Given) -> Mapping[str, Train]:
    """How many unrolled steps to a call of a jitted function."""
    import jax_loops as loops

    pictures = loops.on_device(given.images, given.labels)
    several = {steps: partial(loops.unrolled, chunk=steps) for steps in (2, 4, 8, MOST_UNROLLED)}
    return {"a call a step": given.made(loops.jit, pictures)} | {
        f"{steps} steps a call": given.made(how, pictures) for steps, how in several.items()
    }


def jax_layout(given: Given) -> Mapping[str, Train]:
    """Channels last, as the images lie, or first, as in PyTorch's papers."""
    import jax
    import jax.numpy as jnp
    import jax_loops as loops

    def channels_first(layers: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        x = x.transpose(0, 3, 1, 2)
        for kernel, bias in layers[:-1]:
            if kernel.ndim == 4:
                numbers = ("NCHW", "OIHW", "NCHW")
                x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
                n, channels, height, width = x.shape
                x = jax.nn.relu(x + bias[:, None, None])
                x = x.reshape(n, channels, height // 2, 2, width // 2, 2).max((3, 5))
            else:
                x = jax.nn.relu(x.reshape(len(x), -1) @ kernel + bias)
        kernel, bias = layers[-1]
        logits = x.reshape(len(x), -1) @ kernel + bias
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()

    def first(params: loops.Params, rate: float, pictures: loops.Pictures) -> Train:
        turned = {
            name: value.transpose(3, 2, 0, 1) if value.ndim == 4 else value for name, value in params.items()
        }
        return loops.jit(turned, rate, pictures, loss=channels_first)

    pictures = loops.on_device(given.images, given.labels)
    return {"channels last": given.made(loops.jit, pictures), "channels first": given.made(first, pictures)}


def tensorflow_unrolled(given: Given) -> Mapping[str, Train]:
    """How many unrolled steps to a call of a tf.function that XLA compiles."""
    import tensorflow_loops as loops

    pictures = loops.on_device(given.images, given.labels)
    several = {steps: partial(loops.unrolled, chunk=steps) for steps in (2, 4, 8)}
    return {"a call a step": given.made(loops.LOOPS["xla"], pictures)} | {
        f"{steps} steps a call": given.made(how, pictures) for steps, how in several.items()
    }


def tensorflow_indices(given: Given) -> Mapping[str, Train]:
    """Batches as int32 or int64."""
    import tensorflow_loops as loops

    pictures = loops.on_device(given.images, given.labels)
    train = given.made(loops.all_in_a_call, pictures)
    wide = given.made(partial(loops.all_in_a_call, kind=np.int64), pictures)
    return {"int32": train, "int64": wide}


def tensorflow_images(given: Given) -> Mapping[str, Train]:
    """Images where they are mapped, or in a copy of TensorFlow's own."""
    import tensorflow as tf
    import tensorflow_loops as loops

    from backends.tensorflow_backend import shared

    labels = tf.constant(given.labels.astype(np.int32))
    kept = {"mapped": shared, "a constant": tf.constant, "a variable": partial(tf.Variable, trainable=False)}
    return {
        name: given.made(loops.LOOPS["graph"], (keep(given.images), labels)) for name, keep in kept.items()
    }


def torch_images(given: Given) -> Mapping[str, Train]:
    """Images where they are mapped, or in a copy of PyTorch's own; gathered, and nothing else."""
    import torch

    def gathering(images: torch.Tensor) -> Train:
        def train(order: np.ndarray) -> np.ndarray:
            for batch in torch.from_numpy(order):
                images.index_select(0, batch)
            return np.zeros(len(order), np.float32)

        return train

    return {
        "mapped": gathering(torch.from_numpy(given.images)),
        "a copy": gathering(torch.tensor(given.images)),
    }


def torch_scaling(given: Given) -> Mapping[str, Train]:
    """Where the bytes of images become numbers from 0 to 1, with four compiled steps to a call."""
    import torch
    import torch_loops as loops

    def scaled(params: loops.Params, rate: float, pictures: loops.Pictures, *, where: str) -> Train:
        step, parameters = loops.whole_step(params, rate, pictures)
        x, y = pictures

        def four(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            if where == "in the program":
                images = images.float() / 255
            batches = zip(images.chunk(4), labels.chunk(4), strict=True)
            return torch.stack([step(parameters, *batch) for batch in batches])

        program = torch.compile(four, dynamic=False, fullgraph=True)

        def train(order: np.ndarray) -> np.ndarray:
            losses = []
            for rows in torch.from_numpy(order).flatten().split(4 * order.shape[1]):
                images = x.index_select(0, rows)
                if where == "before it":
                    images = images.float().div_(255)
                losses.append(program(images, y.index_select(0, rows)))
            return torch.cat(losses).numpy()

        return train

    kept = loops.on_device(given.images, given.labels)
    as_bytes = (torch.from_numpy(given.images).permute(0, 3, 1, 2), kept[1])
    pictures = {"in the program": as_bytes, "before it": as_bytes, "once for all": kept}
    return {where: given.made(partial(scaled, where=where), these) for where, these in pictures.items()}


QUESTIONS: Mapping[str, Callable[[Given], Mapping[str, Train]]] = {
    question.__name__.replace("_", "-"): question
    for question in (
        jax_unrolled, jax_layout, tensorflow_unrolled, tensorflow_indices, tensorflow_images, torch_images,
        torch_scaling,
    )
}  # fmt: skip


def seconds_of(train: Train, order: np.ndarray) -> float:
    clock = Stopwatch()
    train(order)
    return clock.seconds()


def warmed_up(train: Train, batches: BatchOrder) -> float:
    """Train until nothing compiles any more, and return the seconds of a step."""
    clock, quickest = Stopwatch(), math.inf
    while clock.seconds() < WARMUP_S or quickest is math.inf:
        seconds_of(train, batches.steps(0, MOST_UNROLLED))
        quickest = min(quickest, seconds_of(train, batches.steps(0, MOST_UNROLLED)) / MOST_UNROLLED)
    return quickest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("--workload", default="mnist-softmax")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=30)
    asked = parser.parse_args()
    given = Given(asked.workload, asked.batch)
    variants = QUESTIONS[asked.question](given)
    batches = BatchOrder(images=len(given.images), batch_size=asked.batch, seed=SEED)
    step_s = min(warmed_up(train, batches) for train in variants.values())
    steps = MOST_UNROLLED * max(1, round(TURN_S / step_s / MOST_UNROLLED))
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(asked.rounds):
        names = list(variants)
        random.Random(number).shuffle(names)  # noqa: S311 (an order)
        for name in names:
            taken[name].append(seconds_of(variants[name], batches.steps(number * steps, steps)) / steps)
    first = np.log(next(iter(taken.values())))
    print(f"{asked.question}: {asked.workload}, batch {asked.batch}, {asked.rounds} rounds of {steps} steps")
    for name, seconds in taken.items():
        faster = first - np.log(seconds)
        interval = bootstrap((faster,), np.median, method="percentile", n_resamples=2000, rng=0)
        low, high = np.exp(interval.confidence_interval)
        line = (
            f"  {name:<16}{np.median(seconds) * 1e6:>12,.1f} µs a step  {np.exp(np.median(faster)):.3f} times"
        )
        print(f"{line} as fast ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
