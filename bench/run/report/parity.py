"""The table of `bench verify`: how far every backend and mode is from the float64 reference."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.records.schema import ParityCheck, ParityRecord
from bench.text import clean

_KINDS: Mapping[str, str] = {
    "logits": "logits before the first step",
    "loss": "loss of the first step",
    "gradient": "gradient of each parameter",
    "step": "change of each parameter in one step",
    "steps": "change of each parameter in all steps",
    "losses": "loss of every step",
}


def render_parity(records: Sequence[ParityRecord], console: Console) -> None:
    """Print one table a workload and optimizer, then which rows failed and where."""
    width = max((len(_row(record)) for record in records), default=0)
    ordered = sorted(records, key=_table)
    for (workload, optimizer, device, precision), group in groupby(ordered, key=_table):
        rows = list(group)
        title = Text(clean(f"{workload}, {optimizer}, {device} {precision}"), style="bold")
        table = Table(
            box=None,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            header_style="dim",
            title=title,
            title_justify="left",
        )
        table.add_column("", min_width=width)
        for kind in _KINDS:
            table.add_column(kind, justify="right", min_width=8)
        table.add_column("")
        allowed: dict[str, str] = {
            check.kind: f"{check.tolerance:.0e}" for record in rows for check in record.checks
        }
        table.add_row("allowed", *(allowed.get(kind, "") for kind in _KINDS), "", style="dim")
        for record in rows:
            found: dict[str, Text] = {check.kind: _error(check) for check in record.checks}
            verdict = _verdict(record)
            table.add_row(Text(clean(_row(record))), *(found.get(kind, "") for kind in _KINDS), verdict)
        console.print(table)
        console.print()
    said = "Largest error relative to the largest value of the reference, float64 NumPy. " + "; ".join(
        f"{kind}: {meaning}" for kind, meaning in _KINDS.items()
    )
    console.print(Text(said + ".", style="dim"))
    failed = [record for record in records if not record.ok]
    for record in failed:
        worst = [check for check in record.checks if not check.ok]
        why = record.error or "; ".join(f"{check.kind} at {check.worst}" for check in worst) or record.status
        console.print(Text(clean(f"{record.cell} {record.optimizer}: {why}")), soft_wrap=True)
    console.print(Text(f"{len(records) - len(failed)} of {len(records)} rows are within their tolerance."))
    uncompared = sum(not record.lost for record in failed)
    if uncompared:
        were = "row was" if uncompared == 1 else "rows were"
        console.print(Text(f"{uncompared} {were} not compared, for the reason given above."))


def _verdict(record: ParityRecord) -> Text:
    if record.ok:
        return Text("ok", "green")
    return Text("FAILS", "bold red") if record.lost else Text("not compared", "yellow")


def _table(record: ParityRecord) -> tuple[str, str, str, str]:
    cell = record.cell
    return cell.workload, record.optimizer, cell.device, cell.precision


def _row(record: ParityRecord) -> str:
    return f"{record.cell.backend} {record.cell.mode}"


def _error(check: ParityCheck) -> Text:
    return Text(f"{check.error:.1e}", style="" if check.ok else "bold red")
