"""The records of the campaign's plan: parts, the commands that they run, and what was left out."""

import hashlib
from typing import Literal, TypeAlias

import msgspec

Interpreter: TypeAlias = Literal["harness", "tests"]
"""`harness`: the environment that runs `bench`. `tests`: the one that holds all frameworks and pytest."""

FRAMEWORKS = ("tensorflow", "torch", "jax")
FOLDER, MADE, PYTHONS = "{folder}", "{made}", "{pythons}"
"""Words of a command that stand for the part's folder, for the folder that the command has made in it, and
for `--python NAME=PATH` of each framework."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command of a part, without its interpreter."""

    arguments: tuple[str, ...]
    """As in a shell, the first may set variables: `NAME=VALUE`."""
    resume: tuple[str, ...] = ()
    """The arguments that go on with it; empty: those that began it do."""
    makes: str = ""
    """The pattern of the folder that it makes in the part's folder; empty: it makes none."""
    name: str = ""
    """The fixed name that this folder gets in the part's folder. Empty: what is in it moves up, so that the
    part's folder itself is the run."""
    report: str = ""
    """The file that a whole command has left in its folder; without it, the command has failed whatever its
    exit status is."""
    statuses: tuple[int, ...] = (0,)
    """The exit statuses of a command that did its work, whatever it found."""
    interpreter: Interpreter = "harness"
    pythons: tuple[str, ...] = FRAMEWORKS
    """The backends whose interpreters it needs."""
    burns: bool = False
    """Whether a process that keeps one core busy for a third of the time runs beside it."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the campaign: what is asked, how it is measured, and what was fixed before any data."""

    name: str
    number: int
    """The number of its subject, 1 to 8: see `SUBJECTS`."""
    question: str
    measures: str
    rule: str
    level: str
    """The level of the rule, or the confidence of its intervals."""
    failure: str
    """What counts as a failure. It is published as one."""
    minutes: int
    """The expected time."""
    commands: tuple[Command, ...]
    needs: tuple[str, ...] = ()
    """Parts that have to be done before."""
    apart_from: tuple[str, ...] = ()
    """Parts that must have ended some time before this one begins."""
    hours: float = 0.0
    """That time."""

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends whose interpreters the part needs, and `tests` if it needs that environment."""
        named = dict.fromkeys(name for one in self.commands for name in one.pythons)
        return (*named, *(["tests"] if any(one.interpreter == "tests" for one in self.commands) else []))

    @property
    def digest(self) -> str:
        """The SHA-256 of the part's entry in the plan."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the campaign was to measure and does not, or less of."""

    number: int
    asked: str
    planned: str
    why: str
