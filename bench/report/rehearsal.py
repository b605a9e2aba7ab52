"""Try before a run what a report needs, so that a fault at the end does not lose the measurements."""

import tempfile
from pathlib import Path

from bench.errors import WriteError
from bench.paths import refusal


def rehearse(results: Path) -> None:
    """Draw a figure and write it below the folder of the results, then remove it.

    Raises RecordError if the folder cannot be written, and whatever Matplotlib raises.
    """
    from bench.report import charts

    with charts.settings():
        picture = charts.svg(charts.make_panels([1.0])[0])
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=results) as folder:
            (Path(folder) / "figure.svg").write_bytes(picture)
    except OSError as error:
        raise WriteError(
            f"cannot write results to {results}: {refusal(error, results)}. "
            "Name another folder with --results DIR."
        ) from error
