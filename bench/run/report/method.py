"""The page's sections on the machine, the versions, and how it was measured."""

import shlex

from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.blocks import (
    Block,
    Code,
    Details,
    Heading,
    Paragraph,
    Table,
    bullets,
    named_bullets,
    section,
)
from bench.report.format import cell_name, commit_text, versions_text
from bench.run.outlook import in_words, outlook
from bench.run.report import carry_over
from bench.run.report.ranking import how_compared
from bench.run.report.tables import conditions_of, plan_texts, reported
from bench.run.report.trained import workloads
from bench.text import duration

_DEFAULT = " (the default mode: its documentation teaches it first)"


def machine(run: Run) -> list[Block]:
    """Return the section on the machine and the versions."""
    header = run.header
    environment = header.environment
    facts = [
        ("machine", environment.in_words()),
        ("system", f"{environment.system}, {environment.python}, host {environment.hostname}"),
        ("threads", environment.threads_in_words()),
        ("GPU", environment.gpu.details() if environment.gpu else None),
        ("GPU driver", environment.gpu_driver),
        ("variables", ", ".join(f"{name}={value}" for name, value in environment.variables.items())),
        *(
            (f"{backend.title}", _versions(backend.versions))
            for backend in header.backends
            if backend.versions
        ),
        ("this program", commit_text(run)),
        ("run", header.run_id),
        ("started", header.created_at),
    ]
    return [
        Heading(text="The machine and the versions"),
        Table(heads=("what", "here"), rows=tuple((name, said) for name, said in facts if said)),
        *_reported(run),
        *_conditions(run),
    ]


def _conditions(run: Run) -> list[Block]:
    found = conditions_of(run)
    if not found:
        return []
    blocks = len(run.blocks)
    return section(
        "What else the machine did",
        f"During {f'{blocks} blocks' if blocks > 1 else 'one block'}. Of a share, the median over the blocks "
        "and the largest.",
        Table(heads=("what", "here"), rows=tuple(found)),
        level=3,
    )


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _reported(run: Run) -> list[Block]:
    """Return, for every backend and mode, the settings that all its jobs reported with the same value."""
    titles = {backend.name: backend.title for backend in run.header.backends}
    common: dict[str, dict[str, str]] = {}
    for cell, said in reported(run).items():
        before = common.setdefault(cell_name(cell, titles), dict(said))
        for key in [key for key in before if said.get(key) != before[key]]:
            del before[key]
    found = named_bullets(
        (name, "; ".join(f"{key} {value}" for key, value in sorted(said.items())))
        for name, said in sorted(common.items())
        if said
    )
    return (
        [Details(summary="What the frameworks reported while they ran", blocks=(found,))]
        if found.items
        else []
    )


def how_measured(run: Run, summary: Summary) -> list[Block]:
    """Return the section on how it was measured, and how to do it again."""
    header = run.header
    found = outlook(run, summary)
    planned, took = plan_texts(run)
    rows = (
        ("preset", f"{header.preset}, time budget {duration(header.budget_s)}, seed {header.seed}"),
        ("planned", planned),
        ("took", took),
        ("precision", _precision(run, summary)),
        *((("for narrower intervals", in_words(found)),) if found is not None else ()),
    )
    return [
        Heading(text="How it was measured"),
        bullets(
            (
                "Each framework and mode trained each workload in several blocks, each time in a fresh "
                "process.",
                "All processes of a block are alive at the same time and take turns of about a fifth of a "
                "second, so a slow moment of the machine hits all of them.",
                "Between the two clock readings of a window there is training and nothing else. The device "
                "is synchronized at both ends. Start-up and evaluation are not included.",
                "Raw values are stored, and every figure on this page is derived from them when it is made.",
            )
        ),
        Table(heads=("what", "here"), rows=rows),
        Details(summary="How rows are compared", blocks=(bullets(how_compared()),)),
        *_folded("What the order of the turns may have changed", carry_over.blocks(summary)[1:]),
        *workloads(run),
        *_modes(run),
        Heading(text="Do it again", level=3),
        Paragraph(
            text="Take this program at the commit below. Its README has the command that installs it and the "
            "frameworks. Then measure:"
        ),
        Code(text=shlex.join(header.command)),
        Paragraph(
            text=f"This run had version {commit_text(run)}, and "
            f"{versions_text(header) or 'no framework installed'}. This makes the page again from the "
            "records:"
        ),
        Code(text=f"bench report {shlex.quote(run.folder.name)}"),
    ]


def _precision(run: Run, summary: Summary) -> str:
    """Say how precise the ratios were to be, and how precise they are."""
    asked = f"±{100 * run.header.target_half_width:g} % was asked for, of the ratio of two frameworks"
    widths = [one.half_width for verdict in summary.verdicts for one in verdict.made.backends]
    if not widths:
        return f"{asked}; no frameworks were compared"
    ranges = f"±{100 * min(widths):.2g} to ±{100 * max(widths):.2g} %"
    return f"{asked}; {ranges} was reached in {len(widths)} comparisons"


def _folded(summary: str, blocks: list[Block]) -> list[Block]:
    return [Details(summary=summary, blocks=tuple(blocks))] if blocks else []


def _modes(run: Run) -> list[Block]:
    used = {(cell.backend, cell.mode) for cell in run.header.cells}
    lines = [
        (f"{backend.title} {mode}", meaning + (_DEFAULT if mode == backend.default_mode else ""))
        for backend in run.header.backends
        for mode, meaning in backend.modes.items()
        if (backend.name, mode) in used
    ]
    if not lines:
        return []
    return [Heading(text="The modes, by the frameworks' own names", level=3), named_bullets(lines)]
