"""TensorFlow's mode `multi-worker`: mode graph in every worker of a MultiWorkerMirroredStrategy.

A step is a `strategy.run` inside a tf.function. In it Keras's optimizer sums the gradients of all workers.
Collectives are TensorFlow's own ring on a CPU and NCCL's on a GPU.
"""

import json
import os
from collections.abc import Callable
from functools import cache

import numpy as np
import tensorflow as tf

from backends.runners import name_interface
from backends.tensorflow_backend import GraphRunner, TensorFlowBackend
from bench.workloads.ranks import Place, part
from bench.workloads.specs import Device

COLLECTIVES = {"cpu": "RING", "gpu": "NCCL"}


@cache
def join(place: Place, device: Device) -> tf.distribute.MultiWorkerMirroredStrategy:
    """Start TensorFlow's server in this process, wait for the other workers and return the strategy.

    A process can do this once, before TensorFlow computes anything.
    """
    name_interface(place, "NCCL_SOCKET_IFNAME")
    cluster, task = {"worker": place.addresses}, {"type": "worker", "index": place.rank}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    implementation = tf.distribute.experimental.CommunicationImplementation[COLLECTIVES[device]]
    return tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(implementation=implementation)
    )


class MultiWorkerRunner(GraphRunner):
    """Mode multi-worker."""

    join = staticmethod(join)

    def __init__(self, backend: TensorFlowBackend) -> None:
        self._place, self._strategy = backend.place, backend.strategy
        super().__init__(backend)
        self.facts = {
            "engine": "MultiWorkerMirroredStrategy",
            "ranks": self._strategy.num_replicas_in_sync,
            "collectives": COLLECTIVES[backend.device].lower(),
        }

    def program(self, step: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
        def distributed(*row: tf.Tensor) -> tf.Tensor:
            return self._strategy.run(step, args=row)

        return distributed

    def train(self, order: np.ndarray, draws: np.ndarray | None) -> tf.Tensor:
        mine = part(order.shape[1], self._place)
        losses = super().train(order[:, mine], None if draws is None else draws[:, mine])
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

    def longest(self, seconds: float) -> float:
        # `gather` would trace a new function at every call, between a lead and its window.
        each = np.zeros(self._place.ranks)
        each[self._place.rank] = seconds
        return float(tf.reduce_max(self._strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None)))
