"""What the commands share: exit statuses, options, and parsers of option values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bench.errors import UsageError
from bench.paths import expanded

EXIT_MEASURED_FAILURE = 1
EXIT_NOT_MEASURED = 3
EXIT_FAULT = 70
"""An error in this program itself: EX_SOFTWARE of <sysexits.h>."""
EXIT_INTERRUPTED = 130

STDOUT = Path("-")
"""The path that stands for standard output."""


class PathOption(click.Path):
    """A path in which `~` is the home folder; `-` is standard output if `stdout` allows it, else an error."""

    def __init__(self, *, stdout: bool = False, **kinds: Any) -> None:
        super().__init__(path_type=Path, allow_dash=stdout, **kinds)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value)
        if not text:
            self.fail("the path is empty.", param, ctx)
        if text == "-" and not self.allow_dash:
            self.fail(f"standard output cannot be used here. A {self.name} named - is ./-", param, ctx)
        return super().convert(expanded(text), param, ctx) if text != "-" else STDOUT


FOLDER = PathOption(file_okay=False)
FILE = PathOption(dir_okay=False)
OUTPUT_FILE = PathOption(dir_okay=False, stdout=True)


def print_exactly(content: str | bytes) -> None:
    """Write content to standard output as a file would have it, text as UTF-8."""
    click.echo(content.encode() if isinstance(content, str) else content, nl=False)


ranks = click.option(
    "--ranks", metavar="N,N",
    help="Train in so many processes together, such as 1,2,4, each on a CPU core or GPU of its own.",
)  # fmt: skip
own_python = click.option(
    "--python", "pythons", multiple=True, metavar="NAME=PATH",
    help="Python of a backend's own environment, such as torch=/envs/torch/bin/python.",
)  # fmt: skip
device = click.option(
    "--device", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True,
    help="Where to run.",
)  # fmt: skip
gpu = click.option(
    "--gpu", type=click.IntRange(min=0), metavar="N",
    help="Number of the GPU, of those that are visible. [default: the first]",
)  # fmt: skip
precision = click.option(
    "--precision", type=click.Choice(["fp32", "tf32", "bf16"]), default="fp32", show_default=True,
    help="Number format of matrix products.",
)  # fmt: skip
where_results = click.option(
    "--results", type=PathOption(), default=Path("results"), show_default=True,
    metavar="DIR", help="Folder of the runs.",
)  # fmt: skip
where_data = click.option(
    "--data", type=PathOption(), metavar="DIR",
    help="Folder of the data sets. [default: BENCH_DATA, else a cache]",
)  # fmt: skip
sample = click.option(
    "--sample", is_flag=True, help="Use the shipped sample of each data set; no network is needed."
)
offline = click.option("--offline", is_flag=True, help="Download nothing.")


def parse_pythons(pairs: tuple[str, ...]) -> dict[str, Path]:
    """Parse NAME=PATH pairs; raise UsageError for a malformed pair or a missing file."""
    found: dict[str, Path] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise UsageError(f"--python {pair!r} is not NAME=PATH, such as torch=/envs/torch/bin/python.")
        python = expanded(path)
        if not python.is_file():
            what = "it is a folder; name its bin/python" if python.is_dir() else f"there is no file {path}"
            raise UsageError(f"--python {pair!r}: {what}.")
        found[name] = python
    return found


def refuse_beside(why: str, *free: str) -> None:
    """Raise UsageError if an option was given that is not in `free`, because it would have no effect."""
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
        if given and parameter.name not in free:
            raise UsageError(f"{why}: leave out {parameter.opts[0]}.")


def parse_budget(text: str) -> float:
    """Return the seconds of a budget such as `90s`, `15m` or `2h`; raise UsageError if it is invalid."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1:]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = float("nan")
    if not 10.0 <= seconds <= 7 * 24 * 3600.0:  # also false for NaN
        raise UsageError(f"budget {text!r} is not a time from 10s to 168h; write 90s, 15m or 2h.")
    return seconds


def parse_precision(text: str) -> float:
    """Return the relative half-width from `1.5%` or `0.015`; raise UsageError if it is invalid."""
    number, scale = (text[:-1], 0.01) if text.endswith("%") else (text, 1.0)
    try:
        width = float(number) * scale
    except ValueError:
        width = float("nan")
    if not 0.0005 <= width <= 0.5:  # also false for NaN
        raise UsageError(f"precision {text!r} is not a share from 0.05% to 50%; write 1.5% or 0.015.")
    return width


def parse_targets(pairs: tuple[str, ...]) -> dict[str, float]:
    """Return accuracies by workload from `mnist-mlp=96.3%` or `mnist-mlp=0.963`.

    Raises UsageError for a pair that is invalid.
    """
    found: dict[str, float] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        number, scale = (text[:-1], 0.01) if text.endswith("%") else (text, 1.0)
        try:
            accuracy = float(number) * scale
        except ValueError:
            accuracy = float("nan")
        if not name or not 0 < accuracy < 1:  # also false for NaN
            raise UsageError(f"--target {pair!r} is not WORKLOAD=ACCURACY, such as mnist-mlp=96%.")
        found[name] = accuracy
    return found


def parse_sweep(text: str) -> tuple[int, ...]:
    """Return the batch sizes from `batch=16..1024`, which doubles, or `batch=16,100`.

    Raises UsageError if the text is invalid.
    """
    what, equals, sizes = text.partition("=")
    first, dots, last = sizes.partition("..")
    words = [first, last] if dots else sizes.split(",")
    if (
        what != "batch"
        or not equals
        or not all(word.isdecimal() and 1 <= int(word) <= 65536 for word in words)
    ):
        raise UsageError(
            f"sweep {text!r} is not batch=FIRST..LAST or batch=A,B,C with sizes from 1 to 65536."
        )
    if not dots:
        return tuple(sorted({int(word) for word in words}))
    found = [int(first)]
    while found[-1] * 2 <= int(last):
        found.append(found[-1] * 2)
    if int(last) < int(first):
        raise UsageError(f"sweep {text!r} ends before it begins.")
    return tuple(found)


def parse_ranks(text: str) -> tuple[int, ...]:
    """Return the numbers of ranks from `1,2,4`, in order; raise UsageError if the text is invalid."""
    words = text.split(",")
    if not all(word.isascii() and word.isdecimal() and 1 <= int(word) <= 4096 for word in words):
        raise UsageError(f"ranks {text!r} are not numbers from 1 to 4096; write 2 or 1,2,4.")
    return tuple(sorted({int(word) for word in words}))


def parse_devices(text: str) -> tuple[int, ...]:
    """Return the numbers of CPUs or GPUs from `0,2`; raise UsageError if the text is invalid."""
    words = text.split(",")
    if not all(word.isascii() and word.isdecimal() and len(word) <= 5 for word in words):
        raise UsageError(f"devices {text!r} are not numbers of CPUs or GPUs, such as 0,1.")
    return tuple(map(int, words))


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


what_to_run = _options(
    click.option(
        "--workload", "workloads", multiple=True, metavar="NAME",
        help="What to train, such as mnist-cnn; repeat for several. [default: six]",
    ),
    click.option(
        "--backend", "backends", multiple=True, metavar="NAME",
        help="Framework, such as torch; repeat for several. [default: all]",
    ),
    click.option(
        "--mode", "modes", multiple=True, metavar="NAME",
        help="How to train: a mode, or default, taught, tuned, pipeline or all; repeat for several.",
    ),
    device,
    gpu,
    precision,
    own_python,
)  # fmt: skip


SETTLED_LATER = ("resume", "results", "data", "offline", "pythons")
"""Parameters that do not change what is measured, and so are allowed with --resume."""
