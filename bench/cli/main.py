"""The command line: reads what the user asks, calls the part that does it, and turns errors into exit status.

0 all is well; 1 a measured failure (parity lost, a target missed that was demanded, a self-test failed, two
runs that contradict each other, a regression); 2 wrong usage; 3 something could not be measured, or told; 70
a fault of this program; 130 interrupted.
"""

import os
import signal
import sys
import traceback
from importlib import import_module
from typing import NamedTuple, NoReturn

import click

from bench import __version__
from bench.errors import BenchError
from bench.options import EXIT_FAULT, EXIT_INTERRUPTED
from bench.text import clean_lines

_OTHERS_VARIABLES = ("MPLBACKEND", "MATPLOTLIBRC")
"""Variables that Matplotlib reads when it is imported, meant for another program. Jupyter and Colab set the
first to a module that is not installed here."""


class Lazy(NamedTuple):
    """A command that is not imported yet: where it is, as `module:function`, and its line of help."""

    target: str
    summary: str


COMMANDS = {
    "run": Lazy("bench.run.command:run", "Prove parity, measure every cell, and report."),
    "verify": Lazy("bench.run.command:verify", "Compare every backend and mode with the float64 reference."),
    "report": Lazy("bench.run.command:report", "Report a run, the newest if none is named."),
    "targets": Lazy(
        "bench.run.command:targets",
        "Propose a target accuracy for every workload of a run: the mean less three standard deviations.",
    ),
    "ab": Lazy(
        "bench.gate.command:ab",
        "Measure two sides side by side; exit 0 if nothing is worse in head, 1 if so, 3 if undecided.",
    ),
    "compare": Lazy(
        "bench.gate.command:compare",
        "Compare two runs row by row: exit 0 if nothing is worse in HEAD, 1 if something is, 3 if undecided.",
    ),
    "selftest": Lazy(
        "bench.selftest.command:selftest",
        "Measure how often a verdict is right, with sides that are equal or slowed by a known share.",
    ),
    "history": Lazy(
        "bench.history.command:history", "Keep the figures of runs over time, and show where they changed."
    ),
    "export": Lazy(
        "bench.exports.command:export",
        "Write a run, the newest if none is named, in the format of another tool.",
    ),
    "train": Lazy(
        "bench.recipes.command:train",
        "Follow a recipe in one framework: figures on the way, checkpoints, and a model in the end.",
    ),
    "evaluate": Lazy(
        "bench.recipes.command:evaluate",
        "Load a model in any framework, and compare its logits with the float64 reference.",
    ),
    "predict": Lazy(
        "bench.recipes.command:predict",
        "Print the probability of every class for one test image; no framework is needed.",
    ),
    "show": Lazy(
        "bench.recipes.command:show",
        "Draw a data set, a recipe, a training or a model, as SVG; no framework is needed.",
    ),
    "notebooks": Lazy(
        "bench.recipes.command:notebooks",
        "Follow all recipes in all frameworks over several seeds, and compare with the notebooks' figures.",
    ),
    "data": Lazy("bench.datasets.command:data", "Fetch the data sets, or check them against their digests."),
    "list": Lazy(
        "bench.cli.info:list_",
        "Show workloads, recipes, backends with their modes, presets, and what is installed.",
    ),
    "doctor": Lazy(
        "bench.cli.info:doctor",
        "Show the machine, and compute on every device to see which are really usable.",
    ),
}
"""Every command, in the order of `bench --help`."""


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


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for, so that `bench --help` imports nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's)
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002 (click's)
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (click's)
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="samework")
def bench() -> None:
    """Train the same networks in TensorFlow, PyTorch and JAX; prove them equal, measure, report."""
