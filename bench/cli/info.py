"""The commands that show what is here: `list` and `doctor`."""

import click

from bench.machine.environment import capture_environment, nvidia_driver_present
from bench.machine.known_faults import known_faults
from bench.measuring.backends import find_backends, installed_versions
from bench.options import EXIT_NOT_MEASURED, own_python, parse_pythons
from bench.recipes.catalog import RECIPES
from bench.run.plan import PRESETS
from bench.workloads.catalog import WORKLOADS
from bench.workloads.specs import Device


@click.command("list")
@own_python
def list_(pythons: tuple[str, ...]) -> None:
    """Show workloads, recipes, backends with their modes, presets, and what is installed."""
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


@click.command()
@own_python
def doctor(pythons: tuple[str, ...]) -> int:
    """Show the machine, and compute on every device to see which are really usable."""
    from bench.measuring.doctor import examine  # with NumPy, which `bench list` does without

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
