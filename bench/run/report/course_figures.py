"""The figures of each framework that somebody needs who chooses one for a course or a group."""

from collections.abc import Mapping, Sequence

import msgspec

from backends.info import BackendInfo
from backends.lessons import MISTAKES
from bench.analysis.convergence import is_too_brief
from bench.analysis.costs import StartUp, read_costs
from bench.analysis.lessons import latest_lessons
from bench.analysis.summary import CellSummary, Summary
from bench.records.runs import Run
from bench.run.report.course_code import code_lines, cut, source_of
from bench.workloads.specs import Device

UNCHECKED = tuple(one.name for one in MISTAKES if not one.checked)
"""The mistakes as a student makes them, with no check switched on."""


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """One backend of a run on the workload of the course view. A figure is None where the run has none."""

    backend: str
    title: str
    lines: int | None
    """Lines of code of the network and the training step, as the lessons have them."""
    packages: int | None
    installed_bytes: int | None
    import_s: float | None
    first_result_s: float | None
    """From the start of a process to the end of the first epoch, of `first_result_of`."""
    first_result_of: CellSummary | None
    """The row as taught, if it was measured, else the tuned one."""
    taught: CellSummary | None
    tuned: CellSummary | None
    engine: str | None = None
    """The backend whose framework it trains with, as Keras does; None if it is a framework."""
    errors: int | None
    """How many of the wrong batches in `UNCHECKED` the framework refuses with an exception."""

    @property
    def trained(self) -> CellSummary | None:
        """The row whose accuracy is shown: one that was trained long enough."""
        for row in (self.taught, self.tuned):
            if row is not None and row.test_accuracy is not None and row.epochs is not None:
                return None if is_too_brief(row.epochs) else row
        return None


class CourseFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the course view shows as figures."""

    workload: str
    device: Device
    contenders: tuple[Contender, ...]
    """In the order of the run's backends, without the reference."""


def read_figures(run: Run, summary: Summary, infos: Mapping[str, BackendInfo]) -> CourseFigures | None:
    """Return the figures of a run; None if it has no row of a framework.

    `infos` are the backends known here, whose source is read for the lines of code.
    """
    rows = [row for row in summary.cells if not row.reference and row.matched]
    if not rows:
        return None
    workload = _workload(rows)
    here = [row for row in rows if row.workload == workload]
    device, precision = here[0].device, here[0].precision
    here = [row for row in here if (row.device, row.precision) == (device, precision)]
    starts = {one.cell: one.start_up for one in read_costs(run, summary).cells}
    refused = _refused(run)
    contenders = []
    for backend in run.header.backends:
        own = [row for row in here if row.backend == backend.name]
        if backend.reference or not own:
            continue
        taught = _best([row for row in own if row.level == "taught"])
        tuned = _best([row for row in own if row.level == "tuned"])
        first = next((row for row in (taught, tuned) if row and _first_result_s(starts[row.cell])), None)
        info = infos.get(backend.name)
        contenders.append(
            Contender(
                backend=backend.name,
                title=backend.title,
                lines=_lines(info) if info else None,
                packages=backend.packages,
                installed_bytes=backend.installed_bytes,
                import_s=next((row.import_s for row in (taught, tuned) if row and row.import_s), None),
                first_result_s=_first_result_s(starts[first.cell]) if first else None,
                first_result_of=first,
                taught=taught,
                tuned=tuned,
                engine=info.engine if info else None,
                errors=refused.get(backend.name),
            )
        )
    return CourseFigures(workload=workload, device=device, contenders=tuple(contenders))


def shown_code(info: BackendInfo) -> list[str]:
    """Return the source of a backend's network and training step; empty if one cannot be read here."""
    if info.lessons is None:
        return []
    source = source_of(info.lessons.target.partition(":")[0])
    parts = [cut(source, name) for name in (info.lessons.network, info.lessons.step)] if source else []
    found = [part for part in parts if part is not None]
    return found if len(found) == len(parts) else []


def _lines(info: BackendInfo) -> int | None:
    parts = shown_code(info)
    return sum(map(code_lines, parts)) if parts else None


def _workload(rows: Sequence[CellSummary]) -> str:
    """Return the workload with the most rows as taught; of several, the first of the run."""
    names = list(dict.fromkeys(row.workload for row in rows))
    taught = {name: sum(row.workload == name and row.level == "taught" for row in rows) for name in names}
    return max(names, key=lambda name: (taught[name], -names.index(name)))


def _best(rows: Sequence[CellSummary]) -> CellSummary | None:
    """Return the fastest ranked row; if none is ranked, the first one."""
    return next((row for row in rows if row.ranked), rows[0] if rows else None)


def _first_result_s(start_up: StartUp) -> float | None:
    return start_up.first_result_s


def _refused(run: Run) -> dict[str, int]:
    """Return how many unchecked mistakes each backend refuses; only backends that were given all of them."""
    found = {}
    for record in latest_lessons(run).values():
        made = {one.name: one for one in record.mistakes if one.name in UNCHECKED and one.status == "ok"}
        if len(made) == len(UNCHECKED):
            found[record.backend] = sum(one.raised is not None for one in made.values())
    return found
