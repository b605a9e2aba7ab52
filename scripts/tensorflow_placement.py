"""Say where TensorFlow's operations run: train a CNN's first call in every mode, and count them by device.

TensorFlow tells which graphs it ran, after its own rewriting and split by device. A program of XLA runs as a
whole on the device that calls it, so its instructions are counted for that device. An operation that counts
for the GPU may still work on a number in the host's memory, such as a shape: the graphs do not tell that.

Ends with 0; with 1 if a mode without an input pipeline computed on the CPU of a GPU box, where each such
operation costs two copies a step; or else with 3 where a mode could not be looked at.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout counts, from wherever this is called

from backends.catalog import TENSORFLOW  # noqa: E402
from bench.measuring.parity import parity_data  # noqa: E402
from bench.measuring.selection import choose_device  # noqa: E402
from bench.measuring.variables import worker_environment  # noqa: E402
from bench.worker.timed_loop import Batches  # noqa: E402
from bench.workloads.catalog import find_workload  # noqa: E402

LOOKED_AT = [
    *(("mnist-cnn", mode.name) for mode in TENSORFLOW.modes if not mode.distributed),
    ("notebook-cifar-cnn", "graph"),
]
"""Workload and mode; the second workload changes its images, in TensorFlow's own operations."""
HOUSEKEEPING = {
    "_Arg",
    "_Retval",
    "_DeviceArg",
    "_DeviceRetval",
    "Const",
    "NoOp",
    "VarHandleOp",
    "SyncDevice",
}
"""They compute nothing: a graph has some of them on the host wherever it computes."""
TRANSFERS = {"_Send", "_Recv", "_HostSend", "_HostRecv", "_EagerConst"}
KINDS = ("operations", "of XLA", "transfers", "housekeeping")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = .*? ([a-z][a-z-]*)\(", re.MULTILINE)
"""A line of a program in XLA's text, `name = type operation(…)`."""


def placed(workload_name: str, mode: str, device: Any) -> dict[str, Any]:
    """Return what one call of a mode ran, counted by device, kind and type."""
    import tensorflow as tf

    from backends.tensorflow_backend import TensorFlowBackend

    workload = find_workload(workload_name)
    data = parity_data(workload)
    backend = TensorFlowBackend(workload, data, mode=mode, device=device, precision="fp32")
    batches, steps = Batches(workload, data, seed=0), backend.call_steps
    order, draws = batches.order(0, steps), batches.draws(0, steps)
    found: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for where, node in operations_of(lambda: backend.train_steps(order, *draws)):
        kind = "housekeeping" if node.op in HOUSEKEEPING else "operations"
        kind = "transfers" if node.op in TRANSFERS else kind
        found[where][kind][node.op] += 1
    runner = backend._runner
    parts = [part for name in ("_form", "_carried") if (part := getattr(runner, name, None)) is not None]
    owners = [backend, runner, *parts] if mode.startswith("xla") else []
    for function in {id(one): one for owner in owners for one in vars(owner).values()}.values():
        # Only what was traced ran, and what XLA compiles is in none of the graphs above.
        if hasattr(function, "get_concrete_function") and function.experimental_get_tracing_count():
            with tf.device(f"/{device.upper()}:0"):
                zeros = [tf.zeros(spec.shape, spec.dtype) for spec in function.input_signature]
                where = _short(tf.nest.flatten(function(*zeros))[0].device)
                text = function.experimental_get_compiler_ir(*function.input_signature)(stage="hlo")
            found[where]["of XLA"].update(INSTRUCTION.findall(text))
    return {"workload": workload_name, "mode": mode, "described": backend.describe(), "devices": found}


def operations_of(work: Callable[[], object]) -> list[tuple[str, Any]]:
    """Do the work, and return the device and the node (a NodeDef) of every operation that it ran.

    A node is listed once for each graph that has it, however often the graph ran.
    """
    from tensorflow.python.eager.context import context

    context().enable_graph_collection()
    context().clear_kernel_cache()  # an operation that ran before is reported only when it is looked up again
    context().export_run_metadata()  # forgets what ran before
    work()
    graphs = context().export_run_metadata().function_graphs
    found = []
    for part in (part for graph in graphs for part in graph.partition_graphs):
        # What a pipeline calls for every batch has no device of its own: it runs where the pipeline does.
        called = (node for function in part.library.function for node in function.node_def)
        found += [(_short(node.device or part.node[0].device), node) for node in (*part.node, *called)]
    return found


def _short(device: str) -> str:
    return device.rpartition("device:")[2]


def rows(look: dict[str, Any], device: str) -> list[str]:
    """Return a line of the table for every device that a mode ran on, or the reason why it did not run."""
    head = f"{look['workload']:<19}{look['mode']:<16}"
    if "error" in look:
        return [f"{head}{look['error']}"]
    lines = []
    for where, kinds in sorted(look["devices"].items()):
        lines.append(f"{head}{where:<6}" + "".join(f"{kinds[kind].total():>14}" for kind in KINDS))
        if device == "gpu" and where.startswith("CPU") and kinds["operations"]:
            named = (f"{name} {count}" for name, count in kinds["operations"].most_common())
            lines.append(f"    operations on the CPU: {', '.join(named)}")
    return lines


def misplaced(look: dict[str, Any], device: str) -> bool:
    """Whether a mode computed on the CPU although a GPU was asked for and it has no input pipeline."""
    pipelines = {mode.name for mode in TENSORFLOW.modes if mode.pipeline}
    if device == "cpu" or "error" in look or look["mode"] in pipelines:
        return False
    return any(kinds["operations"] for where, kinds in look["devices"].items() if where.startswith("CPU"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Count TensorFlow's operations by the device they run on.")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="gpu")
    parser.add_argument("--gpu", type=int, metavar="N", help="Number of the GPU, of those that are visible.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write every count to this file as well.")
    asked = parser.parse_args()
    looks = []
    print(f"{'workload':<19}{'mode':<16}{'device':<6}" + "".join(f"{kind:>14}" for kind in KINDS))
    with tempfile.TemporaryDirectory(prefix="samework-placement-") as scratch:
        choose_device(asked.device, asked.gpu)
        os.environ.update(worker_environment(TENSORFLOW, asked.device, Path(scratch)))
        for workload, mode in LOOKED_AT:
            try:
                looks.append(placed(workload, mode, asked.device))
            except Exception as error:  # the other modes are still worth a look
                said = " ".join(str(error).split())
                looks.append({"workload": workload, "mode": mode, "error": f"{type(error).__name__}: {said}"})
            print("\n".join(rows(looks[-1], asked.device)), flush=True)
    if asked.json is not None:
        asked.json.write_text(json.dumps({"device": asked.device, "looks": looks}, indent=1) + "\n")
    if any(misplaced(look, asked.device) for look in looks):
        print("FAILED: operations ran on the CPU that should run on the GPU")
        return 1
    return 3 if any("error" in look for look in looks) else 0


if __name__ == "__main__":
    sys.exit(main())
