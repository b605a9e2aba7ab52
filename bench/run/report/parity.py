"""How far every backend and mode is from the float64 reference: the page's section, and `bench verify`."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from rich.console import Console

from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.records.schema import STATUS_WORDS, ParityCheck, ParityRecord
from bench.report.blocks import Block, Chart, Details, Group, Heading, Paragraph, Table, bullets
from bench.report.format import NOTHING, cell_name, mode_name, percent
from bench.report.terminal import print_blocks
from bench.run.report.tags import RowTags
from bench.workloads.specs import Cell

_KINDS: Mapping[str, str] = {
    "logits": "logits before the first step",
    "loss": "loss of the first step",
    "gradient": "gradient of each parameter",
    "step": "change of each parameter in one step",
    "steps": "change of each parameter in all steps",
    "losses": "loss of every step",
}


# ---- the section of the page


def blocks(run: Run, summary: Summary, charts: Sequence[Chart]) -> list[Block]:
    """Return the section on parity: with small batches before the run, and of the program that was timed."""
    head = Heading(text="Is it the same work?")
    if not run.parity:
        said = "No row was compared with the reference in this run, so no row is ranked."
        return [head, Paragraph(text=said), *_measured_program(run, summary)]
    passed = sum(record.ok for record in run.parity)
    return [
        head,
        Paragraph(
            text="Before a row is ranked, its framework is compared with a reference in float64, with the "
            "same weights and the same batches. A row that differs by more than the tolerance is shown and "
            f"never ranked. Here {passed} of {len(run.parity)} comparisons are within tolerance."
        ),
        Group(blocks=tuple(charts), beside=True),
        Details(
            summary="Largest error and tolerance of every check",
            blocks=(
                _checks(run, summary),
                Paragraph(
                    text="A cell shows error / tolerance, both relative to the largest value of the "
                    "reference. " + "; ".join(f"{kind}: {meaning}" for kind, meaning in _KINDS.items()) + ".",
                    faint=True,
                ),
            ),
        ),
        *_measured_program(run, summary),
    ]


def _checks(run: Run, summary: Summary) -> Table:
    kinds = list(dict.fromkeys(check.kind for record in run.parity for check in record.checks))
    places = {row.cell: place for place, row in enumerate(summary.cells)}
    tags = RowTags(summary)
    records = sorted(run.parity, key=lambda record: places[record.cell])
    return Table(
        heads=("workload", "framework", "device", "optimizer", *kinds, "parity"),
        rows=tuple(
            (
                *_names(record.cell, summary),
                record.optimizer,
                *(_check_text(record, kind) for kind in kinds),
                "ok" if record.ok else "fails" if record.checks else STATUS_WORDS[record.status],
            )
            for record in records
        ),
        numbers=frozenset(range(4, 4 + len(kinds))),
        flagged=frozenset(place for place, record in enumerate(records) if not record.ok),
        tags=tuple(tags.of(record.cell) for record in records),
    )


def _names(cell: Cell, summary: Summary) -> tuple[str, str, str]:
    return cell.workload, cell_name(cell, summary.titles), f"{cell.device} {cell.precision}"


def _check_text(record: ParityRecord, kind: str) -> str:
    found = [check for check in record.checks if check.kind == kind]
    return ", ".join(f"{check.error:.1e} / {check.tolerance:.0e}" for check in found) or NOTHING


def _measured_program(run: Run, summary: Summary) -> list[Block]:
    """Return what the comparisons of the timed program found; a sentence if none was made."""
    found: dict[Cell, list[tuple[int, ParityCheck]]] = {row.cell: [] for row in summary.cells}
    for job in run.jobs:
        for proof in job.proofs:
            checks = found.setdefault(job.spec.cell, [])
            checks += [(proof.steps, check) for check in proof.checks]
    head = Heading(text="At the program that was timed", level=3)
    found = {cell: checks for cell, checks in found.items() if checks}
    if not found:
        return [head, Paragraph(text="The records of this run hold no comparison of the timed program.")]
    tags = RowTags(summary)
    rows = []
    for cell, checks in found.items():
        steps = [count for count, _ in checks]
        worst = max((check for _, check in checks), key=lambda check: check.error / check.tolerance)
        rows.append(
            (
                *_names(cell, summary),
                str(len(checks)),
                f"{min(steps)} to {max(steps)}" if min(steps) < max(steps) else str(steps[0]),
                worst.kind if worst.kind == worst.worst else f"{worst.kind} at {worst.worst}",
                f"{worst.error:.1e}",
                f"{worst.tolerance:.0e}",
                percent(worst.error / worst.tolerance, 1),
                "ok" if all(check.ok for _, check in checks) else "fails",
            )
        )
    return [
        head,
        Paragraph(
            text="A compiler makes another program for each batch size. So every job also compares the very "
            "program that it times with the reference, at the workload's batch size and learning rate. The "
            "table shows the check that came nearest to its tolerance."
        ),
        Table(
            heads=(
                "workload", "framework", "device", "checks", "steps", "nearest to its tolerance", "error",
                "tolerance", "error / tolerance", "parity",
            ),
            rows=tuple(rows),
            numbers=frozenset({3, 4, 6, 7, 8}),
            flagged=frozenset(place for place, row in enumerate(rows) if row[-1] != "ok"),
            tags=tuple(tags.of(cell) for cell in found),
        ),
    ]  # fmt: skip


# ---- bench verify


def render_parity(records: Sequence[ParityRecord], console: Console) -> None:
    """Print one table for each workload and optimizer, then which rows failed and where."""
    failed = [record for record in records if not record.ok]
    uncompared = sum(not record.lost for record in failed)
    counted = f"{len(records) - len(failed)} of {len(records)} rows are within their tolerance."
    if uncompared:
        were = "row was" if uncompared == 1 else "rows were"
        counted += f" {uncompared} {were} not compared, for the reason given above."
    kinds = "; ".join(f"{kind}: {meaning}" for kind, meaning in _KINDS.items())
    found: list[Block] = []
    for place, group in groupby(sorted(records, key=_place), key=_place):
        found += _group(place, list(group))
    found.append(
        Paragraph(
            text=f"Largest error relative to the largest value of the reference, float64 NumPy. {kinds}.",
            faint=True,
        )
    )
    if failed:
        found.append(bullets(f"{record.cell} {record.optimizer}: {_why(record)}" for record in failed))
    found.append(Paragraph(text=counted))
    print_blocks(found, console)


def _place(record: ParityRecord) -> tuple[str, str, str, str]:
    cell = record.cell
    return cell.workload, record.optimizer, cell.device, cell.precision


def _group(place: tuple[str, str, str, str], records: Sequence[ParityRecord]) -> list[Block]:
    """Return a heading, and a table with the tolerances first."""
    workload, optimizer, device, precision = place
    allowed: dict[str, str] = {
        check.kind: f"{check.tolerance:.0e}" for record in records for check in record.checks
    }
    rows = [("allowed", *(allowed.get(kind, NOTHING) for kind in _KINDS), "")]
    for record in records:
        errors: dict[str, str] = {check.kind: f"{check.error:.1e}" for check in record.checks}
        name = f"{record.cell.backend} {mode_name(record.cell)}"
        rows.append((name, *(errors.get(kind, NOTHING) for kind in _KINDS), _verdict(record)))
    return [
        Heading(text=f"{workload}, {optimizer}, {device} {precision}", level=3),
        Table(
            heads=("row", *_KINDS, "parity"),
            rows=tuple(rows),
            numbers=frozenset(range(1, 1 + len(_KINDS))),
            flagged=frozenset(row for row, record in enumerate(records, start=1) if not record.ok),
        ),
    ]


def _verdict(record: ParityRecord) -> str:
    if record.ok:
        return "ok"
    return "FAILS" if record.lost else "not compared"


def _why(record: ParityRecord) -> str:
    worst = [f"{check.kind} at {check.worst}" for check in record.checks if not check.ok]
    return record.error or "; ".join(worst) or record.status
