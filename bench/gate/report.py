"""Report two sides, of two runs or of a comparison side by side: terminal, Markdown and page."""

from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec
from rich.console import Console

from bench.analysis.summary import alone_words
from bench.gate.changes import Changed, side_changes
from bench.gate.compare import Compared
from bench.gate.judge import PASSED, CellGate, Gate, left_out_by
from bench.gate.metrics import ACCURACY, FIRST_STEP, LEFT_OUT, MEMORY, SPEED, TIME_TO_TARGET, Finding, Metric
from bench.gate.records import Ab
from bench.report import markdown, page
from bench.report.blocks import Block, Heading, Paragraph, Table, bullets, named_bullets
from bench.report.format import NOTHING, cell_name, percent_text
from bench.report.terminal import print_blocks
from bench.text import listed

_HEADS = ("figure", "base", "head", "change", "interval", "detectable", "verdict")
_NUMBERS = ("base", "head", "change", "interval", "detectable")
_FEW_ROWS = 3
_MINUS = "\N{MINUS SIGN}"
_TITLES = {
    "fine": "No regression",
    "regression": "REGRESSION",
    "undecided": "Undecided, which does not pass",
}
_POWER = (
    "By default, a true loss of speed passes in this share of simulated gates: "
    + ", ".join(f"a loss of {100 * loss:.0f} % in {100 * share:.0f} %" for loss, share in PASSED.items())
    + " (docs/trials.md)."
)
_TOLD = (SPEED, FIRST_STEP, MEMORY, TIME_TO_TARGET, ACCURACY)
"""The metrics whose limits the legend gives; GPU memory has those of memory."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a report, of either kind of comparison."""

    title: str
    conclusion: str
    interval: str
    """Which interval the figures have, in words."""
    sentences: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    """A row's name, and a cell for each of the heads."""
    changes: tuple[str, ...]
    remarks: tuple[str, ...]


def legend(view: View) -> tuple[tuple[str, str], ...]:
    """Return the meaning of the columns and verdicts, with the limits that decide."""
    margins = ", ".join(f"{one.name} {_limit(one, one.margin)}" for one in _TOLD)
    tolerances = ", ".join(f"{one.name} {_limit(one, one.tolerance)}" for one in _TOLD)
    return (
        ("change", f"of head against base, with {view.interval}"),
        (
            "detectable",
            "the smallest change that a comparison like this finds four times in five, as a 95 % interval, "
            "from six values on",
        ),
        ("a change is claimed", f"if it is proven larger than its margin: {margins}"),
        ("no change is claimed", f"if the whole interval is within the tolerance: {tolerances}"),
        ("undecided", "everything else"),
    )


def _interval_of(ab: Ab) -> str:
    """Return which interval decides in a comparison side by side, in words."""
    share = f"{100 * (1 - left_out_by(ab, 'first')):.3g} %"
    return f"its {share} interval (of losses as large as the tolerance, 5 % pass in all looks together)"


def _limit(metric: Metric, share: float) -> str:
    return f"{100 * share:g} {'%' if metric.relative else 'points'}"


def view_of_runs(compared: Compared) -> View:
    """Return the report of two runs."""
    base, head = compared.base.header, compared.head.header
    rows: list[tuple[str, tuple[str, ...]]] = []
    remarks: list[str] = []
    sentences = []
    untold: dict[str, list[str]] = {}
    several = len({(one.cell.device, one.cell.precision) for one in compared.cells}) > 1
    for one in compared.cells:
        place = f" ({one.cell.device} {one.cell.precision})" if several else ""
        name = f"{one.cell.workload}{place}: {cell_name(one.cell, compared.titles)}"
        rows += [(name, _figures(found)) for found in one.findings]
        for metric, why in one.untold.items():
            untold.setdefault(f"{metric} was not compared: {why}", []).append(name)
        sentences.append(f"{name}: {one.conclusion or 'new'}: {one.why}")
    if compared.drift is not None:
        remarks.insert(
            0, f"The canary, a fixed product, took {1 + compared.drift:.3f} times as long in head."
        )
    sentences += [f"nothing passes, as a line cannot be read: {line}" for line in compared.unreadable]
    remarks += [f"{why} ({_rows(names)})" for why, names in untold.items()]
    remarks.append(
        "The runs were made one after the other, so every change contains what the machine did between "
        "them. bench ab measures both sides side by side and detects smaller changes."
    )
    return View(
        title=f"{base.run_id} (base) and {head.run_id} (head)",
        conclusion=_TITLES[compared.conclusion],
        interval=f"its {100 * (1 - LEFT_OUT):g} % interval",
        sentences=tuple(sentences) or ("The runs have no rows.",),
        rows=tuple(rows),
        changes=_in_words(compared.changes),
        remarks=tuple(remarks),
    )


def view_of_ab(ab: Ab, gate: Gate) -> View:
    """Return the report of a comparison side by side."""
    titles = {
        backend.name: backend.title for side in (ab.header.base, ab.header.head) for backend in side.backends
    }
    rows: list[tuple[str, tuple[str, ...]]] = []
    sentences, remarks = [], []
    for cell in gate.cells:
        name = f"{cell.cell.workload}: {cell_name(cell.cell, titles)}"
        rows += [(name, _figures(found)) for found in cell.first]
        rows += [
            (f"{name}, again", _figures(found)) for found in cell.second if found.metric.name in cell.suspects
        ]
        sentences.append(f"{name}: {cell.conclusion}: {cell.why}")
        if remark := _blocks(cell):
            remarks.append(f"{name}: {remark}")
    blocks = sum(cell.blocks for cell in gate.cells)
    minutes = sum(block.wall_s for block in ab.blocks) / 60
    remarks.append(f"{blocks} blocks counted, measured in {minutes:.1f} minutes.")
    remarks += alone_words([block.in_turns for block in ab.blocks])
    remarks.append(_POWER)
    if unlike := sorted(set(ab.header.base.made) ^ set(ab.header.head.made)):
        names = listed([titles.get(name, name) for name in unlike])
        remarks.append(
            f"Only one side of {names} ran in an environment that bench ab made. Two environments with the "
            "same packages differed by 1.4 % in one comparison (docs/trials.md)."
        )
    return View(
        title=f"{ab.header.run_id} on {ab.header.environment.in_words()}",
        conclusion=_TITLES[gate.conclusion],
        interval=_interval_of(ab),
        sentences=(*sentences, *(f"nothing passes without {name}" for name in gate.missing))
        or ("Nothing was compared.",),
        rows=tuple(rows),
        changes=_in_words(side_changes(ab)),
        remarks=tuple(remarks),
    )


def render(view: View, console: Console) -> None:
    """Print the report, with the conclusion last."""
    blocks: list[Block] = [Paragraph(text=view.title)]
    for name, group in groupby(view.rows, key=lambda row: row[0]):
        blocks += [Heading(text=name, level=3), _table(_HEADS, [cells for _, cells in group])]
    if view.rows:
        blocks.append(named_bullets(legend(view)))
    blocks += _lists(("Environment", view.changes), ("Remarks", view.remarks), ("Verdict", view.sentences))
    print_blocks([*blocks, Paragraph(text=f"{view.conclusion}.")], console)


def text(view: View) -> str:
    """Return the report as Markdown."""
    return markdown.document(whole(view), frozenset())


def document(view: View) -> str:
    """Return the report as a page."""
    return page.document(whole(view), title=f"{view.conclusion}: {view.title}")


def whole(view: View) -> list[Block]:
    """Return the report with the conclusion first, as a CI job's summary shows the beginning."""
    blocks: list[Block] = [
        Heading(text=view.conclusion, level=1), Paragraph(text=view.title), bullets(view.sentences),
    ]  # fmt: skip
    if view.rows:
        blocks += [Heading(text="Figures"), figures(view), named_bullets(legend(view))]
    return blocks + _lists(("Environment", view.changes), ("Remarks", view.remarks))


def figures(view: View) -> Table:
    """Return every figure of every row in one table."""
    return _table(("row", *_HEADS), [(name, *cells) for name, cells in view.rows])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    numbers = frozenset(place for place, head in enumerate(heads) if head in _NUMBERS)
    return Table(heads=tuple(heads), rows=tuple(tuple(row) for row in rows), numbers=numbers)


def _lists(*lists: tuple[str, Sequence[str]]) -> list[Block]:
    """Return a heading and a list for each that is not empty."""
    return [block for name, lines in lists if lines for block in (Heading(text=name), bullets(lines))]


def _figures(found: Finding) -> tuple[str, ...]:
    metric = found.metric
    digits = 1 if metric.relative else 2
    return (
        metric.name,
        _value(found, found.base),
        _value(found, found.head),
        _signed(found.change) if metric.relative else _points(found.change),
        f"{_bare(found.low, digits)} to {_bare(found.high, digits)}",
        _detectable(found),
        verdict_words(found),
    )


def _detectable(found: Finding) -> str:
    if found.detectable is None:
        return NOTHING
    low, high = found.detectable
    if found.metric.relative:
        return f"{percent_text(low)} to {percent_text(high)}"
    return f"{100 * low:.2f} to {100 * high:.2f} points"


def verdict_words(found: Finding) -> str:
    """Return a finding in words: slower, faster, no difference larger than 5 %, undecided."""
    metric = found.metric
    most = _limit(metric, metric.tolerance)
    worse, better = metric.words
    return {
        "worse": worse,
        "better": better,
        "same": f"no difference larger than {most}",
        "no worse": f"no loss larger than {most}",
        "undecided": "undecided",
    }[found.kind]


def _value(found: Finding, value: float) -> str:
    match found.metric.unit:
        case "bytes":
            return f"{value / 2**20:,.0f} MiB"
        case "share":
            return f"{100 * value:.2f} %"
        case "s":
            return f"{value:.3g} s"
    return f"{value:,.0f}/s" if value >= 100 else f"{value:.3g}/s"


def _signed(change: float) -> str:
    return f"{_bare(change, 1)} %"


def _points(change: float) -> str:
    return f"{_bare(change, 2)} points"


def _bare(change: float, digits: int) -> str:
    return f"{100 * change:+.{digits}f}".replace("-", _MINUS)


def _in_words(changes: Sequence[Changed]) -> tuple[str, ...]:
    return tuple(one.in_words() for one in changes) or ("nothing that is recorded differs",)


def _rows(names: Sequence[str]) -> str:
    return listed(names) if len(names) <= _FEW_ROWS else f"{len(names)} rows"


def _blocks(cell: CellGate) -> str:
    said = []
    if cell.lost:
        said.append(f"{cell.lost} blocks were lost, the last one for {cell.lost_for}")
    if cell.disturbed:
        blocks = cell.blocks + cell.lost
        what = "something else disturbed the machine"
        if cell.throttled == cell.disturbed:
            what = "a CPU quota held the jobs back"
        said.append(f"{what} during {cell.disturbed} of {blocks} blocks")
    return "; ".join(said)
