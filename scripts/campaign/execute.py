"""Run one part: its commands in order, each begun or gone on with, and recorded as it ends."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from bench import store
from bench.errors import RecordError, UsageError
from bench.text import clean_lines
from campaign import log, pack
from campaign.log import CampaignHeader, PartRecord, Ran
from campaign.records import FOLDER, MADE, PYTHONS, Command, Part
from campaign.state import this_cpu

SCRIPTS = Path(__file__).resolve().parent.parent
_LAST_LINES = 40
_ASSIGNMENT = re.compile(r"[A-Z_]+=")
_BURN = """\
import os, random, time
chance, parent = random.Random(5), os.getppid()
while os.getppid() == parent:
    end = time.monotonic() + chance.expovariate(1 / 2)
    while time.monotonic() < end: pass
    time.sleep(chance.expovariate(1 / 4))
"""
"""Keeps a core busy for a third of the time, no longer than the process that started it lives.

The spells last 2 s on average, and the pauses 4 s. A run beside one that never pauses claims nothing, as
every round is disturbed, so it could not be wrong."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a campaign runs."""

    root: Path
    """The checkout, in which commands are started."""
    folder: Path = log.FOLDER
    """The campaign's folder, relative to the root."""
    pythons: Mapping[str, str]
    """The interpreter of each backend, relative to the root, and of `tests`."""

    @property
    def campaign(self) -> Path:
        return self.root / self.folder


Start = Callable[[Sequence[str], Path, Mapping[str, str]], tuple[int, tuple[str, ...]]]
"""Runs a command in a folder with variables; returns its exit status and last lines.

Raises KeyboardInterrupt, after the command has ended, if it was interrupted."""


def run_part(
    part: Part, place: Place, header: CampaignHeader, *, commit: str, start: Start | None = None
) -> PartRecord:
    """Run what is left of a part, and return its record.

    Raises RecordError if it has failed before, or was begun on another CPU or by another plan, and
    KeyboardInterrupt once all is recorded, if it is interrupted.
    """
    begun = log.read_part(place.campaign, part.name)
    if header.planned(part.name) != part.digest:
        raise RecordError(
            f"the plan of {part.name} is not the one that the campaign began with. Restore it, or say why it "
            f"changes: nox -s campaign -- --amend {part.name} REASON"
        )
    record = begun or PartRecord(
        name=part.name, state=header.state, commit=commit, plan=part.digest, cpu=this_cpu(),
        started_at=log.now(), status="running",
    )  # fmt: skip
    _refuse(part, record)
    record = msgspec.structs.replace(record, status="running", ended_at=None)
    log.write_part(place.campaign, record)
    for number in range(len(part.commands)):
        if record.did(number):
            continue
        record = _run(number, part, place, record, start or start_command)
        log.write_part(place.campaign, record)
        if record.status != "running":
            break
    if record.status == "running":
        for command in part.commands:
            settle(place.campaign / part.name, command)
        record = msgspec.structs.replace(record, status="done", ended_at=log.now())
        log.write_part(place.campaign, record)
    if record.status == "interrupted":
        raise KeyboardInterrupt
    return record


def _refuse(part: Part, record: PartRecord) -> None:
    if record.status == "done":
        raise UsageError(
            f"{part.name} is done. --anew {part.name} keeps it under another name and repeats it."
        )
    if record.status == "failed":
        last = record.ran[-1]
        said = "\n".join(f"  {line}" for line in last.last_lines)
        raise RecordError(
            f"{part.name} has failed: {last.fault}. A part is not repeated by itself: --anew {part.name} "
            f"keeps what is there under another name.\n{said}"
        )
    if not record.cpu.may_equal(here := this_cpu()):
        raise RecordError(
            f"{part.name} was begun on {record.cpu.in_words()}; this is {here.in_words()}. Go on with it "
            f"there, or begin it again here with --anew {part.name}."
        )
    if record.plan != part.digest:
        raise RecordError(f"{part.name} was begun by another plan. Begin it again with --anew {part.name}.")


def _run(number: int, part: Part, place: Place, record: PartRecord, start: Start) -> PartRecord:
    """Run one command, and return the part's record with it."""
    command = part.commands[number]
    folder = place.folder / part.name
    made = made_folder(place.root / folder, command)
    words = command.arguments if made is None else (command.resume or command.arguments)
    own, words = split_variables(words)
    arguments = fill(words, folder=folder, made=made, pythons=place.pythons, backends=command.pythons)
    python = sys.executable
    if command.interpreter == "tests":
        if "tests" not in place.pythons:
            raise UsageError(f"{part.name} needs --python tests=PATH: the environment that holds pytest.")
        python = str(place.root / place.pythons["tests"])
    shown = (*(f"{name}={value}" for name, value in own.items()), "python", *arguments)
    print(f"{part.name}, command {number + 1} of {len(part.commands)}: {' '.join(shown)}", flush=True)
    started_at, began = log.now(), time.monotonic()
    burning = subprocess.Popen([sys.executable, "-c", _BURN]) if command.burns else None
    try:
        status, lines = start((python, *arguments), place.root, variables(os.environ, arguments) | own)
    except KeyboardInterrupt:
        ran = Ran(
            number=number, command=shown, started_at=started_at, wall_s=time.monotonic() - began,
            exit_status=None,
        )  # fmt: skip
        return msgspec.structs.replace(record, status="interrupted", ran=(*record.ran, ran))
    finally:
        if burning is not None:
            burning.kill()
            burning.wait()
    fault = fault_of(command, status, place.root / folder)
    # A benchmark prints its table at the end.
    kept = lines if fault or command.interpreter == "tests" else ()
    ran = Ran(
        number=number, command=shown, started_at=started_at, wall_s=time.monotonic() - began,
        exit_status=status, fault=fault, last_lines=private(kept, place.root),
    )  # fmt: skip
    changed = msgspec.structs.replace(record, ran=(*record.ran, ran))
    return msgspec.structs.replace(changed, status="failed", ended_at=log.now()) if fault else changed


def split_variables(words: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the variables that a command's first words set, and its other words."""
    rest = tuple(itertools.dropwhile(_ASSIGNMENT.match, words))
    pairs = (word.partition("=") for word in words[: len(words) - len(rest)])
    return {name: value for name, _, value in pairs}, rest


def fill(
    words: Sequence[str],
    *,
    folder: Path,
    made: Path | None,
    pythons: Mapping[str, str],
    backends: Sequence[str],
) -> tuple[str, ...]:
    """Return a command's words with the folder, what was made in it, and the interpreters in place."""
    found: list[str] = []
    for word in words:
        if word == PYTHONS:
            found += [f"--python={name}={pythons[name]}" for name in backends if name in pythons]
        else:
            found.append(word.replace(FOLDER, folder.as_posix()).replace(MADE, made.name if made else ""))
    return tuple(found)


def made_folder(folder: Path, command: Command) -> Path | None:
    """Return the folder that a command has made; None if it has made none."""
    if not command.makes:
        return None
    return max((path for path in folder.glob(command.makes) if path.is_dir()), default=None)


def fault_of(command: Command, status: int, folder: Path) -> str | None:
    """Return why a command that has ended counts as failed; None if it did its work."""
    if status not in command.statuses:
        return f"it ended with status {status}"
    place = made_folder(folder, command) if command.makes else folder
    if command.report and not (place and (place / command.report).is_file()):
        return f"it ended with status {status} and without {command.report}"
    return None


def settle(folder: Path, command: Command) -> None:
    """Give what a command has made its fixed name; the same again changes nothing."""
    made = made_folder(folder, command)
    if made is None:
        return
    if command.name:
        made.rename(folder / command.name)
        return
    for path in sorted(made.iterdir()):
        path.rename(folder / path.name)
    made.rmdir()


def set_aside(folder: Path, name: str) -> Path:
    """Rename the folder of a part, so that it can be begun again; return where it lies now.

    Raw values that were packed are in the archive under the part's name. They are unpacked first, and leave
    the archive: the program would read them as values of the part that begins again.
    """
    if not (folder / name).is_dir():
        raise UsageError(f"{name} was not begun: there is nothing to set aside.")
    number = 1
    while (other := folder / f"{name}-try-{number}").exists():
        number += 1
    archive = folder / store.ARCHIVE
    members = store.archived(archive)
    packed = {member: content for member, content in members.items() if Path(member).parent.name == name}
    for member, content in packed.items():
        if not (path := folder / member).exists():
            store.write_durably(path, content)
    if packed:
        store.write_durably(
            archive, pack.packed({one: content for one, content in members.items() if one not in packed})
        )
    (folder / name).rename(other)
    return other


def variables(given: Mapping[str, str], arguments: Sequence[str]) -> dict[str, str]:
    """Return a command's variables: without the campaign's own folder, unless it is a module of it.

    A run gets the variables that it would have without the campaign.
    """
    found = dict(given)
    if arguments[1].startswith("campaign."):
        return found
    kept = [
        one for one in given.get("PYTHONPATH", "").split(os.pathsep) if one and Path(one).resolve() != SCRIPTS
    ]
    found.pop("PYTHONPATH", None)
    return found | ({"PYTHONPATH": os.pathsep.join(kept)} if kept else {})


def private(lines: Sequence[str], root: Path) -> tuple[str, ...]:
    """Return printed lines without what is of this machine alone: where the checkout and the home lie."""
    text = "\n".join(lines).replace(str(root), ".").replace(str(Path.home()), "~")
    return tuple(clean_lines(text).splitlines())


def start_command(
    command: Sequence[str], root: Path, environment: Mapping[str, str]
) -> tuple[int, tuple[str, ...]]:
    """Run a command, show what it prints, and return its exit status and last lines.

    Ctrl-C interrupts it once, and it may take its time to end; a second one kills it.
    """
    lines: deque[str] = deque(maxlen=_LAST_LINES)
    process = subprocess.Popen(
        command, cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        _show(process, lines)
        return process.wait(), tuple(lines)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        _show(process, lines)
        process.wait()
        raise
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _show(process: "subprocess.Popen[str]", lines: deque[str]) -> None:
    for line in process.stdout or ():
        print(line, end="", flush=True)
        lines.append(line.rstrip("\n"))
