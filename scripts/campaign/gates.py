"""Part 7: put heads to the gate, so many tries of a kind, none left out.

    python -m campaign.gates FOLDER KIND TRIES OPTION...

TRIES counts those that lie in FOLDER already, so the same command makes what is left after an interruption.
A try that was interrupted has no verdict: its folder moves to FOLDER/interrupted. A try that ends without a
verdict by itself is a failure, and ends the command.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from bench.errors import BenchError, RecordError
from bench.gate.records import HEADER

REPORT = "AB.md"
INTERRUPTED = "interrupted"
PROOF = Path(__file__).resolve().parents[2] / "tests" / "benchmarks" / "gate_proof.py"

Try = Callable[[Path, str, int, list[str]], None]


def make(folder: Path, kind: str, tries: int, options: Sequence[str], attempt: Try) -> None:
    """Make the tries that are left; raise RecordError if one ends without a verdict."""
    set_interrupted_aside(folder, kind)
    while (done := len(judged(folder, kind))) < tries:
        attempt(folder, kind, 1, list(options))
        if len(judged(folder, kind)) == done:
            raise RecordError(f"a try of {kind} ended without a verdict; see what it printed.")


def judged(folder: Path, kind: str) -> list[Path]:
    """Return the folders of the tries that have a verdict."""
    return sorted(path.parent for path in (folder / kind).glob(f"*/{REPORT}"))


def set_interrupted_aside(folder: Path, kind: str) -> None:
    for path in sorted((folder / kind).glob(f"*/{HEADER}")):
        if not (path.parent / REPORT).is_file():
            (folder / INTERRUPTED).mkdir(exist_ok=True)
            path.parent.rename(folder / INTERRUPTED / path.parent.name)


def proof() -> ModuleType:
    """Return the module that puts a head to the gate, and reports on all tries."""
    spec = spec_from_file_location("gate_proof", PROOF)
    if spec is None or spec.loader is None:
        raise RecordError(f"{PROOF} cannot be read")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    try:
        make(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:], proof().main)
    except BenchError as error:
        sys.exit(f"gates: {error}")
