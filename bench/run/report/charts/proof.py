"""The charts of parity: how far every row is from the float64 reference."""

from collections.abc import Mapping, Sequence

from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.records.schema import STATUS_WORDS, ParityCheck, ParityRecord
from bench.report.blocks import Chart, Table
from bench.report.chart import Axis, Bar, Bars, Mark
from bench.report.format import NOTHING, cell_name
from bench.report.names import chart_name
from bench.run.report.charts.rows import Looks, looks_of, place_tags

_PARITY_ABOUT = (
    "The largest error of each row, divided by its tolerance; small dots are the other checks. A row is "
    "ranked only if all of them are left of the line, so that it computes what the reference computes."
)


def parity(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart for every workload of which a row was compared with the reference."""
    looks = looks_of(run, summary)
    places: dict[tuple[str, str, str], list[ParityRecord]] = {}
    for record in run.parity:
        cell = record.cell
        places.setdefault((cell.workload, cell.device, cell.precision), []).append(record)
    return [
        _parity(
            place, sorted(records, key=lambda one: (looks.order(one.cell), one.optimizer)), looks, summary
        )
        for place, records in places.items()
        if any(record.checks for record in records)
    ]


def _parity(
    place: tuple[str, str, str], records: Sequence[ParityRecord], looks: Looks, summary: Summary
) -> Chart:
    several = len({record.optimizer for record in records}) > 1
    names = [
        cell_name(record.cell, summary.titles) + (f", {record.optimizer}" if several else "")
        for record in records
    ]
    shares = [share for record in records for check in record.checks if (share := _share(check)) > 0]
    # A logarithmic axis has no 0: an error of 0 is drawn at a tenth of the smallest.
    left = min([0.1, *shares]) / 10
    kinds = list(dict.fromkeys(check.kind for record in records for check in record.checks))
    return Chart(
        name=chart_name("parity", *place),
        title=f"{place[0]}: {_proof(records, summary.titles)}",
        about=_PARITY_ABOUT,
        drawn=Bars(
            axis=Axis(title="error / tolerance (logarithmic)", log=True),
            bars=tuple(_bar(record, name, left, looks) for record, name in zip(records, names, strict=True)),
            marks=(Mark(value=1.0, text="tolerance"),),
        ),
        table=Table(
            heads=("framework", *kinds, "parity"),
            rows=tuple(
                (name, *(_checks_text(record, kind) for kind in kinds), _state(record))
                for record, name in zip(records, names, strict=True)
            ),
            numbers=frozenset(range(1, 1 + len(kinds))),
            flagged=frozenset(number for number, record in enumerate(records) if not record.ok),
            tags=tuple(looks.tags(record.cell) for record in records),
        ),
        tags=place_tags(*place),
    )


def _bar(record: ParityRecord, name: str, left: float, looks: Looks) -> Bar:
    worst = _worst(record)
    shares = [max(_share(check), left) for check in record.checks]
    text = _state(record) if worst is None else f"{_share(worst):.2g}, {worst.kind}"
    return Bar(
        name=name,
        parts=(max(_share(worst), left) if worst else None,),
        text=text if record.ok or worst is None else f"{text}: fails",
        points=tuple(shares),
        hue=looks.hue(record.cell),
        shape=looks.shape(record.cell),
        ranked=record.ok,
        tags=looks.tags(record.cell),
    )


def _share(check: ParityCheck) -> float:
    return check.error / check.tolerance


def _worst(record: ParityRecord) -> ParityCheck | None:
    return max(record.checks, key=_share, default=None)


def _proof(records: Sequence[ParityRecord], titles: Mapping[str, str]) -> str:
    """Say how many rows compute what the reference computes, and how far the worst of them is off."""
    good = [record for record in records if record.ok and record.checks]
    count = f"{len(good)} of {len(records)} rows compute" if len(good) < len(records) else "all rows compute"
    if len(records) == 1:
        count = "the one row computes" if good else "the one row does not compute"
    said = f"{count} the same as the reference within tolerance"
    if not good:
        return said
    record = max(good, key=lambda one: max(map(_share, one.checks)))
    worst = max(record.checks, key=_share)
    name = cell_name(record.cell, titles)
    return f"{said}; the largest error is {_share(worst):.2g} of what is allowed ({name})"


def _state(record: ParityRecord) -> str:
    return "ok" if record.ok else "fails" if record.checks else STATUS_WORDS[record.status]


def _checks_text(record: ParityRecord, kind: str) -> str:
    found = [check for check in record.checks if check.kind == kind]
    return ", ".join(f"{check.error:.1e} / {check.tolerance:.0e}" for check in found) or NOTHING
