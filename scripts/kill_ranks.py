"""Kill ranks of distributed jobs at random moments, and see that each kill loses one job and leaves nothing.

    python scripts/kill_ranks.py --backend torch --kills 50

A job trains mnist-softmax on the shipped sample. In each, one rank gets a signal a moment after one of
the job's events, all drawn. The job must end within seconds, name that rank, and leave no process. The exit
status is 1 if one does not.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout counts, from wherever this is called

from bench.measuring.backends import find_backends  # noqa: E402
from bench.measuring.ranks.group import Group  # noqa: E402
from bench.measuring.ranks.rows import distributed_modes  # noqa: E402
from bench.measuring.ranks.slots import local_slots  # noqa: E402
from bench.measuring.traces import Traces  # noqa: E402
from bench.records.schema import JobSpec  # noqa: E402
from bench.worker.protocol import Begin, Built, DataSource, Event, Finish, MeasureTask, Ready, Timed, Turn  # noqa: E402
from bench.workloads.catalog import find_workload  # noqa: E402
from bench.workloads.specs import Cell  # noqa: E402

WORKLOAD = "mnist-softmax"
LIMIT_S = 300.0
SECONDS_TO_END = 30.0
"""Longer than this no job may take to end after the kill, however busy the machine is."""
MOST_EVENTS = 24
"""The kill follows one of so many events; training for accuracy then still goes on."""


class Quiet:
    """A display that shows nothing."""

    def say(self, text: str) -> None: ...

    def job(self, text: str, done: float | None) -> None: ...


def task_of(backend: str, ranks: int) -> MeasureTask:
    info = find_backends().find(backend)
    (mode, *_) = distributed_modes(info, "cpu")
    spec = JobSpec(
        job_id="kill",
        cell=Cell(workload=WORKLOAD, backend=backend, mode=mode, device="cpu", precision="fp32", ranks=ranks),
        workload=find_workload(WORKLOAD),
        seed=0,
        block=0,
        position=0,
        hash_seed=0,
        windows=2,
        window_s=0.05,
        epochs=1e5,
        time_limit_s=LIMIT_S,
        compiles_anew=False,
    )
    return MeasureTask(backend=info, data=DataSource(name="mnist", cache=None, limit=2000), spec=spec)


def left_of(sessions: set[int]) -> list[int]:
    """Return the processes that belong to these sessions and still run."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getsid(process.pid) in sessions and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, PermissionError):
            continue
    return found


class Kill:
    """One job in which one rank is killed."""

    def __init__(
        self, task: MeasureTask, ranks: int, chance: random.Random, folder: Path, sent: signal.Signals
    ) -> None:
        self._victim = chance.randrange(ranks)
        self._after = chance.randrange(MOST_EVENTS)
        self._delay_s = chance.uniform(0.0, 0.2)
        self._heard = 0
        self._killed_at: float | None = None
        self._last = ""
        self._group = Group(
            task,
            slots=local_slots("cpu", ranks, shared=True),
            python=Path(sys.executable),
            device="cpu",
            time_limit_s=LIMIT_S,
            on_event=self._hear,
            compiled=folder / "compiled",
        )
        self._ranks, self._sent = ranks, sent

    def _hear(self, event: Event) -> None:
        if self._heard == self._after:
            threading.Timer(self._delay_s, self._kill).start()
            self._last = type(event).__name__
        self._heard += 1

    def _kill(self) -> None:
        self._killed_at = time.monotonic()
        os.kill(self._group.pids[self._victim], self._sent)

    def fault(self, proof: str | None) -> str | None:
        """Run the job; print a line about it, and return what is wrong, or None."""
        with self._group as group:
            pids = set(group.pids)
            group.wait_for(Built)
            group.ask(Begin(proof=proof))
            group.wait_for(Ready)
            group.ask(Turn(steps=5))
            group.wait_for(Timed)
            group.ask(Finish())
            outcome = group.finish()
        ended = time.monotonic()
        took_s = ended - (self._killed_at or ended)
        print(f"  after {self._last}: {took_s:.2f} s: {outcome.error}", flush=True)
        expected = (
            f"rank {self._victim} of {self._ranks}: crashed: the process was ended by {self._sent.name}"
        )
        if not (outcome.error or "").startswith(expected):
            return f"rank {self._victim} was killed, and the record says: {outcome.status}: {outcome.error}"
        if took_s > SECONDS_TO_END:
            return f"the job ended {took_s:.0f} s after the kill"
        left = left_of(pids)
        return f"processes are left: {left}" if left else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", type=signal.Signals.__getitem__, default=signal.SIGKILL)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)  # noqa: S311
    task = task_of(asked.backend, asked.ranks)
    faults = 0
    with tempfile.TemporaryDirectory(prefix="samework-kills-") as name:
        folder = Path(name)
        trace = Traces(folder, Quiet()).path(task, 1)
        for number in range(1, asked.kills + 1):
            print(f"kill {number} of {asked.kills}", flush=True)
            fault = Kill(task, asked.ranks, chance, folder, asked.signal).fault(
                None if trace is None else str(trace)
            )
            if fault is not None:
                faults += 1
                print(f"  FAULT: {fault}", flush=True)
    print(f"{asked.backend}: {asked.kills} kills, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
