"""One process of the validation: train one network in one framework, alone, and print how long that took.

    python train_alone.py TASK

TASK is JSON: `target` (the backend's class, `module:Class`), `workload`, `mode`, `epochs`, `seed`, and
`cache` (the folder of the data sets; null takes the shipped sample). The last line that it prints is JSON:
`steps`, `samples`, `seconds` of the whole training, `epoch_seconds` of each epoch, `first_tenth_steps` and
`first_tenth_s` of the first tenth of the first epoch, and the first and last `losses`.

Nothing here is of the harness: there are no turns, no leads, no windows and no trimming. The loop is written
out, and the clock is read before it, after each epoch and after its end. One step is trained before the
clock, because the first step traces and compiles. Then the weights are set anew. Batches are drawn before the
clock as well: a new permutation in each epoch.

The first epoch is two calls of `train_steps`, and the clock is read between them too: a slow beginning shows,
even where a single epoch is trained. No call compiles anew, since a backend's step is compiled only once
whatever the number of steps (`backends.base`).
"""

import json
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np

from backends.base import TrainingData
from bench.datasets import cache
from bench.workloads.catalog import find_workload
from bench.workloads.parameters import initial_params


def main(task: dict[str, object]) -> None:
    module, _, name = str(task["target"]).partition(":")
    backend_class = getattr(import_module(module), name)
    workload = find_workload(str(task["workload"]))
    where = task["cache"]
    data = (
        cache.load_sample(workload.dataset)
        if where is None
        else cache.load(workload.dataset, cache=Path(str(where)))
    )
    training = TrainingData(info=data.info, images=data.train_images, labels=data.train_labels)
    seed, epochs, batch = int(str(task["seed"])), int(str(task["epochs"])), workload.batch_size
    chance = np.random.default_rng(seed)
    steps = len(data.train_labels) // batch
    orders = [
        chance.permutation(len(data.train_labels))[: steps * batch].astype(np.int32).reshape(steps, batch)
        for _ in range(epochs)
    ]
    start = initial_params(workload.architecture, data.info, seed=seed)
    backend = backend_class(workload, training, mode=task["mode"], device="cpu", precision="fp32")
    backend.load_params(start)
    backend.train_steps(orders[0][:1])
    backend.load_params(start)

    tenth = max(1, steps // 10)
    ends = [time.perf_counter()]
    losses = [backend.train_steps(orders[0][:tenth])]  # returns only after its last update has finished
    first_tenth_end = time.perf_counter()
    for order in (orders[0][tenth:], *orders[1:]):
        losses.append(backend.train_steps(order))
        ends.append(time.perf_counter())

    print(
        json.dumps(
            {
                "steps": steps * epochs,
                "samples": steps * epochs * batch,
                "seconds": ends[-1] - ends[0],
                "epoch_seconds": np.diff(ends).tolist(),
                "first_tenth_steps": tenth,
                "first_tenth_s": first_tenth_end - ends[0],
                "losses": [float(losses[0][0]), float(np.mean(losses[-1][-20:]))],
                "device": backend.describe()["device"],
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
