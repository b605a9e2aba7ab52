"""Write the table of TensorFlow's GPU kernels that a test needs, from a build of TensorFlow with CUDA.

    python scripts/tensorflow_gpu_kernels.py [OPERATION ...]

It needs no GPU: the wheel `tensorflow` registers its kernels without one. (The wheel `tensorflow-cpu` has
none.) The table has the operations that it had before, and those that are named.

A kernel is listed for the types that it accepts, if its results are in the GPU's memory. A kernel whose
results are all in the host's memory computes on the host, and is left out. Handles and their names, such as
those of variables, do not count as results. Ends with 3 if this build has no CUDA.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

TABLE = Path(__file__).resolve().parent.parent / "tests" / "backends" / "tensorflow_gpu_kernels.json"
TYPES = ("BFLOAT16", "BOOL", "FLOAT", "INT32", "INT64", "UINT8")
"""The types of the tensors that the backend uses; kernels for other types are left out."""
DEVICES = ("GPU", "DEFAULT")
"""TensorFlow takes a kernel for any device, `DEFAULT`, where there is none for GPUs."""

Kernel = dict[str, list[str]]
"""From each type attribute that a kernel limits to the types that it accepts, such as {"T": ["FLOAT"]}."""


def gpu_kernels(operation: str) -> list[Kernel]:
    """Return the kernels of one operation; raise ValueError if TensorFlow has no such operation."""
    from tensorflow.core.framework.types_pb2 import DataType
    from tensorflow.python.framework import kernels, op_def_registry

    definition = op_def_registry.get(operation)
    if definition is None:
        raise ValueError(f"TensorFlow has no operation {operation!r}")
    handles = (DataType.DT_RESOURCE, DataType.DT_VARIANT, DataType.DT_STRING)
    results = {result.name for result in definition.output_arg if result.type not in handles}
    found: list[Kernel] = []
    for kernel in kernels.get_registered_kernels_for_op(operation).kernel:
        if kernel.device_type not in DEVICES or (results and results <= set(kernel.host_memory_arg)):
            continue
        limits = {
            limit.name: [DataType.Name(kind).removeprefix("DT_") for kind in limit.allowed_values.list.type]
            for limit in kernel.constraint
        }
        if all(set(types) & set(TYPES) for types in limits.values()) and limits not in found:
            found.append(limits)
    return merged(found)


def merged(kernels: list[Kernel]) -> list[Kernel]:
    """Join kernels that differ in the types of one attribute only."""
    for name in sorted({name for kernel in kernels for name in kernel}):
        kept = [kernel for kernel in kernels if name not in kernel]
        joined: dict[str, set[str]] = defaultdict(set)
        for kernel in (kernel for kernel in kernels if name in kernel):
            others = {key: types for key, types in kernel.items() if key != name}
            joined[json.dumps(others, sort_keys=True)].update(kernel[name])
        kernels = kept + [
            {**json.loads(others), name: sorted(types & set(TYPES))} for others, types in joined.items()
        ]
    return sorted(kernels, key=json.dumps)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the table of TensorFlow's GPU kernels for the tests.")
    parser.add_argument("operation", nargs="*", help="Operation to add to the table.")
    asked = parser.parse_args()
    import tensorflow as tf

    if not tf.test.is_built_with_cuda():
        print(f"TensorFlow {tf.__version__} is built without CUDA; use the wheel tensorflow", file=sys.stderr)
        return 3
    before: dict[str, Any] = json.loads(TABLE.read_text()) if TABLE.exists() else {"kernels": {}}
    names = sorted({*before["kernels"], *asked.operation})
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(gpu_kernels(name))}" for name in names)
    made = json.dumps(f"scripts/{Path(__file__).name}, tensorflow {tf.__version__}")
    TABLE.write_text(f'{{\n "made": {made},\n "kernels": {{\n{lines}\n }}\n}}\n')
    return 0


if __name__ == "__main__":
    sys.exit(main())
