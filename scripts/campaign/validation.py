"""Part 6: measure each framework alone, in whole trainings, by a way that shares little with the harness.

    python -m campaign.validation FOLDER PART --python=NAME=PATH ...

Every process trains one network in one framework (`train_alone.py`) and is the only one that runs. They run
in rounds: a round has one process of each framework and workload, in a random order of its own, from a fixed
seed. What slows the machine for minutes or hours so meets all frameworks of a round, and cancels in its
ratios. Each process leaves one line in FOLDER/processes.jsonl, so the same command goes on after an
interruption. A process that fails leaves a line that says why; it is not repeated.

Neither the measuring nor the statistics of the harness are used here; `campaign.agreement` judges what comes
of it. The workloads:

- `mnist-mlp`: steps of a few milliseconds, where the cost of a call counts; most claims are made about it;
- `mnist-cnn`: convolutions, where the frameworks call different kernels and use the memory differently;
- `cifar10-mlp`: large matrix products over more memory than a cache holds. Its rows scatter most in runs.

The softmax regressions are left out: an epoch takes 0.3 s, and start-up would take most of the time.
CIFAR-10's CNN is left out: its epochs take more than a minute.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from backends import catalog
from backends.info import BackendInfo
from bench import store
from bench.datasets import cache
from bench.errors import BenchError, UsageError
from bench.options import parse_pythons
from bench.text import cut
from bench.workloads.catalog import find_workload
from campaign.log import now
from campaign.plan import EPOCHS, ROUNDS_A_PART, SEED, VALIDATED, VALIDATION_PARTS
from campaign.records import FRAMEWORKS

RECORDS = "processes.jsonl"
LIMIT_S = 600.0
"""Many times what a process takes, which is half a minute. One that hangs costs its part ten minutes."""
SCRIPT = Path(__file__).with_name("train_alone.py")
INFOS = (catalog.TENSORFLOW, catalog.TORCH, catalog.JAX)
PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "XDG_CACHE_HOME")
"""The variables that a process keeps of those that are set."""
KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""As in a run: what is measured is the same program in the same environment, by another method."""
PRINTED = (
    "samples", "steps", "seconds", "epoch_seconds", "first_tenth_steps", "first_tenth_s", "losses",
)  # fmt: skip
"""What is kept of the values that a process prints."""
PADDING = "SAMEWORK_PADDING"
MOST_PADDING = 4096
"""Each process has an environment of its own length, since that alone can change its speed."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A process to run."""

    index: int
    """Its place in the order of its part, from 0."""
    replicate: int
    """Its round in the part, from 0. Frameworks are compared within one."""
    workload: str
    backend: str
    seed: int
    """Of its weights and batches; the same for all processes of a round."""
    padding: int
    hash_seed: int


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """What a process gave. Times in seconds."""

    part: int
    task: Task
    mode: str
    epochs: int
    started_at: str
    """UTC, ISO 8601."""
    wall_s: float
    """From its start to its end."""
    samples: int = 0
    steps: int = 0
    seconds: float | None = None
    """Of the whole training; None if the process failed."""
    epoch_seconds: tuple[float, ...] = ()
    first_tenth_steps: int = 0
    first_tenth_s: float | None = None
    """Of the first tenth of the first epoch's steps, which are part of that epoch's seconds too."""
    losses: tuple[float, ...] = ()
    """The first, and the mean of the last 20."""
    error: str | None = None

    @property
    def rate(self) -> float | None:
        """Samples/s of the whole training; None if the process failed."""
        return None if self.seconds is None else self.samples / self.seconds

    @property
    def slow_beginning(self) -> float | None:
        """By how much a step takes longer in the first tenth of the first epoch than in all the rest.

        None if the process failed, or has no rest.
        """
        rest = self.steps - self.first_tenth_steps
        if self.seconds is None or self.first_tenth_s is None or rest < 1:
            return None
        first = self.first_tenth_s / self.first_tenth_steps
        return first / ((self.seconds - self.first_tenth_s) / rest) - 1


def tasks(
    part: int,
    *,
    workloads: Sequence[str] = VALIDATED,
    backends: Sequence[str] = FRAMEWORKS,
    rounds: int = ROUNDS_A_PART,
    seed: int = SEED,
) -> tuple[Task, ...]:
    """Return the processes of a part, round by round: each of every framework and workload, shuffled."""
    chance = random.Random(f"{seed} {part}")  # noqa: S311 (an order, not a secret)
    seeds = chance.sample(range(2**31), rounds)
    cells = [(workload, backend) for workload in workloads for backend in backends]
    found = [(replicate, *cell) for replicate in range(rounds) for cell in chance.sample(cells, len(cells))]
    return tuple(
        Task(
            index=index,
            replicate=replicate,
            workload=workload,
            backend=backend,
            seed=seeds[replicate],
            padding=chance.randint(0, MOST_PADDING),
            hash_seed=chance.randrange(1, 2**32),
        )
        for index, (replicate, workload, backend) in enumerate(found)
    )


def read(folder: Path) -> tuple[Process, ...]:
    """Return the processes of a part; raise UsageError if a line cannot be read."""
    records, rejected = store.read_records(folder / RECORDS, Process)
    if rejected:
        raise UsageError(f"{folder}: {'; '.join(rejected)}")
    return records


def measure(
    folder: Path,
    part: int,
    *,
    pythons: Mapping[str, Path],
    where: Path | None,
    infos: Sequence[BackendInfo] = INFOS,
    order: Sequence[Task] | None = None,
    epochs: Mapping[str, int] = EPOCHS,
    more: Mapping[str, str] | None = None,
) -> tuple[Process, ...]:
    """Run the processes that are left, one at a time, and return all of the part.

    `where` is the folder of the data sets; None takes the shipped samples. `more` are further variables of
    every process.
    """
    known = {info.name: info for info in infos}
    order = tasks(part) if order is None else order
    done = {one.task.index for one in read(folder)}
    for task in order:
        if task.index in done:
            continue
        info = known[task.backend]
        found = run(
            task, info, part=part, python=pythons[info.name], where=where, epochs=epochs[task.workload],
            more=more or {},
        )  # fmt: skip
        store.append(folder / RECORDS, found)
        said = f"{found.seconds:.2f} s" if found.seconds is not None else f"failed: {found.error}"
        print(f"{task.index + 1} of {len(order)}: {task.workload} {task.backend}: {said}", flush=True)
    return read(folder)


def run(
    task: Task,
    info: BackendInfo,
    *,
    part: int,
    python: Path,
    where: Path | None,
    epochs: int,
    more: Mapping[str, str],
) -> Process:
    """Run one process and return what it gave."""
    asked = {
        "target": info.target, "workload": task.workload, "mode": info.default_mode, "epochs": epochs,
        "seed": task.seed, "cache": None if where is None else str(where.resolve()),
    }  # fmt: skip
    started_at, began = now(), time.monotonic()
    values: dict[str, object] = {}
    error = None
    with tempfile.TemporaryDirectory(prefix="samework-alone-") as scratch:
        environment = variables(task, info, Path(scratch)) | dict(more)
        try:
            done = subprocess.run(
                [str(python.absolute()), "-P", str(SCRIPT), json.dumps(asked)],
                capture_output=True, text=True, errors="replace", env=environment, cwd=scratch,
                timeout=LIMIT_S, check=False,
            )  # fmt: skip
            values, error = answer(done.returncode, done.stdout, done.stderr)
        except subprocess.TimeoutExpired:
            error = f"it was stopped after {LIMIT_S:.0f} s"
    return msgspec.convert(
        {
            "part": part, "task": task, "mode": info.default_mode, "epochs": epochs,
            "started_at": started_at, "wall_s": time.monotonic() - began, "error": error,
            **{name: values[name] for name in PRINTED if values},
        },
        Process,
    )  # fmt: skip


def answer(status: int, printed: str, said: str) -> tuple[dict[str, object], str | None]:
    """Return the values that a process printed last, or why it has none."""
    if status:
        last = (said.strip().splitlines() or ["without a message"])[-1]
        return {}, f"it ended with status {status}: {cut(last, 300)}"
    try:
        values = dict(json.loads(printed.strip().splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        return {}, "it printed no values"
    if values.get("device") != "cpu":
        return {}, f"it ran on {values.get('device')}"
    first, last_loss = values["losses"]
    if not first > last_loss > 0:  # also false for NaN
        return {}, f"the loss went from {first} to {last_loss}: it did not learn"
    return values, None


def variables(task: Task, info: BackendInfo, scratch: Path) -> dict[str, str]:
    """Return all the variables of a process."""
    found = {name: value for name, value in os.environ.items() if name in PASSED}
    found |= {"TMPDIR": str(scratch), "CUDA_VISIBLE_DEVICES": "", PADDING: "x" * task.padding}
    found |= {
        **KEPT_MEMORY,
        "PYTHONHASHSEED": str(task.hash_seed),
        **info.environment,
        **info.cpu_environment,
    }
    marks = {"{scratch}": str(scratch), "{compiled}": str(scratch / "compiled")}
    for mark, text in marks.items():
        found = {name: value.replace(mark, text) for name, value in found.items()}
    return found


def main(arguments: Sequence[str]) -> int:
    folder, part, *options = arguments
    pythons = parse_pythons(tuple(option.removeprefix("--python=") for option in options))
    if missing := [name for name in FRAMEWORKS if name not in pythons]:
        raise UsageError(f"--python is missing for {', '.join(missing)}.")
    if not 1 <= int(part) <= VALIDATION_PARTS:
        raise UsageError(f"part {part}: there are {VALIDATION_PARTS}.")
    where = cache.cache_dir()
    for name in dict.fromkeys(find_workload(one).dataset for one in VALIDATED):
        cache.fetch(name, cache=where, offline=False)
    found = measure(Path(folder), int(part), pythons=pythons, where=where)
    failed = [one for one in found if one.error]
    print(f"{len(found)} processes, {len(failed)} of them failed")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BenchError as error:
        sys.exit(f"validation: {error}")
