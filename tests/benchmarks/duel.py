"""A process in which the modes of a backend and loops written by hand for its framework train by turns.

Started as `python duel.py CELL` with CELL as JSON: backend, workload, batch, and the folder of data sets.
Then every line is a request in JSON, and is answered by a line:

- `{"make": MODE}` makes the mode and its loop, sees that both compute the same losses from the same start,
  warms them up, and answers with the seconds that either takes for a step, and the steps to a call;
- `{"train": [SIDE, MODE], "steps": N}` trains so many steps and answers with the seconds they took.
"""

import importlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from backends.base import TrainingData
from bench.datasets import cache as datasets
from bench.measuring.backends import find_backends
from bench.records.schema import LEAD_S
from bench.worker.loading import load_backend
from bench.worker.stopwatch import Stopwatch
from bench.worker.timed_loop import Batches, Trainer
from bench.workloads.catalog import find_workload, swept
from bench.workloads.parameters import initial_params
from bench.workloads.schedule import whole_calls

TURN_S = 0.05
WARMUP_S = 1.0
SEED = 0
COMPARED_STEPS = 12
SAME_LOSS = 1e-3
"""How far losses may differ, relatively. Programs that add in another order are 1e-6 apart at first, and a
thousand times as far after some steps of a CNN at its full rate; a wrong layer or rate moves them farther."""
LONG_STEP_S = 1.0


class ByHand:
    """A loop written by hand, seen by `Trainer` as a backend."""

    def __init__(self, train: Callable[[np.ndarray], np.ndarray]) -> None:
        self.train_steps = train


class Arena:
    """The sides that have been made, by name and mode."""

    def __init__(self, cell: dict[str, str]) -> None:
        self._workload = swept(find_workload(cell["workload"]), int(cell["batch"]))
        dataset = datasets.load(self._workload.dataset, cache=Path(cell["cache"]))
        self._data = TrainingData(info=dataset.info, images=dataset.train_images, labels=dataset.train_labels)
        self._backend = load_backend(find_backends().find(cell["backend"]))
        self._by_hand = importlib.import_module(f"{cell['backend']}_loops")
        self._start = initial_params(self._workload.architecture, dataset.info, seed=SEED)
        self._pictures = self._by_hand.on_device(self._data.images, self._data.labels)
        self._sides: dict[tuple[str, str], Trainer] = {}
        self._step_s: dict[tuple[str, str], float] = {}

    def make(self, mode: str) -> dict[str, float]:
        backend = self._backend(self._workload, self._data, mode=mode, device="cpu", precision="fp32")
        backend.load_params(self._start)
        by_hand = self._by_hand.LOOPS[mode](
            {name: value.copy() for name, value in self._start.items()},
            self._workload.optimizer.learning_rate,
            self._pictures,
        )
        for side, trained in (("backend", backend), ("by hand", ByHand(by_hand))):
            self._sides[side, mode] = Trainer(trained, Batches(self._workload, self._data, seed=SEED))
        self._compare(mode)
        for side in ("backend", "by hand"):
            self._step_s[side, mode] = warmed_up(self._sides[side, mode], backend.call_steps)
        return {side: self._step_s[side, mode] for side in ("backend", "by hand")} | {
            "call_steps": backend.call_steps
        }

    def _compare(self, mode: str) -> None:
        losses = {}
        for side in ("backend", "by hand"):
            trainer = self._sides[side, mode]
            window = trainer.train(1)
            losses[side] = trainer.losses
            if min(window.seconds, trainer.train(1).seconds) < LONG_STEP_S:
                losses[side] = np.append(losses[side], trainer.losses)
                trainer.train(COMPARED_STEPS)
                losses[side] = np.append(losses[side], trainer.losses)
        both = min(map(len, losses.values()))  # of a network so slow, the steps that both have taken
        worst = np.max(np.abs(losses["backend"][:both] / losses["by hand"][:both] - 1))
        if not worst < SAME_LOSS:
            raise SystemExit(f"{mode}: losses are {worst:.1e} apart: {losses}")

    def train(self, side: str, mode: str, steps: int) -> float:
        trainer = self._sides[side, mode]
        step_s = self._step_s[side, mode]
        if step_s < LONG_STEP_S:  # a network so slow needs no lead
            trainer.train(math.ceil(min(LEAD_S / step_s, steps)))
        return trainer.train(steps).seconds


def warmed_up(trainer: Trainer, call_steps: int) -> float:
    """Train until nothing compiles any more, and return the seconds of a step."""
    trainer.train(call_steps)
    clock, quickest, steps = Stopwatch(), math.inf, call_steps
    while True:
        window = trainer.train(steps)
        quickest = min(quickest, window.seconds / steps)
        if clock.seconds() > WARMUP_S:
            return quickest
        steps = whole_calls(min(TURN_S / quickest, steps * 8), call_steps)


def main() -> None:
    arena = Arena(json.loads(sys.argv[1]))
    for line in sys.stdin:
        request = json.loads(line)
        if "make" in request:
            answer: object = arena.make(request["make"])
        else:
            answer = arena.train(*request["train"], request["steps"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
