# /// script
# requires-python = ">=3.12"
# dependencies = ["jax==0.12.0.1", "jaxlib==0.12.0.1"]
# ///
"""Show that XLA can lose most of the gradient of `jnp.max` after batch normalisation on a CPU with AVX2.

The gradient of a maximum goes to the values that equal it. Where XLA computes the normalisation in two fused
loops, it can round the same value differently in each. Then a value no longer equals the maximum that the
other loop found. The exit status is 1 if that happens, and else 0.

A flag limits XLA to AVX2, so a CPU with AVX-512 shows the fault too. It needs the compiler option below.
With a comparison that allows 1e-4, or with `jax.lax.reduce_window`, the gradient is right.
"""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX is imported, as the next variable
os.environ["XLA_FLAGS"] = "--xla_cpu_max_isa=AVX2"

import jax
import jaxlib
import numpy as np

OPTION = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
IMAGES, SIDE, FILTERS = 8, 24, 64


def loss(
    kernel: jax.Array, scale: jax.Array, offset: jax.Array, images: jax.Array, weights: jax.Array
) -> jax.Array:
    """Return the weighted sum of the images' features: convolution, normalisation, ReLU and pooling."""
    y = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    mean = y.mean((0, 1, 2))
    variance = ((y - mean) ** 2).mean((0, 1, 2))
    y = jax.nn.relu((y - mean) * (jax.lax.rsqrt(variance + 1e-3) * scale) + offset)
    pooled = y.reshape(IMAGES, SIDE // 2, 2, SIDE // 2, 2, FILTERS).max((2, 4))
    return (pooled * weights).sum()


def worst_error() -> float:
    """Return by how much the compiled gradient of the kernel is off, as a share of its largest value."""
    rng = np.random.default_rng(0)
    images = rng.random((IMAGES, SIDE, SIDE, 3), dtype=np.float32)
    kernel = rng.normal(0, 0.1, (5, 5, 3, FILTERS)).astype(np.float32)
    offset = rng.choice([-1, 1], FILTERS).astype(np.float32)
    weights = rng.normal(size=(IMAGES, SIDE // 2, SIDE // 2, FILTERS)).astype(np.float32)
    gradient = jax.grad(loss)
    arguments = (kernel, np.ones(FILTERS, np.float32), offset, images, weights)
    expected = gradient(*arguments)
    found = jax.jit(gradient, compiler_options=OPTION)(*arguments)
    return float(abs(found - expected).max() / abs(expected).max())


if __name__ == "__main__":
    error = worst_error()
    print(f"jaxlib {jaxlib.__version__}: the gradient is off by {error:.1e} of its largest value")
    if error > 1e-3:
        print("WRONG: most of the gradient is missing")
        sys.exit(1)
