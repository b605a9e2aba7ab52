"""Try before a run what a report needs, so that a fault at the end does not lose the measurements."""

import tempfile
from pathlib import Path

from bench.errors import WriteError
from bench.paths import refusal


def rehearse(results: Path) -> None:
    """Write a file below the folder of the results, then remove it.

    Raises WriteError if that is refused.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=results) as folder:
            (Path(folder) / "report").write_text("")
    except OSError as error:
        raise WriteError(
            f"cannot write results to {results}: {refusal(error, results)}. "
            "Name another folder with --results DIR."
        ) from error
