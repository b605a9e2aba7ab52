"""Distributed training that is wrong, each twin in one way that people get wrong.

Each is a context manager that takes a `Ranks`; the backends that are built inside it are broken. A framework
is imported inside functions, in a rank alone.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import numpy as np

MODULES = {
    "torch": "backends.torch_ddp",
    "jax": "backends.jax_mesh",
    "tensorflow": "backends.tensorflow_multi_worker",
}


@contextmanager
def same_part_in_all_ranks(kit: Any) -> Iterator[None]:
    with mock.patch(f"{MODULES[kit.info.name]}.part", lambda batch, place: slice(0, batch // place.ranks)):
        yield


@contextmanager
def another_seed_in_a_rank(kit: Any) -> Iterator[None]:
    load_params = kit.backend_class.load_params

    def load_others(self: Any, params: Any) -> None:
        rng = np.random.default_rng(kit.place.rank)
        noise = {name: rng.normal(0, 0.1, value.shape) for name, value in params.items()}
        others = {name: (value + np.abs(noise[name])).astype(np.float32) for name, value in params.items()}
        load_params(self, others if kit.place.rank else params)

    with mock.patch.object(kit.backend_class, "load_params", load_others):
        yield


@contextmanager
def sum_for_mean(kit: Any) -> Iterator[None]:
    """The means of the ranks are summed: every gradient is as many times too large as there are ranks."""
    with {"torch": _torch_sum, "jax": _jax_sum, "tensorflow": _tensorflow_sum}[kit.info.name](
        kit.place.ranks
    ):
        yield


@contextmanager
def gradients_not_reduced(kit: Any) -> Iterator[None]:
    """Every rank trains alone, on its part."""
    with {"torch": _torch_alone, "jax": _jax_alone, "tensorflow": _tensorflow_alone}[kit.info.name]():
        yield


@contextmanager
def statistics_of_a_rank(kit: Any) -> Iterator[None]:
    """Batch normalisation takes the mean and the variance of a rank's part."""
    makers: Mapping[str, Callable[[int], Any]] = {
        "torch": _torch_norm,
        "jax": _jax_norm,
        "tensorflow": _tensorflow_norm,
    }
    with makers[kit.info.name](kit.place.ranks):
        yield


TWINS: Mapping[str, Callable[[Any], AbstractContextManager[None]]] = {
    twin.__name__: twin
    for twin in (
        same_part_in_all_ranks,
        another_seed_in_a_rank,
        sum_for_mean,
        gradients_not_reduced,
        statistics_of_a_rank,
    )
}


# ---- PyTorch


def _torch_sum(ranks: int) -> Any:
    from backends import torch_ddp

    class Summed(torch_ddp.Ddp):
        def loss(self, images: Any, labels: Any) -> Any:
            return super().loss(images, labels) * ranks

    return mock.patch.object(torch_ddp, "Ddp", Summed)


def _torch_alone() -> Any:
    from backends import torch_ddp

    class Alone(torch_ddp.Ddp):
        def __init__(self, backend: Any) -> None:
            super().__init__(backend)
            self._network = backend.network

    return mock.patch.object(torch_ddp, "Ddp", Alone)


def _torch_norm(ranks: int) -> Any:
    from backends import torch_backend, torch_ddp

    class OfPart(torch_ddp.Ddp):
        norm = torch_backend.BatchNorm

    return mock.patch.object(torch_ddp, "Ddp", OfPart)


# ---- JAX


def _jax_sum(ranks: int) -> Any:
    import jax
    import optax

    from backends import jax_backend

    make = jax_backend.make_train_step

    def make_summed(graph: Any, optimizer: Any, *, loss: str) -> Any:
        def update(gradients: Any, *others: Any) -> Any:
            return optimizer.update(jax.tree.map(lambda one: one * ranks, gradients), *others)

        return make(graph, optax.GradientTransformation(optimizer.init, update), loss=loss)

    return mock.patch.object(jax_backend, "make_train_step", make_summed)


def _jax_alone() -> Any:
    from backends import jax_mesh
    from backends.jax_backend import Jit
    from backends.jax_device import OneDevice
    from bench.workloads.ranks import part

    class Alone(jax_mesh.Mesh):
        layout = OneDevice

        def train(self, order: Any, draws: Any) -> Any:
            return Jit.train(self, order[:, part(order.shape[1], self._backend.place)], draws)

    return mock.patch.object(jax_mesh, "Mesh", Alone)


def _jax_norm(ranks: int) -> Any:
    import jax
    from flax import nnx

    class OfPart(nnx.BatchNorm):
        def __call__(self, x: Any, *, use_running_average: bool = False) -> Any:
            if use_running_average:
                return super().__call__(x, use_running_average=True)
            parts = x.reshape(ranks, -1, *x.shape[1:])
            mean, variance = parts.mean((1, 2, 3), keepdims=True), parts.var((1, 2, 3), keepdims=True)
            normal = (parts - mean) * jax.lax.rsqrt(variance + self.epsilon) * self.scale[...]
            self.mean[...] = self.momentum * self.mean[...] + (1 - self.momentum) * mean[0, 0, 0, 0]
            self.var[...] = self.momentum * self.var[...] + (1 - self.momentum) * variance[0, 0, 0, 0]
            return (normal + self.bias[...]).reshape(x.shape)

    return mock.patch.object(nnx, "BatchNorm", OfPart)


# ---- TensorFlow


def _tensorflow_sum(ranks: int) -> Any:
    import tensorflow as tf

    from backends import tensorflow_backend

    backend = tensorflow_backend.TensorFlowBackend
    return mock.patch.object(backend, "_reduced", lambda self, losses: tf.reduce_mean(losses))


def _tensorflow_alone() -> Any:
    from backends import tensorflow_multi_worker

    class Alone(tensorflow_multi_worker.MultiWorkerRunner):
        def __init__(self, backend: Any) -> None:
            super().__init__(backend)
            backend.optimizer._all_reduce_sum_gradients = list

    return mock.patch.object(tensorflow_multi_worker, "MultiWorkerRunner", Alone)


def _tensorflow_norm(ranks: int) -> Any:
    from backends import tensorflow_backend

    build = tensorflow_backend.build_network

    def build_of_part(*arguments: Any, synchronized: bool) -> Any:
        return build(*arguments, synchronized=False)

    return mock.patch.object(tensorflow_backend, "build_network", build_of_part)
