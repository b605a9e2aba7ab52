"""The command `selftest`."""

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bench.datasets.cache import cache_dir
from bench.measuring.selection import Asked
from bench.options import (
    EXIT_MEASURED_FAILURE,
    EXIT_NOT_MEASURED,
    SETTLED_LATER,
    gpu,
    offline,
    own_python,
    parse_pythons,
    refuse_beside,
    where_data,
    where_results,
)
from bench.progress import make_display
from bench.report.rehearsal import rehearse
from bench.selftest import report as reporting
from bench.selftest.calibration import calibrate
from bench.selftest.collect import SelfTestPlan, measure
from bench.selftest.records import find_selftest, read_selftest
from bench.store import name_of, resumable


@click.command()
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Backend. [default: all]")
@click.option(
    "--workload", "workloads", multiple=True, metavar="NAME",
    help="Workload. [default: MNIST's three]",
)  # fmt: skip
@click.option("--comparisons", type=click.IntRange(min=1), default=20, show_default=True,
              help="Comparisons for each slowdown; equal sides have twice as many.")  # fmt: skip
@click.option(
    "--blocks", type=click.IntRange(min=3), default=10, show_default=True, help="Blocks of a comparison."
)
@click.option(
    "--windows",
    type=click.IntRange(min=5),
    default=60,
    show_default=True,
    help="Windows of a process in a block.",
)
@click.option("--window-s", type=click.FloatRange(min=0.01, max=10), default=0.05, show_default=True,
              help="Length of a window in seconds.")  # fmt: skip
@gpu
@own_python
@where_results
@where_data
@offline
@click.option("--resume", metavar="RUN", help="Go on with a self-test that was interrupted.")
@click.option("--again", metavar="RUN", help="Measure nothing: judge the windows of a self-test again.")
def selftest(
    *, results: Path, data: Path | None, offline: bool, resume: str | None, again: str | None,
    backends: tuple[str, ...], workloads: tuple[str, ...], gpu: int | None, pythons: tuple[str, ...],
    **extent: Any,
) -> int:  # fmt: skip
    """Measure how often a verdict is right, with sides that are equal or slower by a known share."""
    console = Console()
    if resume is not None:
        refuse_beside("--resume goes on with a self-test as it was begun", *SETTLED_LATER)
    if again is not None:
        refuse_beside("--again measures nothing", "again", "results")
    if again is None:
        asked = Asked(backends=backends, workloads=workloads, gpu=gpu, pythons=parse_pythons(pythons))
        plan = SelfTestPlan(asked=asked, **extent)
        rehearse(results)
        with make_display(console) as display:
            measured = measure(
                plan, results=results, cache=cache_dir(data), resume=resume, offline=offline, display=display
            )
    else:
        measured = read_selftest(find_selftest(results, again))
    found = calibrate(measured)
    with resumable(f"All is measured. Judge it with: bench selftest --again {name_of(measured.folder)}"):
        reporting.render(measured, found, console)
        path = reporting.write(measured, found)
        console.print(f"Report: {path}", soft_wrap=True, highlight=False, markup=False)
    return {"held": 0, "failed": EXIT_MEASURED_FAILURE, "unmeasured": EXIT_NOT_MEASURED}[found.status]
