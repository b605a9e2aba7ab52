"""The page of a run: every section in its order, and the file `report.html`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.analysis.accuracy import converge
from bench.analysis.costs import read_costs
from bench.analysis.first_steps import first_steps
from bench.analysis.scaling import read_scaling
from bench.analysis.summary import Summary
from bench.analysis.sweep import leave_out_sweep, read_sweeps
from bench.errors import WriteError
from bench.paths import refusal
from bench.records.runs import Run
from bench.report import page
from bench.report.blocks import Block, Bullets, Chart, Group, Heading, Note, Paragraph
from bench.run.report import charts, costs, course, learning, left_out, method, parity, ranking, raw, scaling
from bench.run.report.answer import answer
from bench.run.report.tables import QUESTION
from bench.run.report.tags import choices
from bench.run.report.terms import terms_of
from bench.store import write_text


def write(run: Run, summary: Summary, folder: Path | None = None) -> Path:
    """Write the page into `folder`, by default the run's own, and return its path.

    The same run always gives the same bytes. Raises WriteError if the folder cannot be written.
    """
    folder = folder or run.folder
    path = folder / page.NAME
    try:
        write_text(path, document(run, summary, beside=folder))
    except OSError as error:
        raise WriteError(f"cannot write the report to {folder}: {refusal(error, folder)}.") from error
    return path


def document(run: Run, summary: Summary, *, beside: Path) -> str:
    """Return the page of a run; files in the folder `beside`, in which the page will lie, are linked."""
    title = f"{run.header.run_id}: {QUESTION}"
    found = blocks(run, summary, beside=beside)
    return page.document(found, title=title, choices=choices([summary]), terms=terms_of([run]))


def blocks(run: Run, summary: Summary, *, beside: Path | None = None) -> list[Block]:
    """Return everything that the page of a run says; `beside` is the folder whose files it can link."""
    return [
        Heading(text=QUESTION, level=1),
        *head(run, summary),
        *sections(run, summary),
        *raw.raw(run, summary, beside=beside),
    ]


def head(run: Run, summary: Summary) -> list[Block]:
    """Return what a reader must know first: the answer, and where it holds."""
    header = run.header
    begun = header.created_at.replace("T", " ")[:16]
    return [
        *([Note(text=summary.mark)] if summary.mark else []),
        *(Note(text=warning, warning=True) for warning in summary.warnings),
        Bullets(items=answer(run, summary)),
        Paragraph(
            text=f"This holds on {header.environment.in_words()}. Run {header.run_id}, preset "
            f"{header.preset}, begun {begun}.",
            faint=True,
        ),
    ]


def sections(run: Run, summary: Summary) -> list[Block]:
    """Return the sections, each below a heading of level 2, but the one with every raw value."""
    learned, steps, found = converge(run), first_steps(run), read_costs(run, summary)
    kept = leave_out_sweep(summary)
    cells = [one for one in found.cells if one.cell in kept]

    def drawn(*kinds: Callable[[Run, Summary], Sequence[Chart]]) -> list[Chart]:
        return [chart for kind in kinds for chart in kind(run, summary)]

    curves = drawn(charts.accuracy_epochs, charts.accuracy_seconds)
    return [
        *ranking.ranking(run, summary, found, drawn(charts.ratios)),
        *_about("throughput", ranking.throughput(drawn(charts.speed))),
        *_about(
            "accuracy",
            learning.learning(
                run,
                summary,
                learned,
                steps,
                {
                    "curves": curves,
                    "first_steps": drawn(charts.first_steps),
                    "defaults": drawn(charts.defaults),
                },
            ),
        ),
        *_about("time to accuracy", learning.time_to_accuracy(learned, summary, drawn(charts.to_target))),
        *_about(
            "first result",
            [
                *costs.first_result(
                    cells,
                    found,
                    summary,
                    drawn(charts.first_result),
                    drawn(charts.pays_off),
                    notes=[one.building for one in run.header.backends if one.building],
                    compiled=course.compiling(run, summary),
                ),
                *costs.step_parts(cells, found, summary, drawn(charts.step_split)),
            ],
        ),
        *_about(
            "memory and energy",
            costs.memory_and_energy(
                run, cells, summary, drawn(charts.memory, charts.gpu_memory, charts.energy)
            ),
        ),
        *_about("share of the peak", costs.roofline(cells, found.products, summary, drawn(charts.roofline))),
        *_about("batch size", costs.batch_sweep(read_sweeps(summary), summary, drawn(charts.sweep))),
        *_about(
            "several devices",
            scaling.scaling(run, read_scaling(run, summary), drawn(charts.speed_ups), summary.titles),
        ),
        *course.blocks(run, summary),
        *parity.blocks(run, summary, drawn(charts.parity)),
        *left_out.left_out(run, summary),
        *method.machine(run),
        *method.how_measured(run, summary),
    ]


def _about(metric: str, blocks: Sequence[Block]) -> list[Block]:
    """Return a section that is about one metric, as one group that a reader can choose."""
    return [Group(blocks=tuple(blocks), tags={"metric": metric})] if blocks else []
