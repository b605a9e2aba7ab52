"""What a reader must know before the figures of a run: limited data, known faults, warnings of frameworks."""

from bench.machine.known_faults import known_faults
from bench.records.runs import Run
from bench.records.schema import RunHeader


def run_warnings(header: RunHeader) -> tuple[str, ...]:
    """Return a warning for every framework of the run whose version is known to compute wrong values."""
    devices = {cell.backend: cell.device for cell in header.cells}
    return tuple(
        f"{backend.title}: {warning}"
        for backend in header.backends
        if backend.name in devices
        for warning in known_faults(backend.versions, devices[backend.name])
    )


def job_warnings(run: Run) -> tuple[str, ...]:
    """Return what the frameworks warned of while they ran, each warning of a mode once."""
    titles = {backend.name: backend.title for backend in run.header.backends}
    said = (
        f"{titles[job.spec.cell.backend]} {job.spec.cell.mode}: {job.described['warning']}"
        for job in run.jobs
        if job.described.get("warning")
    )
    return tuple(dict.fromkeys(said))


def run_mark(header: RunHeader) -> str | None:
    """Return how the run differs from one on the full data sets in which frameworks may use every core.

    None if it does not. The rows of two runs with different marks are not the same rows.
    """
    marks, others = [], []
    if header.sample:
        marks.append("made on the small sample that comes with the program")
    if header.dataset_limit is not None:
        marks.append(f"limited to the first {header.dataset_limit:,} images of each split")
    if marks:
        others.append("on the full data sets")
    if header.ranks and any(cell.device == "cpu" for cell in header.cells):
        marks.append("each process pinned to one core")
        others.append("without ranks")
    if not marks:
        return None
    return f"{'; '.join(marks).capitalize()}. Not to be compared with a run {' and '.join(others)}."
