"""Report a self-test: a table of decision rules, its legend, and the requirements on our rule."""

import shlex
from pathlib import Path

from rich.console import Console

from bench.analysis.statistics import ALPHA, MARGIN
from bench.analysis.summary import alone_words
from bench.errors import WriteError
from bench.paths import refusal
from bench.report import page
from bench.report.blocks import (
    Block,
    Code,
    Heading,
    Note,
    Paragraph,
    Table,
    bullets,
    charts_of,
    number_table,
)
from bench.report.format import NOTHING, percent
from bench.report.markdown import PLOTS, document
from bench.report.svg import write_charts
from bench.report.terminal import print_blocks
from bench.selftest import nested
from bench.selftest.calibration import FAMILY, INJECTED, Calibration, Criterion, Rate, Row
from bench.selftest.chart import chart
from bench.selftest.records import SIDES, TRIALS, SelfTest
from bench.store import write_text
from bench.text import duration

REPORT = "SELFTEST.md"
TITLE = "Self-test: how often does the comparison of two rows tell the truth?"


def write(test: SelfTest, calibration: Calibration, folder: Path | None = None) -> Path:
    """Write the report as Markdown and as a page into a folder, by default the self-test's own.

    Return the path of the page.
    """
    folder = folder or test.folder
    blocks = whole(test, calibration)
    path = folder / page.NAME
    try:
        drawn = write_charts(charts_of(blocks), folder / PLOTS)
        write_text(folder / REPORT, document(blocks, drawn))
        write_text(path, page.document(blocks, title=TITLE))
    except OSError as error:
        raise WriteError(f"cannot write the report to {folder}: {refusal(error, folder)}.") from error
    return path


def render(test: SelfTest, calibration: Calibration, console: Console) -> None:
    """Print the report at the console's width."""
    print_blocks(_short(test, calibration), console)


def whole(test: SelfTest, calibration: Calibration) -> list[Block]:
    """Return the whole report."""
    drawn = chart(calibration)
    blocks: list[Block] = [
        Heading(text=TITLE, level=1),
        Paragraph(text=_answer(calibration)),
        bullets(_in_words(criterion) for criterion in calibration.criteria),
        Heading(text="Rules"),
        number_table(heads(), [cells(row) for row in calibration.rows]),
        bullets(legend(test, calibration)),
        *([drawn] if drawn else []),
        *_fewer_blocks(calibration),
        Heading(text="Where and how"),
        Table(heads=("what", "here"), rows=tuple(facts(test))),
        Code(text=shlex.join(test.header.command)),
    ]
    if calibration.lost:
        blocks += [Heading(text="What is missing"), bullets(calibration.lost)]
    if test.rejected:
        blocks += [
            Heading(text="Lines of the record file that could not be read and are left out"),
            bullets(test.rejected),
        ]
    return blocks


def _fewer_blocks(calibration: Calibration) -> list[Block]:
    """Return the table of what fewer blocks would have said; nothing if nothing was judged."""
    rows = [nested.cells(one) for one in nested.at_lengths(calibration)]
    if not rows:
        return []
    return [
        Heading(text="With fewer blocks"),
        Table(heads=nested.heads(), rows=tuple(rows), numbers=frozenset(range(2, len(nested.heads())))),
        Paragraph(text=nested.LEGEND),
    ]


def _short(test: SelfTest, calibration: Calibration) -> list[Block]:
    """Return what the terminal shows; the verdict comes last, where it is read first."""
    unreadable = (f"left out, as it cannot be read: {line}" for line in test.rejected)
    return [
        Heading(text=TITLE, level=1),
        Paragraph(text=f"Self-test {test.header.run_id} on {test.header.environment.in_words()}."),
        number_table(heads(), [cells(row, brief=True) for row in calibration.rows]),
        *(Paragraph(text=line, faint=True) for line in legend(test, calibration)),
        *(Note(text=line) for line in (*calibration.lost, *unreadable)),
        bullets(_in_words(criterion) for criterion in calibration.criteria),
        Paragraph(text=_answer(calibration)),
    ]


def heads() -> list[str]:
    return [
        "rule",
        "false alarms",
        *(f"{percent(injected, 0)} found" for injected in INJECTED),
        "truth held",
        "margin",
    ]


def cells(row: Row, *, brief: bool = False) -> list[str]:
    """Return a row of the table. A brief one has an interval only for the share of false alarms."""
    rate = _count if brief else _rate
    return [
        row.name,
        _rate(row.false_alarms),
        *(rate(row.found[injected]) for injected in INJECTED),
        NOTHING if row.coverage is None else rate(row.coverage),
        NOTHING if row.half_width is None else percent(row.half_width, 1),
    ]


def legend(test: SelfTest, calibration: Calibration) -> list[str]:
    """Return the meaning of each column."""
    header = test.header
    return [
        f"A comparison has two sides and {header.blocks} blocks. In each block every side runs in a new "
        f"process. The {len(SIDES)} processes of a block take turns of {header.window_s:g} s, "
        f"{header.windows} each. The 95 % interval of the true share (Wilson) is in brackets.",
        "False alarms: comparisons of equal sides in which one was called slower. The comparisons of a group "
        "share their blocks and side A, so they are not independent, and the brackets are somewhat too "
        "narrow.",
        "Found: comparisons in which training was made slower by that much, inside the timed stretch, and "
        "the slower side was called slower.",
        "Truth held: the 95 % intervals that contain the injected slowdown, of all comparisons, equal or "
        "not. Margin: half the width of such an interval, the median of all comparisons.",
        f"bench claims a difference if it is proven larger than {percent(MARGIN, 0)} at level {ALPHA:g}. As "
        f"the first of {FAMILY} pairs, as in a run of three frameworks, it has a third of that level (Holm). "
        "Without pairing by round, a change in the machine's speed does not cancel.",
        "The rules of the other tools are reimplemented from their sources and judge the same windows. Their "
        "own way of measuring, one side after the other, would give them worse ones. pytest-benchmark and "
        "google/benchmark compare one process with one, as they do themselves.",
        f"A comparison took {duration(calibration.trial_s)}, the share of its two sides in the time of "
        f"{header.blocks} blocks; the whole self-test took {duration(calibration.total_s)}.",
    ]


def facts(test: SelfTest) -> list[tuple[str, str]]:
    """Return where, when and with which versions it was measured."""
    header = test.header
    environment = header.environment
    versions = {name: said for backend in header.backends for name, said in backend.versions.items()}
    groups = {cell: header.groups.count(cell) for cell in header.groups}
    steal = [block.conditions.steal_share for block in test.blocks]
    known = sorted(share for share in steal if share is not None)
    changed = {True: ", with changes", False: "", None: ""}[environment.dirty]
    said = [
        ("self-test", header.run_id),
        ("started", header.created_at),
        ("groups", "; ".join(f"{cell}: {count}" for cell, count in groups.items())),
        ("comparisons of a group", "; ".join(f"{base} and {head}" for base, head in TRIALS)),
        ("blocks", f"{len(test.blocks)} of {len(header.groups) * header.blocks}"),
        ("machine", environment.in_words()),
        ("system", f"{environment.system}, {environment.python}, host {environment.hostname}"),
        ("GPU", environment.gpu.details() if environment.gpu else ""),
        ("order", " ".join(alone_words([block.in_turns for block in test.blocks]))),
        ("variables", ", ".join(f"{name}={value}" for name, value in environment.variables.items())),
        (
            "CPU taken by the hypervisor",
            f"{percent(known[len(known) // 2], 1)} in the median block, {percent(known[-1], 1)} at most"
            if known
            else "",
        ),
        ("frameworks", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("this program", f"{environment.version}, commit {environment.commit or 'unknown'}{changed}"),
    ]
    return [(name, value) for name, value in said if value]


def _count(rate: Rate) -> str:
    return f"{rate.hits} of {rate.of}" if rate.of else NOTHING


def _rate(rate: Rate) -> str:
    if not rate.of:
        return NOTHING
    low, high = rate.interval
    return f"{_count(rate)} ({100 * low:.0f}-{100 * high:.0f} %)"


def _in_words(criterion: Criterion) -> str:
    state = {True: "met", False: "FAILED", None: "too little was measured to tell"}[criterion.held]
    return f"{criterion.demand}: {criterion.found}, {state}"


def _answer(calibration: Calibration) -> str:
    return {
        "held": "The comparison meets all requirements.",
        "failed": "The comparison does NOT meet its requirements.",
        "unmeasured": "Too little was measured to say whether the comparison meets its requirements.",
    }[calibration.status]
