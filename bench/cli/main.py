"""The command line: finds the command, imports and runs it, and turns errors into exit statuses.

0 success; 1 a measured failure (parity lost, a target missed with --require-target, a self-test failed, two
runs that contradict each other, a regression); 2 wrong usage; 3 something could not be measured, or not well
enough to decide; 70 a fault of this program; 130 interrupted.
"""

import contextlib
import os
import signal
import sys
import traceback
from importlib import import_module
from typing import NamedTuple, NoReturn

import click

from bench import __version__
from bench.cli import streams
from bench.errors import BenchError, WriteError
from bench.options import EXIT_FAULT, EXIT_INTERRUPTED, EXIT_NOT_MEASURED
from bench.paths import refusal, refused
from bench.text import clean_lines

_OTHERS_VARIABLES = ("MPLBACKEND", "MATPLOTLIBRC")
"""Variables of other programs that Matplotlib reads when it is imported. Jupyter and Colab set the first one
to a module that is not installed here."""


class Lazy(NamedTuple):
    """A command that is imported when it is used: its place, as `module:function`, and its line of help."""

    target: str
    summary: str


COMMANDS = {
    "run": Lazy("bench.run.command:run", "Check parity, measure every row, and report."),
    "verify": Lazy("bench.run.command:verify", "Compare every backend and mode with the float64 reference."),
    "report": Lazy(
        "bench.cli.report:report", "Show a run, by default the newest, or compare several; write report.html."
    ),
    "targets": Lazy(
        "bench.run.command:targets",
        "Propose a target accuracy for every workload of a run: the mean minus three standard deviations.",
    ),
    "ab": Lazy(
        "bench.gate.command:ab",
        "Measure two sides side by side: exit 0 if nothing is worse in head, 1 if so, 3 if undecided.",
    ),
    "compare": Lazy(
        "bench.gate.command:compare",
        "Compare two runs row by row: exit 0 if nothing is worse in HEAD, 1 if something is, 3 if undecided.",
    ),
    "selftest": Lazy(
        "bench.selftest.command:selftest",
        "Measure how often a verdict is right, with sides that are equal or slower by a known share.",
    ),
    "history": Lazy(
        "bench.history.command:history", "Keep the metrics of runs over time, and show where they changed."
    ),
    "export": Lazy(
        "bench.exports.command:export", "Write a run, by default the newest, in the format of another tool."
    ),
    "train": Lazy(
        "bench.recipes.command:train",
        "Follow a recipe in one framework; write accuracy and loss, checkpoints, and the model.",
    ),
    "evaluate": Lazy(
        "bench.recipes.command:evaluate",
        "Load a model in any framework, and compare its logits with the float64 reference.",
    ),
    "predict": Lazy(
        "bench.recipes.command:predict",
        "Print the probability of every class for one test image; needs no framework.",
    ),
    "show": Lazy(
        "bench.recipes.command:show",
        "Draw a data set, a recipe, a training run or a model as SVG; needs no framework.",
    ),
    "notebooks": Lazy(
        "bench.recipes.command:notebooks",
        "Follow all recipes in all frameworks over several seeds, and compare with the notebooks' figures.",
    ),
    "data": Lazy(
        "bench.datasets.command:data",
        "Download data sets, check them against their digests, or write them as IDX files.",
    ),
    "list": Lazy(
        "bench.cli.info:list_",
        "Show workloads, recipes, backends with their modes, presets, and installed versions.",
    ),
    "doctor": Lazy(
        "bench.cli.info:doctor",
        "Show the machine, and compute on every device to find out which ones each framework can use.",
    ),
}
"""Every command, in the order of `bench --help`."""


def main() -> NoReturn:
    """Run the command and exit; print what a user can do wrong in one or two lines, without a traceback."""
    streams.prepare()
    for name in _OTHERS_VARIABLES:
        os.environ.pop(name, None)
    _interrupt_on_signals()
    try:
        # bench.main() would end with status 1 if the reader of the output, such as `head`, has gone.
        with bench.make_context("bench", sys.argv[1:]) as context:
            status = bench.invoke(context) or 0
        if sys.stdout is not None:
            sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as ended:
        if not isinstance(ended.__context__ if isinstance(ended, SystemExit) else ended, BrokenPipeError):
            raise
        status = 0  # the reader of the output has gone, which is no failure; rich raises SystemExit then
    except (Exception, KeyboardInterrupt) as error:
        status = _report(error)
    streams.finish()
    sys.exit(status)


def _interrupt_on_signals() -> None:
    """Let SIGTERM, by which CI ends a job, and SIGHUP, by which a terminal goes, act as Ctrl-C.

    The command then keeps what is done and says how to go on. `nohup` has SIGHUP ignored, and it stays so.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def _report(error: BaseException) -> int:
    """Print the error that ended the command, and return the exit status."""
    if _is_interruption(error):
        return EXIT_INTERRUPTED
    match error:
        case click.exceptions.Exit():  # --help and --version
            return error.exit_code
        case click.ClickException():
            context = error.ctx if isinstance(error, click.UsageError) else None
            hint = f" ({context.command_path} --help)" if context else ""
            _say(f"{error.format_message()}{hint}")
            return error.exit_code
        case BenchError():
            # A name in the message may come from a folder or a file, and have control characters.
            _say(clean_lines(str(error)))
            return error.exit_status
        case OSError() if refused(error):
            _say(clean_lines(refusal(error)))
            return EXIT_NOT_MEASURED
        case _:  # a fault of this program; its status must differ from that of a measured failure
            with contextlib.suppress(OSError):
                traceback.print_exception(error)
            return EXIT_FAULT


def _is_interruption(error: BaseException) -> bool:
    if isinstance(error, click.exceptions.Abort | KeyboardInterrupt):
        return True
    # After SIGHUP the terminal has gone, so that the last words of the command cannot be written to it.
    before = error.__context__ if isinstance(error, OSError | WriteError) else None
    while before is not None and not isinstance(before, KeyboardInterrupt):
        before = before.__context__
    return before is not None


def _say(message: str) -> None:
    """Print a message on standard error; if that cannot be written either, the exit status has to do."""
    with contextlib.suppress(OSError):
        click.echo(f"bench: {message}", err=True)


class LazyGroup(click.Group):
    """A group that imports a command only when it is used, so that `bench --help` imports none."""

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
    """Train the same networks in TensorFlow, PyTorch and JAX; check that they agree, measure, report."""
