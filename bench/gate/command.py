"""The commands `compare` and `ab`, which look for regressions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import platformdirs
from rich.console import Console

from bench.analysis.summary import summarise
from bench.datasets.cache import cache_dir
from bench.errors import UsageError, WriteError
from bench.gate import report as comparison
from bench.gate.changes import machine_changes
from bench.gate.collect import measure
from bench.gate.compare import compare as compare_runs
from bench.gate.judge import judge_all
from bench.gate.records import find_ab, read_ab
from bench.gate.setup import AbPlan, Folders
from bench.gate.sides import parse_side
from bench.gate.verdicts import TITLE as VERDICTS
from bench.gate.verdicts import blocks, pair_verdicts
from bench.measuring.selection import Asked
from bench.options import (
    EXIT_MEASURED_FAILURE,
    EXIT_NOT_MEASURED,
    OUTPUT_FILE,
    STDOUT,
    PathOption,
    device,
    gpu,
    offline,
    own_python,
    parse_budget,
    parse_pythons,
    precision,
    print_exactly,
    refuse_beside,
    sample,
    where_data,
    where_results,
)
from bench.paths import refusal
from bench.progress import make_display
from bench.records.runs import Run, find_run, read_run
from bench.report import page
from bench.report.markdown import document
from bench.report.rehearsal import rehearse
from bench.report.terminal import print_blocks
from bench.store import name_of, resumable, write_text
from bench.text import clean

_STATUS = {"fine": 0, "regression": EXIT_MEASURED_FAILURE, "undecided": EXIT_NOT_MEASURED}


@click.command()
@click.argument("base", metavar="BASE")
@click.argument("head", metavar="HEAD")
@click.option(
    "--output",
    type=OUTPUT_FILE,
    help="Write it as Markdown, too, or as a page to a .html; - prints only that.",
)
@click.option("--across-machines", is_flag=True, help="Compare although the runs are of different machines.")
@click.option(
    "--verdicts", is_flag=True,
    help="Compare what the runs claim, not their figures: exit 1 if two claims contradict, 3 without any.",
)  # fmt: skip
@where_results
def compare(
    *, base: str, head: str, output: Path | None, across_machines: bool, verdicts: bool, results: Path
) -> int:
    """Compare two runs row by row: exit 0 if nothing is worse in HEAD, 1 if something is, 3 if undecided."""
    places = [find_run(results, name) for name in (base, head)]
    if places[0].resolve() == places[1].resolve():
        raise UsageError(f"{base} and {head} are the same run.")
    runs = [read_run(place) for place in places]
    machines = [run.header.environment for run in runs]
    if not machines[0].same_machine(machines[1]) and not across_machines:
        changed = "; ".join(one.in_words() for one in machine_changes(*machines)) or "their GPUs' memory"
        raise UsageError(
            f"{base} and {head} were made on different machines ({clean(changed)}). "
            "--across-machines compares them all the same."
        )
    for run in runs:
        for line in run.rejected:
            said = f"{run.folder}: left out, as it cannot be read: {line}"
            click.echo(f"bench: {clean(said)}", err=True)
    if verdicts:
        return _compare_verdicts(runs, output)
    compared = compare_runs(*runs)
    view = comparison.view_of_runs(compared)
    if output != STDOUT:
        comparison.render(view, Console())
    if output is not None:
        text = comparison.document(view) if _is_page(output) else comparison.text(view)
        _write(output, text, "--output")
    return _STATUS[compared.conclusion]


def _compare_verdicts(runs: Sequence[Run], output: Path | None) -> int:
    summaries = [summarise(run) for run in runs]
    titles = {name: title for summary in summaries for name, title in summary.titles.items()}
    pairings = pair_verdicts(*summaries)
    report = blocks(runs, pairings, titles)
    if output != STDOUT:
        print_blocks(report, Console())
    if output is not None:
        text = page.document(report, title=VERDICTS) if _is_page(output) else document(report, frozenset())
        _write(output, text, "--output")
    if any(pairing.agree is False for pairing in pairings):
        return EXIT_MEASURED_FAILURE
    return 0 if any(pairing.agree for pairing in pairings) else EXIT_NOT_MEASURED


@click.command()
@click.option(
    "--base", "base", multiple=True, metavar="WHAT",
    help="What to compare with: a revision, a version (torch==2.13.0) or NAME=VALUE; repeat for several.",
)  # fmt: skip
@click.option(
    "--head", "head", multiple=True, metavar="WHAT",
    help="The head to judge; same forms as --base. [default: this code as it is]",
)  # fmt: skip
@click.option(
    "--workload", "workloads", multiple=True, metavar="NAME", help="Workload. [default: MNIST's three]"
)
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Backend. [default: all]")
@click.option(
    "--mode", "modes", multiple=True, metavar="NAME", help="Mode. [default: each backend's default mode]"
)
@device
@gpu
@precision
@click.option("--budget", default="30m", show_default=True, metavar="TIME", help="Time to spend at most.")
@click.option("--blocks", type=click.IntRange(min=4), default=6, show_default=True,
              help="Blocks before a row is judged.")  # fmt: skip
@click.option("--most-blocks", type=click.IntRange(min=4), default=16, show_default=True,
              help="Blocks of a series after which a row stays undecided.")  # fmt: skip
@click.option("--confirm-blocks", type=click.IntRange(min=3), default=10, show_default=True,
              help="Blocks of the series that has to confirm a loss.")  # fmt: skip
@own_python
@sample
@where_results
@where_data
@click.option(
    "--environments", type=PathOption(), metavar="DIR",
    help="Folder of the sides' code and environments. [default: a cache]",
)  # fmt: skip
@offline
@click.option("--resume", metavar="RUN", help="Go on with a comparison that was interrupted.")
@click.option("--again", metavar="RUN", help="Measure nothing: judge the blocks of a comparison again.")
def ab(
    *,
    base: tuple[str, ...],
    head: tuple[str, ...],
    budget: str,
    blocks: int,
    most_blocks: int,
    confirm_blocks: int,
    pythons: tuple[str, ...],
    results: Path,
    data: Path | None,
    environments: Path | None,
    offline: bool,
    resume: str | None,
    again: str | None,
    **what: Any,
) -> int:
    """Measure two sides side by side: exit 0 if nothing is worse in head, 1 if so, 3 if undecided."""
    console = Console()
    if again is not None:
        refuse_beside("--again measures nothing", "again", "results")
        return _show(read_ab(find_ab(results, again)), console)
    plan = AbPlan(
        asked=Asked(pythons=parse_pythons(pythons), **what),
        base=parse_side(base), head=parse_side(head), budget_s=parse_budget(budget),
        first_blocks=blocks, most_blocks=max(blocks, most_blocks), confirm_blocks=confirm_blocks,
    )  # fmt: skip
    kept = environments or platformdirs.user_cache_path("samework", appauthor=False) / "environments"
    rehearse(results)
    folders = Folders(results=results, data=cache_dir(data), environments=kept.absolute())
    with make_display(console) as display:
        measured = measure(plan, folders=folders, resume=resume, offline=offline, display=display)
    return _show(measured, console)


def _show(measured: Any, console: Any) -> int:
    """Print the verdict of a comparison, write its report, and return the exit status."""
    gate = judge_all(measured)
    view = comparison.view_of_ab(measured, gate)
    path = measured.folder / page.NAME
    with resumable(f"All is measured. Judge it with: bench ab --again {name_of(measured.folder)}"):
        comparison.render(view, console)
        _write(measured.folder / "AB.md", comparison.text(view), "--results")
        _write(path, comparison.document(view), "--results")
        console.print(f"Report: {path}", soft_wrap=True, highlight=False, markup=False)
    return _STATUS[gate.conclusion]


def _is_page(path: Path) -> bool:
    return path.suffix.lower() in (".html", ".htm")


def _write(path: Path, text: str, option: str) -> None:
    if path == STDOUT:
        print_exactly(text)
        return
    try:
        write_text(path, text)
    except OSError as error:
        raise WriteError(
            f"cannot write {path}: {refusal(error, path)}. Name another place with {option}."
        ) from error
