"""The device that JAX computes on, and the options with which XLA compiles for it."""

import jax

from backends.builds import build_of
from bench.errors import UnavailableError
from bench.workloads.specs import Architecture, Device

MATMUL_PRECISION = {"fp32": "highest", "tf32": "tensorfloat32", "bf16": "bfloat16"}

THREADED_CONVOLUTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
"""Gives matrix products to the library YNNPACK, but no convolutions. YNNPACK runs a convolution on one core,
XLA itself on all cores (docs/performance.md)."""


def find_device(device: Device) -> jax.Device:
    """Return the first device of this kind; raise UnavailableError if JAX sees none."""
    try:
        return jax.devices(device)[0]
    except RuntimeError as error:
        raise UnavailableError(
            f"JAX {jax.__version__}, built for {build_of('jax')}, sees no {device.upper()} here: {error}"
        ) from error


def compiler_options(architecture: Architecture, device: Device) -> dict[str, str]:
    """Return the options of XLA with which every program of a network is compiled."""
    # With this option and batch normalisation, half of a convolution's gradient was wrong in jaxlib 0.10.2;
    # parity found it.
    threaded = device == "cpu" and bool(architecture.convs) and not architecture.normalises
    return known_options(THREADED_CONVOLUTIONS) if threaded else {}


def known_options(options: dict[str, str]) -> dict[str, str]:
    """Return the options, or none if this version of XLA does not know them; only a compilation shows it."""

    def tried() -> int:
        return 0

    try:
        jax.jit(tried, compiler_options=options)()
    except jax.errors.JaxRuntimeError:
        return {}
    return options
