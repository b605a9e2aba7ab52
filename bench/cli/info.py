"""The commands that show what is available: `list` and `doctor`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from backends.info import BackendInfo
from bench.machine.environment import capture_environment
from bench.machine.gpu import gpu_in_use
from bench.machine.known_faults import known_faults
from bench.machine.visible_gpus import list_gpus
from bench.measuring.backends import find_backends, installed_versions
from bench.measuring.interpreters import program_fault
from bench.measuring.selection import choose_device, used_gpu
from bench.options import EXIT_NOT_MEASURED, gpu, own_python, parse_pythons
from bench.recipes.catalog import RECIPES
from bench.run.plan import PRESETS
from bench.workloads.catalog import WORKLOADS
from bench.workloads.specs import Device, Workload

if TYPE_CHECKING:
    from bench.measuring.doctor import Finding


@click.command("list")
@own_python
def list_(pythons: tuple[str, ...]) -> None:
    """Show workloads, recipes, backends with their modes, presets, and installed versions."""
    registry = find_backends()
    own = parse_pythons(pythons)
    found = installed_versions(list(registry.backends.values()), own)
    click.echo("Workloads")
    for workload in WORKLOADS.values():
        click.echo(f"  {workload.name:<22}{_in_words(workload)}")
    click.echo("\nRecipes (bench train)")
    for recipe in RECIPES.values():
        figures = [one.text for one in recipe.published if one.metric == "test accuracy"]
        click.echo(f"  {recipe.name:<22}{recipe.steps:,} steps; test accuracy in the notebook: {figures[-1]}")
    click.echo("\nBackends")
    for info in registry.backends.values():
        for line in _described(info, *found[info.name], _fault(info.name, own, found)):
            click.echo(line)
    for reason in registry.broken.values():
        click.echo(f"  {reason}")
    click.echo("\nPresets")
    for preset in PRESETS.values():
        click.echo(f"  {preset.name:<12}{preset.summary}")


def _in_words(workload: Workload) -> str:
    optimizer = workload.optimizer
    target = f", target {workload.target_accuracy:.1%}" if workload.target_accuracy is not None else ""
    return f"batch {workload.batch_size}, {optimizer.name} {optimizer.learning_rate:g}{target}"


_Versions: TypeAlias = Mapping[str, tuple[dict[str, str], list[str]]]
"""Of each backend, the versions of its distributions, and the missing ones."""


def _fault(name: str, pythons: Mapping[str, Path], found: _Versions) -> str | None:
    """Return why a backend cannot run in its interpreter, although its framework is installed there."""
    return program_fault(pythons[name]) if name in pythons and not found[name][1] else None


def _described(
    info: BackendInfo, versions: dict[str, str], missing: Sequence[str], fault: str | None
) -> Iterator[str]:
    """Yield a line for the backend and one for each of its modes."""
    state = ", ".join(f"{name} {version}" for name, version in versions.items())
    if missing:
        state = f"not installed: {_alternatives(missing)}"
    elif fault is not None:
        state = f"cannot be used: {fault}"
    yield f"  {info.name:<22}{info.title}: {state}"
    for mode in info.modes:
        note = " (default)" if mode.default else ""
        note += " (as taught)" if mode.level == "taught" else ""
        note += " (with --ranks)" if mode.distributed else ""
        note += "" if "cpu" in mode.devices else " (on a GPU)"
        yield f"    {mode.name:<20}{mode.summary}{note}"


def _alternatives(missing: Sequence[str]) -> str:
    """Return the names of distributions; one of several that would do is written `a or b`."""
    return ", ".join(missing).replace("|", " or ")


@click.command()
@click.option(
    "--backend", "backends", multiple=True, metavar="NAME",
    help="Backend; repeat for several. [default: all]",
)  # fmt: skip
@click.option(
    "--before-install", is_flag=True,
    help="Compute nothing; only warn of frameworks that fail on this GPU, installed or not.",
)  # fmt: skip
@gpu
@own_python
def doctor(backends: tuple[str, ...], before_install: bool, gpu: int | None, pythons: tuple[str, ...]) -> int:
    """Show the machine, and compute on every device to find out which ones each framework can use."""
    # It imports NumPy, which `bench list` does not need.
    from bench.measuring.doctor import examine, gpu_warnings

    registry, own = find_backends(), parse_pythons(pythons)
    chosen = [registry.find(name) for name in backends] or list(registry.backends.values())
    if before_install:
        if gpu is not None:
            choose_device("gpu", gpu)
        for info in chosen:
            for warning in gpu_warnings(info, {}, gpu_in_use()):
                click.echo(f"WARNING: {warning}")
        return 0
    device = _show_machine(gpu)
    for reason in registry.broken.values():
        click.echo(reason)
    found = installed_versions(chosen, own)
    for info in chosen:
        versions, missing = found[info.name]
        if missing:
            click.echo(f"{info.name:<11} -    not installed: {_alternatives(missing)}")
        for warning in gpu_warnings(info, versions, gpu_in_use()):
            click.echo(f"                WARNING: {warning}")
    faults = {name: fault for name in found if (fault := _fault(name, own, found)) is not None}
    for name, fault in faults.items():
        click.echo(f"{name:<11} -    NOT USABLE: {fault}")
    installed = [info for info in chosen if not found[info.name][1] and info.name not in faults]
    devices: list[Device] = ["cpu", "gpu"] if device == "gpu" else ["cpu"]
    usable = []
    for finding in examine(installed, devices, own):
        for line in _examined(finding, found[finding.backend][0]):
            click.echo(line)
        usable.append(finding.usable)
    return 0 if installed and all(usable) and not faults else EXIT_NOT_MEASURED


def _show_machine(gpu: int | None) -> Device:
    """Print what the machine is, choose the GPU if there is one, and return the device."""
    environment = capture_environment()
    click.echo(f"Machine   {environment.in_words()}")
    if threads := environment.threads_in_words():
        click.echo(f"Threads   {threads}")
    click.echo(f"System    {environment.system}, Python {environment.python}, samework {environment.version}")
    click.echo(f"Driver    {environment.gpu_driver or 'no NVIDIA driver'}")
    click.echo(f"CPU has   {' '.join(environment.cpu_flags)}")
    for number, one in enumerate(list_gpus()):
        click.echo(f"GPU {number:<6}{one}")
    device = choose_device("auto", gpu)
    if used := used_gpu(device):
        click.echo(f"GPU used  {used}")
    click.echo()
    return device


def _examined(finding: "Finding", versions: dict[str, str]) -> Iterator[str]:
    """Yield the lines about a backend on a device."""
    mark = "usable" if finding.usable else "NOT USABLE"
    yield f"{finding.backend:<11} {finding.device}  {mark}: {finding.said}"
    for warning in known_faults(versions, finding.device):
        yield f"                WARNING: {warning}"
    facts = [f"{key} {value}" for key, value in finding.facts.items() if value is not None]
    if facts := [fact for fact in facts if not fact.startswith(("device", "peak_device", "build"))]:
        yield "                " + ", ".join(facts)
