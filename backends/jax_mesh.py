"""JAX's mode `mesh`: the step of mode jit, compiled for a mesh of the devices of all processes.

No line of the step changes. The batch lies in parts on the devices, and parameters lie whole on each. From
that XLA finds which sums of the step are sums over all ranks, those of batch normalisation too. Collectives
are gloo's on a CPU and NCCL's on a GPU.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import sync_global_devices
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from backends.jax_backend import Jit
from backends.runners import name_interface
from bench.workloads.ranks import Place, part
from bench.workloads.specs import Device

if TYPE_CHECKING:
    from backends.jax_backend import JaxBackend

LOOPBACK = ("127.", "localhost:", "[::1]:")


class RanksLayout:
    """Where arrays lie: batches in parts on the devices of the ranks, all others whole on each."""

    def __init__(self, device: jax.Device) -> None:
        self._device = device
        self.mesh = jax.make_mesh((jax.device_count(),), ("ranks",), axis_types=(AxisType.Auto,))
        self.whole = NamedSharding(self.mesh, P())
        self._row = NamedSharding(self.mesh, P("ranks"))
        self._rows = NamedSharding(self.mesh, P(None, "ranks"))
        self.outputs = {"out_shardings": self.whole}

    def put(self, tree: Any) -> Any:
        """Return arrays that are equal in all ranks, whole on each device. None is copied on a CPU."""

        def placed(array: Any) -> jax.Array:
            own = jax.device_put(array, self._device)
            return jax.make_array_from_single_device_arrays(own.shape, self.whole, [own])

        return jax.tree.map(placed, tree)

    def own(self, tree: Any) -> Any:
        """Return the copies of this rank of arrays that are whole on each device."""
        return jax.tree.map(lambda array: array.addressable_data(0), tree)

    def batches(self, order: np.ndarray, draws: np.ndarray | None) -> Iterator[Any]:
        """Yield the whole batch of each row, of which every rank gives its part."""
        for row in order if draws is None else zip(order, draws, strict=True):
            yield jax.make_array_from_process_local_data(self._row, row)

    def rows(self, tree: Any) -> Any:
        """Return many such batches at once: arrays (steps, batch, ...)."""
        return jax.make_array_from_process_local_data(self._rows, tree)


class Mesh(Jit):
    """Mode mesh."""

    layout = RanksLayout

    @staticmethod
    def join(place: Place, device: Device) -> None:  # noqa: ARG004 (a rank sees no other device)
        if jax.distributed.is_initialized():
            return
        name_interface(place, "NCCL_SOCKET_IFNAME")  # JAX has no way to name one to gloo
        meeting = place.addresses[0]
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            meeting,
            num_processes=place.ranks,
            process_id=place.rank,
            cluster_detection_method="deactivate",
            # By default rank 0 listens on all interfaces.
            coordinator_bind_address=meeting if meeting.startswith(LOOPBACK) else None,
        )
        # gloo connects the ranks in their first collective, to which all have to come within 30 s.
        sync_global_devices("all ranks are there")

    def __init__(self, backend: "JaxBackend") -> None:
        super().__init__(backend)
        self.versions = {
            "engine": "jax.distributed",
            "ranks": jax.process_count(),
            "collectives": "nccl" if backend.on_gpu else jax.config.jax_cpu_collectives_implementation,
        }

    def train(self, order: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        mine = part(order.shape[1], self._backend.place)
        with jax.set_mesh(self._backend.layout.mesh):
            return super().train(order[:, mine], None if draws is None else draws[:, mine])

    def longest(self, seconds: float) -> float:
        [each] = self._backend.layout.batches(np.array([[seconds]], np.float32), None)
        return float(self._largest(each))

    @cached_property
    def _largest(self) -> Any:
        return jax.jit(jnp.max, out_shardings=self._backend.layout.whole)
