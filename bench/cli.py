"""The command line: reads what the user asks, calls the part that does it, and turns errors into exit status.

0 all is well; 1 a measured failure (parity lost, a target missed that was demanded, a self-test failed, two
runs that contradict each other, a regression); 2 wrong usage; 3 something could not be measured, or told; 70
a fault of this program; 130 interrupted.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from bench import __version__, cli_export, cli_history, cli_recipes, cli_regression
from bench.cli_options import (
    EXIT_FAULT,
    EXIT_INTERRUPTED,
    EXIT_MEASURED_FAILURE,
    EXIT_NOT_MEASURED,
    device,
    offline,
    own_python,
    parse_pythons,
    precision,
    refuse_beside,
    sample,
    where_data,
    where_results,
)
from bench.errors import BenchError, RecordError, UsageError
from bench.text import clean, clean_lines

_SETTLED_LATER = ("resume", "results", "data", "offline", "pythons")
"""Parameters that say nothing of what is measured, and so may stand beside --resume."""
_OTHERS_VARIABLES = ("MPLBACKEND", "MATPLOTLIBRC")
"""Variables that Matplotlib reads when it is imported, meant for another program. Jupyter and Colab set the
first to a module that is not installed here."""


def main() -> NoReturn:
    """Run the command and exit; what a user can do wrong is one or two lines, never a traceback."""
    for name in _OTHERS_VARIABLES:
        os.environ.pop(name, None)
    # A CI job that is cancelled or out of time gets SIGTERM; what is done is to be kept as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Not bench.main(), which ends with status 1 where the reader of our output, `head` say, has gone.
        with bench.make_context("bench", sys.argv[1:]) as context:
            status = bench.invoke(context)
    except click.exceptions.Exit as done:  # --help and --version
        status = done.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        status = EXIT_INTERRUPTED
    except click.ClickException as error:
        hint = (
            f" ({error.ctx.command_path} --help)" if isinstance(error, click.UsageError) and error.ctx else ""
        )
        click.echo(f"bench: {error.format_message()}{hint}", err=True)
        status = error.exit_code
    except BenchError as error:
        # A name in it may come from a folder or a file, and hold what a terminal obeys.
        click.echo(f"bench: {clean_lines(str(error))}", err=True)
        status = error.exit_status
    except (BrokenPipeError, SystemExit) as ended:
        if not isinstance(ended.__context__ if isinstance(ended, SystemExit) else ended, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0  # that the reader has gone is not our failure; rich makes it a SystemExit
    except Exception:  # a fault of this program, whose status must not be that of a measured failure
        traceback.print_exc()
        status = EXIT_FAULT
    sys.exit(status or 0)


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


what_to_run = _options(
    click.option(
        "--workload", "workloads", multiple=True, metavar="NAME",
        help="Workload; repeat for several. [default: six]",
    ),
    click.option(
        "--backend", "backends", multiple=True, metavar="NAME",
        help="Backend; repeat for several. [default: all]",
    ),
    click.option("--mode", "modes", multiple=True, metavar="NAME", help="Mode, or taught, pipeline, all."),
    device,
    precision,
    own_python,
)  # fmt: skip


@click.group(
    no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="samework")
def bench() -> None:
    """Train the same networks in TensorFlow, PyTorch and JAX; prove them equal, measure, report."""


@bench.command()
@what_to_run
@click.option("--preset", default="quick", show_default=True, metavar="NAME", help="quick, standard or full.")
@click.option(
    "--budget", metavar="TIME", help="Time to spend, such as 90s, 15m or 2h. [default: the preset's]"
)
@click.option(
    "--target-precision", "precision_aim", metavar="SHARE",
    help="Half-width of the ratios' intervals at which to stop, such as 1.5%. [default: 1.5%]",
)  # fmt: skip
@click.option(
    "--seeds", type=click.IntRange(min=0), metavar="N",
    help="Seeds each cell trains with for accuracy. [default: the preset's]",
)  # fmt: skip
@click.option("--sweep", metavar="batch=A..B", help="Time every workload at batch sizes A, 2A, … B instead.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of weights and orders."
)
@click.option("--dataset-limit", type=click.IntRange(min=1), metavar="N", help="Use only the first N images.")
@sample
@click.option("--require-target", is_flag=True, help="Exit 1 where a workload misses its target accuracy.")
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
    seed: int,
    dataset_limit: int | None,
    sample: bool,
    require_target: bool,
    results: Path,
    data: Path | None,
    offline: bool,
    resume: str | None,
    **what: Any,
) -> int:
    """Prove parity, measure every cell, and report."""
    from rich.console import Console

    from bench import prepare
    from bench.datasets import cache_dir
    from bench.plan import find_preset, parse_budget, parse_precision, parse_sweep
    from bench.progress import make_display
    from bench.registry import find_backends
    from bench.report import markdown, terminal
    from bench.report.rehearsal import rehearse, rehearse_run
    from bench.run import Runner
    from bench.runs import QUARANTINE, find_run, read_run
    from bench.summary import run_warnings, summarise

    console = Console()
    asked = _asked(**what, sweep=() if sweep is None else parse_sweep(sweep))
    if resume is not None:
        refuse_beside("--resume goes on with a run as it was begun", *_SETTLED_LATER, "require_target")
    chosen = find_preset(preset)
    wish = prepare.Wish(
        preset=chosen,
        budget_s=chosen.budget_s if budget is None else parse_budget(budget),
        target_half_width=parse_precision(precision_aim) if precision_aim else chosen.target_half_width,
        seeds=(0 if sweep else chosen.seeds) if seeds is None else seeds,
        seed=seed, limit=dataset_limit, sample=sample,
    )  # fmt: skip
    workloads = prepare.chosen_workloads(asked)
    rehearse(results)
    if resume is None:
        device = prepare.choose_device(asked.device)
        available = prepare.choose_backends(find_backends(), asked, device)
        cells = prepare.chosen_cells(asked, available, device, chosen.modes)
        begun = None
    else:
        folder = find_run(results, resume)
        header = read_run(folder).header
        chosen, sample, dataset_limit = find_preset(header.preset), header.sample, header.dataset_limit
        cells, workloads = header.cells, header.workloads
        available = prepare.backends_of_run(find_backends(), header, asked.pythons)
        begun = prepare.resumed_run(folder, available)
        for line in begun.rejected:
            said = f"{folder}: moved to {QUARANTINE}, as it cannot be read: {line}"
            click.echo(f"bench: {clean(said)}", err=True)
    with make_display(console) as display:
        splits = prepare.prepare_data(
            workloads, cache=cache_dir(data), sample=sample, limit=dataset_limit, offline=offline,
            display=display,
        )  # fmt: skip
        current = begun or prepare.new_run(
            results, cells=cells, workloads=workloads, available=available, wish=wish, pythons=asked.pythons,
        )  # fmt: skip
        display.say(f"Run {current.header.run_id} on {current.header.environment.in_words()}")
        display.say(prepare.plan_in_words(current.header))
        for warning in run_warnings(current.header):
            display.say(f"WARNING: {warning}")
        rehearse_run(current, console)
        try:
            Runner(
                run=current, preset=chosen, infos=available.infos, pythons=asked.pythons, splits=splits,
                unavailable=available.unavailable, display=display,
            ).run()  # fmt: skip
        except KeyboardInterrupt:
            display.say("Interrupted; all finished jobs are kept.")
            display.say(f"Go on with: bench run --resume {current.header.run_id}")
            return EXIT_INTERRUPTED
    finished = read_run(current.folder)
    terminal.render(finished, console)
    console.print(f"Report: {markdown.write(finished)}", soft_wrap=True, highlight=False, markup=False)
    return _status(summarise(finished), require_target=require_target)


def _status(summary: Any, *, require_target: bool) -> int:
    """Return the exit status that a finished run deserves."""
    # What was set aside before the run, not being installed, was named; a job that found no device failed.
    cells = [cell for cell in summary.cells if cell.status != "unavailable" or cell.failed_jobs]
    if any(cell.parity_ok is False for cell in cells):
        return EXIT_MEASURED_FAILURE
    if require_target and any(
        cell.target_accuracy is not None and cell.seconds_to_target is None for cell in cells
    ):
        return EXIT_MEASURED_FAILURE
    # The reference and the frameworks' own defaults are measured, and by design never ranked.
    done = [cell.ranked or (cell.measured and (cell.reference or not cell.matched)) for cell in cells]
    return 0 if done and all(done) else EXIT_NOT_MEASURED


@bench.command()
@what_to_run
@click.option("--json", "as_json", is_flag=True, help="Print every record as a line of JSON.")
def verify(*, as_json: bool, **what: Any) -> int:
    """Hold every backend and mode against the float64 reference, and print the errors."""
    import msgspec
    from rich.console import Console

    from bench import prepare
    from bench.progress import make_display
    from bench.records import ParityRecord
    from bench.registry import find_backends
    from bench.report.parity import render_parity
    from bench.verify import plan_parity, verify_cells
    from bench.workloads import WORKLOADS

    console = Console(stderr=as_json)
    asked = _asked(**what)
    device = prepare.choose_device(asked.device)
    available = prepare.choose_backends(find_backends(), asked, device, reference=True)
    cells = prepare.chosen_cells(asked, available, device, "all")
    usable = [cell for cell in cells if cell.backend not in available.unavailable]
    records: list[ParityRecord] = []
    with make_display(console) as display:
        for name, reason in available.unavailable.items():
            display.say(f"{name}: not verified: {reason}")
        jobs = plan_parity(usable, WORKLOADS, optimizers=not asked.workloads)
        verify_cells(jobs, available.infos, asked.pythons, display, records.append)
    if as_json:
        for record in records:
            click.echo(msgspec.json.encode(record))
    else:
        render_parity(records, console)
    if any(record.lost for record in records):
        return EXIT_MEASURED_FAILURE
    return EXIT_NOT_MEASURED if any(not record.ok for record in records) or available.unavailable else 0


@bench.command()
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Backend. [default: all]")
@click.option(
    "--workload", "workloads", multiple=True, metavar="NAME",
    help="Workload. [default: MNIST's three]",
)  # fmt: skip
@click.option("--comparisons", type=click.IntRange(min=1), default=20, show_default=True,
              help="Of each slowdown; there are twice as many of equals.")  # fmt: skip
@click.option("--blocks", type=click.IntRange(min=3), default=10, show_default=True, help="In a comparison.")
@click.option("--windows", type=click.IntRange(min=5), default=60, show_default=True, help="In a block.")
@click.option("--window-s", type=click.FloatRange(min=0.01, max=10), default=0.05, show_default=True,
              help="Seconds of a window.")  # fmt: skip
@own_python
@where_results
@where_data
@offline
@click.option("--resume", metavar="RUN", help="Go on with a self-test that was interrupted.")
@click.option("--again", metavar="RUN", help="Measure nothing: judge the windows of a self-test again.")
def selftest(
    *, results: Path, data: Path | None, offline: bool, resume: str | None, again: str | None,
    pythons: tuple[str, ...], **what: Any,
) -> int:  # fmt: skip
    """Measure the measurer: compare equals, and sides slowed by a known share, and count what is found."""
    from rich.console import Console

    from bench import selftest as collecting
    from bench.calibration import calibrate
    from bench.datasets import cache_dir
    from bench.progress import make_display
    from bench.report import selftest as reporting
    from bench.report.rehearsal import rehearse
    from bench.selftest_records import find_selftest, read_selftest

    console = Console()
    if resume is not None:
        refuse_beside("--resume goes on with a self-test as it was begun", *_SETTLED_LATER)
    if again is not None:
        refuse_beside("--again measures nothing", "again", "results")
    if again is None:
        asked = collecting.Asking(**what, pythons=parse_pythons(pythons))
        rehearse(results)
        with make_display(console) as display:
            measured = collecting.measure(
                asked, results=results, cache=cache_dir(data), resume=resume, offline=offline, display=display
            )
    else:
        measured = read_selftest(find_selftest(results, again))
    found = calibrate(measured)
    reporting.render(measured, found, console)
    console.print(
        f"Report: {reporting.write(measured, found)}", soft_wrap=True, highlight=False, markup=False
    )
    return {"held": 0, "failed": EXIT_MEASURED_FAILURE, "unmeasured": EXIT_NOT_MEASURED}[found.standing]


@bench.command()
@click.argument("name", metavar="RUN")
@where_results
def targets(name: str, results: Path) -> None:
    """Propose a target accuracy for every workload of a run: the mean less three standard deviations."""
    from rich.console import Console

    from bench.accuracy import proposed_targets
    from bench.report.convergence import render_targets
    from bench.runs import find_run, read_run

    render_targets(proposed_targets(read_run(find_run(results, name))), Console())


@bench.command()
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it as Markdown, too.")
@where_results
def agree(*, first: str, second: str, output: Path | None, results: Path) -> int:
    """Hold two runs of one machine against each other, and say whether their verdicts agree."""
    from rich.console import Console

    from bench.agreement import compare
    from bench.report import agreement
    from bench.runs import find_run, read_run
    from bench.summary import summarise

    runs = [read_run(find_run(results, name)) for name in (first, second)]
    if not runs[0].header.environment.same_machine(runs[1].header.environment):
        machines = " and ".join(run.header.environment.in_words() for run in runs)
        raise UsageError(f"{first} and {second} were made on different machines: {machines}.")
    summaries = [summarise(run) for run in runs]
    titles = {name: title for summary in summaries for name, title in summary.titles.items()}
    pairings = compare(*summaries)
    agreement.render(pairings, titles, Console())
    if output is not None:
        try:
            output.write_text(agreement.text(runs, pairings, titles), encoding="utf-8")
        except OSError as error:
            raise RecordError(
                f"cannot write {output}: {error.strerror}. Name another file with --output."
            ) from error
    if any(pairing.agree is False for pairing in pairings):
        return EXIT_MEASURED_FAILURE
    return 0 if any(pairing.agree for pairing in pairings) else EXIT_NOT_MEASURED


@bench.command("list")
@own_python
def list_(pythons: tuple[str, ...]) -> None:
    """Show workloads, recipes, backends with their modes, presets, and what is installed."""
    from bench.plan import PRESETS
    from bench.recipes import RECIPES
    from bench.registry import find_backends, installed_versions
    from bench.workloads import WORKLOADS

    registry = find_backends()
    found = installed_versions(list(registry.backends.values()), parse_pythons(pythons))
    click.echo("Workloads")
    for workload in WORKLOADS.values():
        target = f", target {workload.target_accuracy:.1%}" if workload.target_accuracy is not None else ""
        optimizer = workload.optimizer
        how = f"batch {workload.batch_size}, {optimizer.name} {optimizer.learning_rate:g}"
        click.echo(f"  {workload.name:<22}{how}{target}")
    click.echo("\nRecipes (bench train)")
    for recipe in RECIPES.values():
        told = [one.text for one in recipe.published if one.measure == "test accuracy"]
        click.echo(f"  {recipe.name:<22}{recipe.steps:,} steps; test accuracy in the notebook: {told[-1]}")
    click.echo("\nBackends")
    for info in registry.backends.values():
        versions, missing = found[info.name]
        state = ", ".join(f"{name} {version}" for name, version in versions.items())
        if missing:
            state = f"not installed: {', '.join(missing).replace('|', ' or ')}"
        click.echo(f"  {info.name:<18}{info.title}: {state}")
        for mode in info.modes:
            note = " (what its documentation teaches)" if mode.taught else ""
            note += "" if "cpu" in mode.devices else " (on a GPU)"
            click.echo(f"    {mode.name:<16}{mode.summary}{note}")
    for reason in registry.broken.values():
        click.echo(f"  {reason}")
    click.echo("\nPresets")
    for preset in PRESETS.values():
        click.echo(f"  {preset.name:<12}{preset.summary}")


@bench.command()
@own_python
def doctor(pythons: tuple[str, ...]) -> int:
    """Show the machine, and compute on every device to see which are really usable."""
    from bench.doctor import examine
    from bench.known_faults import known_faults
    from bench.machine import capture_environment, nvidia_driver_present
    from bench.registry import find_backends, installed_versions
    from bench.specs import Device

    environment = capture_environment()
    click.echo(f"Machine   {environment.in_words()}")
    click.echo(f"System    {environment.system}, Python {environment.python}, samework {environment.version}")
    click.echo(f"Driver    {environment.gpu_driver or 'no NVIDIA driver'}")
    click.echo(f"CPU has   {' '.join(environment.cpu_flags)}\n")
    registry, own = find_backends(), parse_pythons(pythons)
    for reason in registry.broken.values():
        click.echo(reason)
    found = installed_versions(list(registry.backends.values()), own)
    installed = [info for info in registry.backends.values() if not found[info.name][1]]
    for info in registry.backends.values():
        if info not in installed:
            missing = ", ".join(found[info.name][1]).replace("|", " or ")
            click.echo(f"{info.name:<11} -    not installed: {missing}")
    devices: list[Device] = ["cpu", "gpu"] if nvidia_driver_present() else ["cpu"]
    well = bool(installed)
    for finding in examine(installed, devices, own):
        mark = "usable" if finding.usable else "NOT USABLE"
        click.echo(f"{finding.backend:<11} {finding.device}  {mark}: {finding.said}")
        for warning in known_faults(found[finding.backend][0], finding.device):
            click.echo(f"                WARNING: {warning}")
        facts = [f"{key} {value}" for key, value in finding.facts.items() if value is not None]
        if facts := [fact for fact in facts if not fact.startswith(("device", "peak_device"))]:
            click.echo("                " + ", ".join(facts))
        well = well and finding.usable
    return 0 if well else EXIT_NOT_MEASURED


@bench.group(no_args_is_help=False)
def data() -> None:
    """Fetch the data sets, or check them against their digests."""


@data.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@where_data
@click.option(
    "--from", "source", metavar="WHERE", help="Folder or address with the original files, tried first."
)
@offline
def fetch(names: tuple[str, ...], data: Path | None, source: str | None, offline: bool) -> None:
    """Fetch data sets into the cache; mnist and cifar10 where none is named."""
    from rich.console import Console

    from bench import datasets
    from bench.progress import DownloadProgress, make_display

    cache = datasets.cache_dir(data)
    with make_display(Console()) as display:
        for name in names or ("mnist", "cifar10"):
            folder = datasets.fetch(
                name, cache=cache, source=source, offline=offline, progress=DownloadProgress(display)
            )
            display.say(f"{name}: {folder}, digests hold")


@data.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@where_data
def verify_data(names: tuple[str, ...], data: Path | None) -> None:
    """Compute the digests of data sets in the cache again; mnist and cifar10 where none is named."""
    from bench import datasets

    for name in names or ("mnist", "cifar10"):
        datasets.verify(name, datasets.cache_dir(data))
        click.echo(f"{name}: digests hold")


@bench.command()
@click.argument("name", metavar="[RUN]", required=False)
@click.option(
    "--format", "form", type=click.Choice(["terminal", "markdown", "json"]), default="terminal",
    show_default=True, help="What to print; markdown writes REPORT.md.",
)  # fmt: skip
@where_results
def report(name: str | None, form: str, results: Path) -> int:
    """Report a run, the newest if none is named."""
    from rich.console import Console

    from bench.report import export, markdown, terminal
    from bench.runs import find_run, read_run
    from bench.text import clean

    found = read_run(find_run(results, name))
    for line in found.rejected:
        click.echo(clean(f"bench: {found.folder}: left out, as it cannot be read: {line}"), err=True)
    match form:
        case "terminal":
            terminal.render(found, Console())
        case "markdown":
            click.echo(f"Report: {markdown.write(found)}")
        case "json":
            click.echo(export.to_json(found))
    return 0


def _asked(
    *,
    workloads: tuple[str, ...],
    backends: tuple[str, ...],
    modes: tuple[str, ...],
    device: str,
    precision: Any,
    pythons: tuple[str, ...],
    sweep: tuple[int, ...] = (),
) -> Any:
    from bench.prepare import Asked

    return Asked(
        workloads=workloads, backends=backends, modes=modes, device=device, precision=precision,
        pythons=parse_pythons(pythons), sweep=sweep,
    )  # fmt: skip


for command in (*cli_recipes.COMMANDS, *cli_export.COMMANDS, *cli_regression.COMMANDS, *cli_history.COMMANDS):
    bench.add_command(command)
