"""Every command that the documentation shows can be parsed; none of them is run."""

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bench.cli.main import bench

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path for path in (ROOT / "README.md", ROOT / "results" / "README.md", *(ROOT / "docs").rglob("*.md"))
)
SESSIONS = {"bench": "run", "regression": "ab", "notebooks": "notebooks", "verify": "verify"}
"""For each nox session, the command that gets the arguments after `--`."""


def commands(text: str) -> Iterator[str]:
    """Yield the arguments of every `bench` command and nox session that a page shows as code."""
    shown = re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for block in re.findall(r"```[a-z]*\n(.*?)```", text, flags=re.DOTALL):
        shown += block.replace("\\\n", " ").splitlines()
    for line in shown:
        found = re.match(r"(?:\$ )?(?:\S*/)?bench ([a-z-].*)", line, flags=re.DOTALL)
        if found:
            yield found[1]
        for session, arguments in re.findall(r"nox -s (\w+) -- (.*)", line, flags=re.DOTALL):
            if session in SESSIONS:
                yield f"{SESSIONS[session]} {arguments}"


def parse(command: str) -> None:
    """Parse a command; raise click.UsageError for an unknown command, option or value."""
    shown = re.split(r"[;|&>]", command.split(" #", maxsplit=1)[0])[0].replace(", …", "")
    words = shlex.split(re.sub(r"\bN\b", "1", shown.replace("…", "x")))
    found: click.Command = bench
    context: click.Context | None = None
    # A page may show --help, or a command without its required arguments.
    with contextlib.suppress(click.exceptions.Exit, click.MissingParameter):
        while isinstance(found, click.Group) and not words[0].startswith("--"):
            context = click.Context(found, parent=context)
            _, found, words = found.resolve_command(context, words)
            assert found is not None
        found.make_context(found.name, words, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_on_a_page_exists(page: Path) -> None:
    wrong = {}
    for command in commands(page.read_text(encoding="utf-8")):
        try:
            parse(command)
        except click.UsageError as error:
            wrong[command] = error.format_message()
    assert wrong == {}


def test_the_pages_name_commands() -> None:
    found = [command for page in PAGES for command in commands(page.read_text(encoding="utf-8"))]
    assert len(found) > 30
    assert {command.split()[0] for command in found} >= {"run", "ab", "compare", "export", "history", "train"}


@pytest.mark.parametrize(
    "text",
    ["`bench rnu`", "```sh\nbench run --bugdet 5m\n```", "```\n$ nox -s regression -- --bsae main\n```",
     "`bench run --device tpu`", "`bench history shwo`"],
)  # fmt: skip
def test_an_unknown_command_is_seen(text: str) -> None:
    (command,) = commands(text)
    with pytest.raises(click.UsageError):
        parse(command)
