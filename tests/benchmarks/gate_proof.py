"""Does the gate keep its word? Commits that are slower, wrong or unchanged, put to it again and again.

    python tests/benchmarks/gate_proof.py RESULTS KIND TRIES [options of `bench ab`]

KIND is `unchanged`, `slower` (PyTorch's steps take 5 % longer), `rate` (ten times the learning rate) or
`labels` (one class's training labels are those of the next). Every try is a whole `bench ab` of its own,
whose folder stays in RESULTS; the table of all that is there goes to RESULTS/GATE.md. Nothing else may run
meanwhile.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.analysis.statistics import exact_interval
from bench.gate.judge import judge_all
from bench.gate.records import HEADER, read_ab
from bench.report.markdown import grid

ROOT = Path(__file__).parent.parent.parent
SLOWED = "backends/torch_backend.py"
SLOWER = '''

_train_steps = TorchBackend.train_steps


def _train_steps_slower(self, order, *draws):
    """Train, then keep the CPU busy for 5 % of the time that it took."""
    import time

    began = time.perf_counter()
    losses = _train_steps(self, order, *draws)
    until = began + 1.05 * (time.perf_counter() - began)
    while time.perf_counter() < until:
        pass
    return losses


TorchBackend.train_steps = _train_steps_slower
'''
LABELS = '''

_load = load


def load(*arguments, **options):
    """Return the data set, the training labels of class 3 turned into 4."""
    found = _load(*arguments, **options)
    labels = np.where(found.train_labels == 3, 4, found.train_labels).astype(np.uint8)
    return msgspec.structs.replace(found, train_labels=labels)
'''


def unchanged(folder: Path) -> None:
    (folder / "CHANGELOG.md").write_text("A word was changed.\n")


def slower(folder: Path) -> None:
    append(folder / SLOWED, SLOWER)


def rate(folder: Path) -> None:
    path = folder / "bench" / "workloads" / "catalog.py"
    source = path.read_text()
    changed = source.replace('name="sgd", learning_rate=rate', 'name="sgd", learning_rate=10 * rate')
    assert changed != source
    path.write_text(changed)


def labels(folder: Path) -> None:
    append(folder / "bench" / "datasets" / "cache.py", LABELS)


def append(path: Path, more: str) -> None:
    path.write_text(path.read_text() + more)


KINDS: dict[str, Callable[[Path], None]] = {
    change.__name__: change for change in (unchanged, slower, rate, labels)
}
WANTED = {"unchanged": "fine"}
BLAMED = {"slower": {"torch"}}
"""Backends whose cells are to regress, and no others; of the other kinds any may."""


def main(results: Path, kind: str, tries: int, options: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="samework-gate-") as scratch:
        clone = Path(scratch) / "samework"
        git(ROOT, "clone", "-q", "--no-hardlinks", str(ROOT), str(clone))
        git(clone, "branch", "base")
        KINDS[kind](clone)
        git(clone, "commit", "-q", "-a", "-m", kind)
        git(clone, "branch", kind)
        for number in range(tries):
            print(f"{kind}: try {number + 1} of {tries}", flush=True)
            subprocess.run(
                [sys.executable, "-P", "-m", "bench", "ab", "--base", "base",
                 "--head", kind, "--results", str(results / kind), *options],
                env={**os.environ, "PYTHONPATH": str(clone)}, check=False,
            )  # fmt: skip
            (results / "GATE.md").write_text(report(results))
    print(report(results))


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=gate", "-c", "user.email=gate@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True)


def report(results: Path) -> str:
    """Return the table of every try: what was put to the gate, what it said, and how long that took."""
    rows, counts = [], []
    machines = set()
    for kind in KINDS:
        right = tries = 0
        for folder in sorted(path.parent for path in (results / kind).glob(f"*/{HEADER}")):
            ab = read_ab(folder)
            gate = judge_all(ab)
            machines.add(ab.header.environment.in_words())
            seconds = sum(block.wall_s for block in ab.blocks)
            tries += 1
            regressed = {one.cell.backend for one in gate.cells if one.conclusion == "regression"}
            blamed = BLAMED.get(kind, regressed)
            right += gate.conclusion == WANTED.get(kind, "regression") and regressed == blamed
            said = [
                f"{re.sub(' cpu fp32', '', str(cell.cell))}: {cell.conclusion}: {cell.why}"
                for cell in gate.cells
                if cell.conclusion != "fine" or cell.not_repeated
            ]
            rows.append(
                [kind, folder.name, gate.conclusion, f"{len(ab.blocks)}", f"{seconds / 60:.1f} min",
                 "; ".join(said) or "nothing got worse"]
            )  # fmt: skip
        if tries:
            low, high = exact_interval(right, tries)
            share = f"{100 * low:.0f}-{100 * high:.0f} %"
            counts.append([kind, WANTED.get(kind, "regression"), f"{right} of {tries}", share])
    heads = ("head", "comparison", "outcome", "blocks", "measuring", "what it said")
    return (
        "\n\n".join(
            [
                "# What was put to the gate, and what it said",
                f"Machine: {'; '.join(sorted(machines))}. Made by "
                "`tests/benchmarks/gate_proof.py`, which says what each head changes.",
                grid(("head", "is to be", "was so", "95 % interval (Clopper and Pearson)"), counts),
                grid(heads, rows),
            ]
        )
        + "\n"
    )


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[2] not in KINDS or not sys.argv[3].isdecimal():
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
