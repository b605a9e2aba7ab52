"""What several ranks bring: the page's section on several devices."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from bench.analysis.scaling import ScalingSeries
from bench.records.runs import Run
from bench.report.blocks import Block, Chart, Group, Heading, Paragraph, Table, named_bullets
from bench.report.format import NOTHING, cell_name, rate_text
from bench.run.report.scaling_words import (
    NOT_RANKED,
    efficiency_text,
    sentences,
    series_name,
    speed_up_text,
    what_it_shows,
)
from bench.workloads.ranks import Scaling
from bench.workloads.specs import Device, Precision

Place: TypeAlias = tuple[str, Device, Precision, Scaling]
"""Workload, device, precision and scaling: what one picture is about."""

_NO_TABLE = Table(heads=(), rows=())


# ---- the section of the page


def scaling(
    run: Run, series: Sequence[ScalingSeries], charts: Sequence[Chart], titles: Mapping[str, str]
) -> list[Block]:
    """Return the section; nothing for a run without ranks. `charts` are those of the places, in any order."""
    if not run.header.ranks:
        return []
    found: list[Block] = [
        Heading(text="Several devices"),
        Paragraph(
            text="Several processes train one network together. Each of them is a rank, and trains its part "
            "of every batch. The speed-up is the throughput of the framework's distributed mode, divided by "
            "that of its plain mode at one rank, in the same blocks. The efficiency is the speed-up divided "
            "by the number of ranks. Ranges are 95 % intervals."
        ),
        Paragraph(text=" ".join(what_it_shows(run))),
    ]
    for place, members in by_place(series).items():
        chart = next((one for one in charts if one.tags == tags_of(place)), None)
        table = table_of(members, titles)
        if chart is None:
            shown: list[Block] = [table]
        else:
            shown = [msgspec.structs.replace(chart, table=_NO_TABLE), table]
        found.append(
            Group(
                blocks=(
                    Heading(text=place_name(place), level=3),
                    Group(blocks=tuple(shown), beside=chart is not None),
                    named_bullets((series_name(one, titles), " ".join(sentences(one))) for one in members),
                ),
                tags=tags_of(place),
            )
        )
    if not series:
        found.append(Paragraph(text="No row of a distributed mode was planned."))
    return found


def by_place(series: Sequence[ScalingSeries]) -> dict[Place, list[ScalingSeries]]:
    """Return the series of each workload, device, precision and scaling, in their order."""
    found: dict[Place, list[ScalingSeries]] = {}
    for one in series:
        found.setdefault((one.workload, one.device, one.precision, one.scaling), []).append(one)
    return found


def tags_of(place: Place) -> dict[str, str]:
    """Return what a reader can choose a place by."""
    return dict(zip(("workload", "device", "precision", "scaling"), place, strict=True))


def place_name(place: Place) -> str:
    """Return the name of a place: `mnist-cnn, strong scaling (cpu fp32)`."""
    workload, device, precision, kind = place
    return f"{workload}, {kind} scaling ({device} {precision})"


# ---- the table


def table_of(series: Sequence[ScalingSeries], titles: Mapping[str, str]) -> Table:
    """Return every number of ranks of some series, below the plain row of each."""
    rows: list[tuple[str, ...]] = []
    flagged: set[int] = set()
    tags: list[dict[str, str]] = []
    for one in series:
        if one.plain is not None:
            name = cell_name(one.plain, titles)
            missing = one.plain_samples_per_s is None
            if missing:
                flagged.add(len(rows))
            said = NOT_RANKED if missing else NOTHING
            rows.append((name, "1", rate_text(one.plain_samples_per_s), said, NOTHING))
            tags.append({"backend": one.backend})
        for point in one.points:
            if point.speed_up is None:
                flagged.add(len(rows))
            rows.append(
                (
                    series_name(one, titles),
                    str(point.ranks),
                    rate_text(point.samples_per_s),
                    speed_up_text(point),
                    efficiency_text(point),
                )
            )
            tags.append({"backend": one.backend})
    return Table(
        heads=("framework", "ranks", "samples/s", "speed-up", "efficiency"),
        rows=tuple(rows),
        numbers=frozenset({1, 2, 3, 4}),
        flagged=frozenset(flagged),
        tags=tuple(tags),
    )
