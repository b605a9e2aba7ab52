"""What a report needs, tried before anything is measured: a run must not be lost at its end."""

import io
import tempfile
from pathlib import Path

from rich.console import Console

from bench.errors import RecordError
from bench.records.runs import Run


def rehearse(results: Path) -> None:
    """Draw a figure and write it below the folder of the results, then remove it.

    Raises RecordError if nothing can be written there. Whatever Matplotlib raises passes through.
    """
    from bench.run.report.tables import drawing  # Matplotlib takes a second to import

    with drawing.settings():
        picture = drawing.svg(drawing.make_panels([1.0])[0])
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=results) as folder:
            (Path(folder) / "figure.svg").write_bytes(picture)
    except OSError as error:
        raise RecordError(
            f"cannot write to {results}: {error.strerror}. Name another folder with --results."
        ) from error


def rehearse_run(run: Run, console: Console) -> None:
    """Make both reports of a run as it is now, without keeping them."""
    from bench.run.report.tables import markdown, terminal

    terminal.render(run, Console(file=io.StringIO(), width=console.width))
    with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=run.folder) as folder:
        markdown.write(run, Path(folder))
