"""What the documentation tells one to type is what the command takes. Nothing of it is run."""

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
"""The command to which a session gives what follows `--`."""


def commands(text: str) -> Iterator[str]:
    """Yield what a page shows as code that begins with `bench` or starts one of those sessions of nox."""
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
    """Parse a command; raise click.UsageError for one that there is not, or an option or a value of it."""
    shown = re.split(r"[;|&>]", command.split(" #", maxsplit=1)[0])[0].replace(", …", "")
    words = shlex.split(re.sub(r"\bN\b", "1", shown.replace("…", "x")))
    found: click.Command = bench
    context: click.Context | None = None
    # A page may ask for help, and may speak of a command without all that it needs.
    with contextlib.suppress(click.exceptions.Exit, click.MissingParameter):
        while isinstance(found, click.Group) and not words[0].startswith("--"):
            context = click.Context(found, parent=context)
            _, found, words = found.resolve_command(context, words)
            assert found is not None
        found.make_context(found.name, words, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_no_command_or_option_that_there_is_not(page: Path) -> None:
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
def test_what_there_is_not_would_be_seen(text: str) -> None:
    (command,) = commands(text)
    with pytest.raises(click.UsageError):
        parse(command)
