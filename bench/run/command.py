"""The commands of a run: `run`, `verify` and `targets`."""

from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from bench.analysis.accuracy import SEEDS_NEEDED, proposed_targets
from bench.analysis.comparison import Verdict
from bench.analysis.notices import run_warnings
from bench.analysis.summary import summarise
from bench.datasets.cache import cache_dir
from bench.errors import RecordError, UsageError
from bench.machine.environment import commit_notes
from bench.measuring.backends import find_backends
from bench.measuring.data import prepare_data
from bench.measuring.design import LEAD_S
from bench.measuring.hosts.remote import HostLostError
from bench.measuring.hosts.session import Hosts, asked_ranks, follow_rank_0, started_with_others
from bench.measuring.parity import plan_parity, verify_cells
from bench.measuring.ranks.rows import ranked_cells, refuse_what_ranks_exclude, with_distributed_modes
from bench.measuring.ranks.slots import Slot, sharing
from bench.measuring.selection import Asked, Available, choose_backends, choose_device, chosen_cells, used_gpu
from bench.options import (
    EXIT_INTERRUPTED,
    EXIT_MEASURED_FAILURE,
    EXIT_NOT_MEASURED,
    SETTLED_LATER,
    offline,
    parse_budget,
    parse_devices,
    parse_precision,
    parse_pythons,
    parse_ranks,
    parse_sweep,
    parse_targets,
    ranks,
    refuse_beside,
    sample,
    what_to_run,
    where_data,
    where_results,
)
from bench.progress import Display, make_display
from bench.records.runs import QUARANTINE, Run, find_run, read_run
from bench.records.schema import ParityRecord
from bench.report.rehearsal import rehearse
from bench.run.live import make_run_display
from bench.run.plan import find_preset
from bench.run.report import markdown, page, terminal
from bench.run.report.convergence import render_targets
from bench.run.report.parity import render_parity
from bench.run.report.rehearsal import rehearse_run
from bench.run.runner import Runner
from bench.run.setup import (
    Prepared,
    RunPlan,
    new_run,
    plan_in_words,
    prepare,
    prepare_resumed,
    ranks_in_words,
)
from bench.store import name_of, resumable
from bench.text import clean
from bench.workloads.catalog import WORKLOADS


@click.command()
@what_to_run
@click.option("--preset", default="quick", show_default=True, metavar="NAME", help="quick, standard or full.")
@click.option(
    "--budget", metavar="TIME", help="Time to spend, such as 90s, 15m or 2h. [default: the preset's]"
)
@click.option(
    "--target-precision", "precision_aim", metavar="SHARE",
    help="Stop once every ratio is known this well, such as 1.5% for ±1.5 %, from six blocks on. "
    "[default: 1.5%]",
)  # fmt: skip
@click.option(
    "--seeds", type=click.IntRange(min=0), metavar="N",
    help="Trainings for accuracy of each row, every one from another seed. [default: the preset's]",
)  # fmt: skip
@click.option("--sweep", metavar="batch=A..B", help="Time every workload at the batch sizes A, 2A, … B.")
@ranks
@click.option(
    "--scaling", type=click.Choice(["strong", "weak", "both"]), default="strong", show_default=True,
    help="With --ranks: cut the workload's batch, or give each rank a whole one.",
)  # fmt: skip
@click.option(
    "--devices", metavar="N,N", help="With --ranks: the CPU cores or GPUs of the ranks. [default: the first]"
)
@click.option(
    "--lead", type=click.IntRange(1, 1000), metavar="MS",
    help="Milliseconds of training before each timed window. [default: 50]",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
    help="Seed of the weights and of the order of the images.",
)  # fmt: skip
@click.option(
    "--dataset-limit", "limit", type=click.IntRange(min=1), metavar="N",
    help="Use only the first N images of each split.",
)  # fmt: skip
@sample
@click.option(
    "--target", "target_pairs", multiple=True, metavar="WORKLOAD=ACCURACY",
    help="Measure the time to this accuracy, such as mnist-mlp=96%; repeat for several.",
)  # fmt: skip
@click.option("--require-target", is_flag=True, help="Exit with status 1 if a workload misses its target.")
@where_results
@where_data
@offline
@click.option("--resume", metavar="RUN", help="Go on with a run that was interrupted.")
def run(
    *,
    preset: str,
    budget: str | None,
    precision_aim: str | None,
    seeds: int | None,
    sweep: str | None,
    ranks: str | None,
    devices: str | None,
    lead: int | None,
    seed: int,
    target_pairs: tuple[str, ...],
    require_target: bool,
    results: Path,
    data: Path | None,
    offline: bool,
    resume: str | None,
    **what: Any,
) -> int:
    """Check parity, measure every row, and report.

    `bench list` shows the names of workloads, backends and modes.
    """
    console = Console()
    found = started_with_others()
    if resume is not None:
        refuse_beside("--resume goes on with a run as it was begun", *SETTLED_LATER, "require_target")
    chosen = find_preset(preset)
    plan = RunPlan(
        asked=_asked(
            **what,
            sweep=() if sweep is None else parse_sweep(sweep),
            ranks=asked_ranks(() if ranks is None else parse_ranks(ranks), found, alone=True),
            devices=() if devices is None else parse_devices(devices),
        ),
        preset=chosen,
        budget_s=chosen.budget_s if budget is None else parse_budget(budget),
        target_half_width=parse_precision(precision_aim) if precision_aim else chosen.target_half_width,
        seeds=(0 if sweep or ranks or found else chosen.seeds) if seeds is None else seeds,
        seed=seed,
        targets=parse_targets(target_pairs),
        lead_s=LEAD_S if lead is None else lead / 1000,
    )
    if found is not None and found.rank > 0:
        follow_rank_0(
            found, device=plan.asked.device, pythons=plan.asked.pythons, cache=cache_dir(data),
            offline=offline, console=console,
        )  # fmt: skip
        return 0
    with Hosts(found, console) as hosts:
        prepared = (
            prepare(plan, hosts)
            if resume is None
            else prepare_resumed(find_run(results, resume), plan.asked.pythons, hosts)
        )
        if require_target and not any(workload.target_accuracy for workload in prepared.workloads):
            raise UsageError("--require-target: no workload has a target; name one: --target mnist-mlp=96%.")
        rehearse(results)
        folder = _measure(
            plan, prepared, hosts, results=results, data=cache_dir(data), offline=offline, console=console
        )
    if folder is None:
        return EXIT_INTERRUPTED
    with resumable(f"All is measured. Report it with: bench report {name_of(folder)}"):
        finished = read_run(folder)
        summary = summarise(finished)
        terminal.render(finished, summary, console)
        markdown.write(finished, summary)
        path = page.write(finished, summary)
        console.print(f"Report: {path}", soft_wrap=True, highlight=False, markup=False)
    return _status(summary, require_target=require_target)


def _measure(
    plan: RunPlan,
    prepared: Prepared,
    hosts: Hosts,
    *,
    results: Path,
    data: Path,
    offline: bool,
    console: Console,
) -> Path | None:
    """Measure, and return the run's folder; None where the run was interrupted."""
    if prepared.begun is not None:
        _name_rejected(prepared.begun)
    with make_run_display(console) as display:
        splits = prepare_data(
            prepared.workloads, cache=data, sample=prepared.sample, limit=prepared.limit, offline=offline,
            display=display,
        )  # fmt: skip
        hosts.prepare(splits, display)
        current = prepared.begun or new_run(
            results, plan, cells=prepared.cells, workloads=prepared.workloads,
            available=prepared.available, slots=prepared.slots,
        )  # fmt: skip
        again = f"Go on with: bench run --resume {name_of(current.folder)}"
        try:
            with resumable(again):
                _introduce(current, prepared.available, display)
                rehearse_run(current, console)
                Runner(
                    run=current, preset=prepared.preset, infos=prepared.available.infos,
                    pythons=plan.asked.pythons, splits=splits, unavailable=prepared.available.unavailable,
                    display=display, slots=prepared.slots,
                ).run()  # fmt: skip
        except KeyboardInterrupt:
            display.say("Interrupted; all finished jobs are kept.")
            display.say(again)
            hosts.dismiss("it was interrupted")
            return None
        except HostLostError as error:
            raise HostLostError(f"{error} All finished jobs are kept. {again}") from error
    return current.folder


def _introduce(run: Run, available: Available, display: Display) -> None:
    environment = run.header.environment
    display.say(f"Run {run.header.run_id} on {environment.in_words()}")
    if threads := environment.threads_in_words():
        display.say(f"Threads: {threads}")
    for name, reason in available.unavailable.items():
        if name not in available.infos:  # it has no row that could give the reason
            display.say(f"{name}: left out: {reason}")
    if run.header.ranks:
        display.say(ranks_in_words(run.header))
    display.say(plan_in_words(run.header))
    for note in commit_notes(environment):
        display.say(note)
    for warning in run_warnings(run.header):
        display.say(f"WARNING: {warning}")


def _name_rejected(run: Run) -> None:
    for line in run.rejected:
        said = f"{run.folder}: moved to {QUARANTINE}, as it cannot be read: {line}"
        click.echo(f"bench: {clean(said)}", err=True)


def _status(summary: Any, *, require_target: bool) -> int:
    """Return the exit status of a finished run."""
    # A backend that is not installed was named before the run. A job that found no device has failed.
    cells = [cell for cell in summary.cells if cell.status != "unavailable" or cell.failed_jobs]
    if any(cell.parity_ok is False for cell in cells):
        return EXIT_MEASURED_FAILURE
    if require_target and any(
        cell.target_accuracy is not None and cell.seconds_to_target is None for cell in cells
    ):
        return EXIT_MEASURED_FAILURE
    # The reference and the frameworks' own defaults are measured and never ranked.
    done = [cell.ranked or (cell.measured and (cell.reference or not cell.matched)) for cell in cells]
    claimed = all(_is_decided(verdict) for verdict in summary.verdicts)
    return 0 if done and all(done) and claimed else EXIT_NOT_MEASURED


def _is_decided(verdict: Verdict) -> bool:
    """Whether the ranked rows of a workload were compared. That no difference was detected is a decision."""
    several = len({cell.backend for cell in verdict.order}) > 1
    return not verdict.disturbed and (bool(verdict.made.backends) or not several)


@click.command()
@what_to_run
@ranks
@click.option("--json", "as_json", is_flag=True, help="Print every record as a line of JSON.")
def verify(*, as_json: bool, ranks: str | None, **what: Any) -> int:
    """Compare every backend and mode with the float64 reference."""
    console = Console(stderr=as_json)
    found = started_with_others()
    given = () if ranks is None else parse_ranks(ranks)
    asked = _asked(**what, ranks=asked_ranks(given, found, alone=False))
    if found is not None and found.rank > 0:
        follow_rank_0(
            found, device=asked.device, pythons=asked.pythons, cache=cache_dir(), offline=True,
            console=console,
        )  # fmt: skip
        return 0
    with Hosts(found, console) as hosts:
        return _verify(asked, hosts, console, as_json=as_json)


def _verify(asked: Asked, hosts: Hosts, console: Console, *, as_json: bool) -> int:
    """Compare the backends and modes with the reference, print what is found, and return the exit status."""
    refuse_what_ranks_exclude(asked)
    device = choose_device(asked.device, asked.gpu, ranks=bool(asked.ranks))
    available = choose_backends(find_backends(), asked, device, reference=True)
    slots: tuple[Slot, ...] = ()
    if asked.ranks:
        available = with_distributed_modes(available, device, named=bool(asked.backends))
        cells = ranked_cells(asked, available, device, plain=False)
        slots = hosts.slots(device, max(asked.ranks), available, shared=True)
    else:
        cells = chosen_cells(asked, available, device, "all")
    usable = [cell for cell in cells if cell.backend not in available.unavailable]
    records: list[ParityRecord] = []
    try:
        with make_display(console) as display:
            if used := used_gpu(device):
                display.say(f"GPU: {used}")
            for name, reason in available.unavailable.items():
                display.say(f"{name}: not verified: {reason}")
            if sharing(slots) > 1:
                display.say(f"Up to {sharing(slots)} ranks share a CPU core. Nothing is timed.")
            jobs = plan_parity(usable, WORKLOADS, optimizers=not asked.workloads)
            verify_cells(jobs, available.infos, asked.pythons, display, records.append, slots=slots)
    finally:  # results from before an interruption are printed too
        if as_json:
            for record in records:
                click.echo(msgspec.json.encode(record))
        elif records:
            render_parity(records, console)
    if any(record.lost for record in records):
        return EXIT_MEASURED_FAILURE
    return EXIT_NOT_MEASURED if any(not record.ok for record in records) or available.unavailable else 0


@click.command()
@click.argument("name", metavar="RUN")
@where_results
def targets(name: str, results: Path) -> int:
    """Propose a target accuracy for every workload of a run: the mean minus three standard deviations."""
    found = read_run(find_run(results, name))
    titles = {info.name: info.title for info in find_backends().frameworks()}
    proposed = proposed_targets(found, list(titles))
    if not proposed:
        raise RecordError(
            f"{found.folder} has no finished training: a target needs trainings with {SEEDS_NEEDED} seeds of "
            f"every framework. Make them with: bench run --seeds {SEEDS_NEEDED} --budget 8h"
        )
    render_targets(proposed, found, titles, Console())
    return EXIT_NOT_MEASURED if any(one.target is None for one in proposed) else 0


def _asked(*, pythons: tuple[str, ...], **what: Any) -> Asked:
    return Asked(pythons=parse_pythons(pythons), **what)
