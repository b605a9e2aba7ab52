"""What the commands share: exit status, options, and how their values are read."""

from pathlib import Path

import click

from bench.errors import UsageError

EXIT_MEASURED_FAILURE = 1
EXIT_NOT_MEASURED = 3
EXIT_FAULT = 70
"""Of a fault of this program: what <sysexits.h> calls EX_SOFTWARE."""
EXIT_INTERRUPTED = 130

own_python = click.option(
    "--python", "pythons", multiple=True, metavar="NAME=PATH",
    help="Interpreter of a backend's own environment.",
)  # fmt: skip
device = click.option(
    "--device", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True,
    help="Where to run.",
)  # fmt: skip
precision = click.option(
    "--precision", type=click.Choice(["fp32", "tf32", "bf16"]), default="fp32", show_default=True,
    help="How matrix products are computed.",
)  # fmt: skip
where_results = click.option(
    "--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True,
    metavar="DIR", help="Folder of the runs.",
)  # fmt: skip
where_data = click.option(
    "--data", type=click.Path(path_type=Path), metavar="DIR",
    help="Folder of the data sets. [default: BENCH_DATA, else a cache]",
)  # fmt: skip
sample = click.option(
    "--sample", is_flag=True, help="Use the shipped sample of each data set; no network is needed."
)
offline = click.option("--offline", is_flag=True, help="Fetch nothing.")


def parse_pythons(pairs: tuple[str, ...]) -> dict[str, Path]:
    """Read NAME=PATH pairs; raise UsageError for one that is not, or whose path is no file."""
    found: dict[str, Path] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise UsageError(f"--python {pair!r} is not NAME=PATH, such as torch=/envs/torch/bin/python.")
        if not Path(path).is_file():
            raise UsageError(f"--python {pair!r}: there is no file {path}.")
        found[name] = Path(path)
    return found


def refuse_beside(why: str, *free: str) -> None:
    """Raise UsageError where an option is given that is not among the free ones, as it would say nothing."""
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
        if given and parameter.name not in free:
            raise UsageError(f"{why}: leave out {parameter.opts[0]}.")
