"""How far every backend and mode is from the float64 reference: the report's section, and `bench verify`."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from rich.console import Console

from bench.analysis.summary import STATUS_WORDS, Summary
from bench.records.runs import Run
from bench.records.schema import ParityRecord
from bench.report.blocks import Block, Heading, Paragraph, Picture, Table, bullets, section
from bench.report.format import NOTHING
from bench.report.terminal import print_blocks
from bench.run.report.tables import row_name

_KINDS: Mapping[str, str] = {
    "logits": "logits before the first step",
    "loss": "loss of the first step",
    "gradient": "gradient of each parameter",
    "step": "change of each parameter in one step",
    "steps": "change of each parameter in all steps",
    "losses": "loss of every step",
}


# ---- the section of the report


def blocks(run: Run, summary: Summary) -> list[Block]:
    """Return the section on parity."""
    title = "Is it the same work?"
    if not run.parity:
        return section(title, "No row was compared with the reference in this run, so no row is ranked.")
    kinds = list(dict.fromkeys(check.kind for record in run.parity for check in record.checks))
    places = {row.cell: place for place, row in enumerate(summary.cells)}
    rows = [
        (
            row_name(record.cell, summary),
            record.optimizer,
            *(_check_text(record, kind) for kind in kinds),
            "ok" if record.ok else "fails" if record.checks else STATUS_WORDS[record.status],
        )
        for record in sorted(run.parity, key=lambda record: places[record.cell])
    ]
    return section(
        title,
        "Before a row is ranked, its framework is compared with a reference in float64: with the same "
        "weights and batches it must produce the same logits, loss, gradients, parameters after one step and "
        "after many, and losses in between. Each figure is the largest relative error of a kind of check, "
        "with its tolerance. A dot to the right of the red line fails; such a row is shown but never ranked.",
        Picture(
            name="parity",
            caption="Largest error, divided by its tolerance, of every kind of check, by workload",
        ),
        Table(
            heads=("row", "optimizer", *kinds, "parity"),
            rows=tuple(rows),
            numbers=frozenset(range(2, 2 + len(kinds))),
        ),
        Paragraph(text="A cell shows error / tolerance, both relative."),
    )


def _check_text(record: ParityRecord, kind: str) -> str:
    found = [check for check in record.checks if check.kind == kind]
    return ", ".join(f"{check.error:.1e} / {check.tolerance:.0e}" for check in found) or NOTHING


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
        name = f"{record.cell.backend} {record.cell.mode}"
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
