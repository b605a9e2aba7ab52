"""What a report needs, tried before anything is measured: a run must not be lost at its end."""

import tempfile
from pathlib import Path

from bench.errors import RecordError


def rehearse(results: Path) -> None:
    """Draw a figure and write it below the folder of the results, then remove it.

    Raises RecordError if nothing can be written there. Whatever Matplotlib raises passes through.
    """
    from bench.report import charts

    with charts.settings():
        picture = charts.svg(charts.make_panels([1.0])[0])
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=results) as folder:
            (Path(folder) / "figure.svg").write_bytes(picture)
    except OSError as error:
        raise RecordError(
            f"cannot write results to {results}: {error.strerror}. Name another folder with --results DIR."
        ) from error
