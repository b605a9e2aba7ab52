# /// script
# dependencies = ["jax==0.10.2", "jaxlib==0.10.2"]
# ///
"""Compute the reduction that jaxlib 0.10.2 gets wrong (https://github.com/jax-ml/jax/issues/39103).

Prints the last of 32,769 rows, computed eagerly and by `jit`. The exit status is 0 if they agree and 1 if
they differ. `nox -s reproduce` runs this with the faulty version, and a test with the installed one.
"""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX is imported; the fault is in the CPU compiler

import jax
import jax.numpy as jnp
import jaxlib

ROWS = 32_769  # one more than is right


def last_row() -> tuple[float, float]:
    """Return the squared length of the last row, computed eagerly and by `jit`: 32,768 squared if right."""
    index = jnp.arange(ROWS, dtype=jnp.float32)
    rows = jnp.stack((index, jnp.zeros_like(index), jnp.zeros_like(index)), axis=1)
    matrix = jnp.eye(3, dtype=jnp.float32)

    def lengths(rows: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(rows)

    return float(lengths(rows)[-1]), float(jax.jit(lengths)(rows)[-1])


if __name__ == "__main__":
    eager, jitted = last_row()
    print(f"jaxlib {jaxlib.__version__}: eager {eager:.0f}, jit {jitted:.0f}, expected {(ROWS - 1) ** 2}")
    if eager != jitted:
        print("WRONG: jit and eager execution differ (https://github.com/jax-ml/jax/issues/39103)")
        sys.exit(1)
