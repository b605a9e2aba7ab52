"""The command of the campaign: `nox -s campaign -- ...` starts it in the harness's environment.

    python -m campaign [PART] [--python=NAME=PATH ...]     run a part, or the next that is due
    python -m campaign --list                              what is done, failed and left
    python -m campaign --anew PART                         keep a part under another name, to run it again
    python -m campaign --amend PART REASON                 take a changed plan of a part, and say why
    python -m campaign --reference                         write REFERENCE.md from the reference runs
    python -m campaign --validation                        write VALIDATION.md from these and the validation
    python -m campaign --crossed                           write CROSSED.md, the self-test across frameworks
    python -m campaign --pack                              pack raw values, and write the folder's README
    python -m campaign --figures [--write]                 check marked figures of the pages, or rewrite them
    python -m campaign --backends [PART]                   print whose interpreters a part needs, and end

Exit status: 0 if all went well, 1 if a part failed or a figure is wrong, 2 for a wrong command, 3 if
something is missing or refused, 130 after Ctrl-C.
"""

import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from bench import store
from bench.errors import BenchError, RecordError, UsageError
from bench.options import EXIT_INTERRUPTED
from bench.text import duration
from campaign import execute, figures, log, overall, pack, state
from campaign.execute import Place
from campaign.log import Amendment, CampaignHeader, PartRecord
from campaign.plan import PARTS, find_part
from campaign.records import Part

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str], *, root: Path = ROOT, parts: Sequence[Part] = PARTS) -> int:
    """Do what the arguments ask, and return the exit status."""
    words, pythons = split_pythons(arguments)
    place = Place(root=root, pythons=pythons)
    folder = place.campaign
    match words:
        case ["--list"]:
            print(listing(folder, parts))
        case [
            "--backends",
            "--list"
            | "--pack"
            | "--figures"
            | "--anew"
            | "--amend"
            | "--reference"
            | "--crossed"
            | "--validation",
            *_,
        ]:
            pass
        case ["--backends", *names] if len(names) < 2:
            part = find_part(names[0], parts) if names else next_due(parts, log.read_parts(folder, parts))
            print(*part.backends)
        case ["--anew", name]:
            with log.alone(folder):
                kept = execute.set_aside(folder, find_part(name, parts).name)
            print(f"What was there is kept in {kept.relative_to(root)}.")
        case ["--amend", name, reason]:
            amend(folder, find_part(name, parts), reason, root)
        case [("--reference" | "--crossed" | "--validation") as option]:
            path = folder / f"{option.removeprefix('--').upper()}.md"
            text = overall.REPORTS[path.name](folder, parts)
            store.write_text(path, text)
            _, answer, *_ = text.split("\n\n")
            print(f"{path.relative_to(root)}: {answer}")
        case ["--pack"]:
            with log.alone(folder):
                archives = [str(one.relative_to(root)) for one in pack.pack(folder)]
                print(f"Packed into {', '.join(archives) or 'nothing new'}.")
                pack.write_reports(folder)
                print(f"Table: {pack.write_readme(folder, parts).relative_to(root)}")
            print(f"results/ has {pack.refuse_too_large(root / 'results') / 1e6:.1f} MB.")
        case ["--figures"] | ["--figures", "--write"]:
            return check_figures(root, parts, write="--write" in words)
        case [name] if not name.startswith("-"):
            return run(find_part(name, parts), place, parts)
        case []:
            return run(next_due(parts, log.read_parts(folder, parts)), place, parts)
        case _:
            raise UsageError(f"no such command: {' '.join(words)}\n{__doc__}")
    return 0


def split_pythons(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the other arguments, and what `--python NAME=PATH` and `--python=NAME=PATH` name."""
    words: list[str] = []
    pythons: dict[str, str] = {}
    rest = iter(arguments)
    for word in rest:
        if word == "--python" or word.startswith("--python="):
            pair = next(rest, "") if word == "--python" else word.removeprefix("--python=")
            name, _, path = pair.partition("=")
            if not path:
                raise UsageError(f"--python {pair!r} is not NAME=PATH.")
            pythons[name] = path
        else:
            words.append(word)
    return words, pythons


# ---- running


def run(part: Part, place: Place, parts: Sequence[Part]) -> int:
    """Run a part, or go on with it; return 0 if it is done and 1 if it failed."""
    with log.alone(place.campaign):
        records = log.read_parts(place.campaign, parts)
        refuse_too_early(part, records)
        if lacking := [name for name in part.backends if name not in place.pythons]:
            raise UsageError(f"{part.name} needs --python=NAME=PATH for {', '.join(lacking)}.")
        header, commit = fixed(place.root, place.campaign, parts)
        record = execute.run_part(part, place, header, commit=commit)
        pack.write_readme(place.campaign, parts)
    if record.status == "failed":
        last = record.ran[-1]
        print(f"{part.name} has FAILED: {last.fault}. It is recorded as failed, with its last lines.")
        return 1
    print(f"{part.name} is done, in {record.minutes:.0f} minutes.")
    return 0


def fixed(root: Path, folder: Path, parts: Sequence[Part]) -> tuple[CampaignHeader, str]:
    """Return what the first part fixed, and the commit; the first part fixes it now.

    Raises RecordError if the code has another state, or if code or plan are not committed.
    """
    if changed := state.uncommitted(root):
        raise RecordError(f"commit code and plan before a part runs: {', '.join(changed)} differ.")
    now, method, commit = state.state_of(root), state.state_of(root, state.METHOD), state.commit_of(root)
    header = log.read_header(folder)
    if header is None:
        return log.begin(folder, parts, state=now, method=method, commit=commit), commit
    for paths, begun, found in (
        (state.MEASURED, header.state, now), (state.METHOD, header.method, method),
    ):  # fmt: skip
        state.refuse_another_state(root, begun=begun, commit=header.commit, now=found, paths=paths)
    return header, commit


def refuse_too_early(part: Part, records: Mapping[str, PartRecord]) -> None:
    """Raise UsageError if a part needs others that are not done, or has to wait."""
    if missing := log.missing(part, records):
        raise UsageError(f"{part.name} needs {', '.join(missing)}, which are not done.")
    if part.name in records:
        return  # begun in time
    due = log.due_at(part, records)
    if due is None:
        raise UsageError(
            f"{part.name} begins {part.hours:g} hours after {', '.join(part.apart_from)} has ended."
        )
    if due > datetime.now(UTC):
        raise UsageError(
            f"{part.name} is due at {due.isoformat(timespec='minutes')}, hours apart from the last."
        )


def next_due(parts: Sequence[Part], records: Mapping[str, PartRecord]) -> Part:
    """Return the next part: one that was interrupted, else the first that is left and due.

    Raises UsageError if none is left, or none is due.
    """
    for part in parts:
        if part.name in records and records[part.name].status in ("running", "interrupted"):
            return part
    left = [part for part in parts if part.name not in records]
    if not left:
        raise UsageError("no part is left. --list shows which failed.")
    times = {part.name: log.due_at(part, records) for part in left}
    for part in left:
        due = times[part.name]
        if due is not None and due <= datetime.now(UTC) and not log.missing(part, records):
            return part
    waiting = [due for due in times.values() if due is not None]
    if not waiting:
        raise UsageError("every part that is left waits for one that failed. --list shows which.")
    raise UsageError(f"no part is due before {min(waiting).isoformat(timespec='minutes')}.")


def amend(folder: Path, part: Part, reason: str, root: Path) -> None:
    """Take a changed plan of a part, with the reason; raise UsageError if there is nothing to take."""
    header = log.read_header(folder)
    if header is None:
        raise UsageError("the campaign has not begun: change the plan and commit it.")
    before = header.planned(part.name) or ""
    if before == part.digest:
        raise UsageError(f"the plan of {part.name} is the one that holds.")
    if not reason.strip():
        raise UsageError("say why the plan changes.")
    if state.uncommitted(root):
        raise RecordError("commit the changed plan first.")
    changed = Amendment(
        part=part.name, reason=reason, at=log.now(), commit=state.commit_of(root), before=before,
        after=part.digest,
    )  # fmt: skip
    log.write_header(folder, msgspec.structs.replace(header, amendments=(*header.amendments, changed)))
    print(f"The changed plan of {part.name} holds now. The change and its reason are published.")


# ---- showing


def listing(folder: Path, parts: Sequence[Part]) -> str:
    """Return what is done, failed and left, with minutes and CPUs."""
    records = log.read_parts(folder, parts)
    lines = [f"{'part':<30}{'subject':>7}  {'status':<12}{'minutes':>8}  CPU, or what it waits for"]
    for part in parts:
        record = records.get(part.name)
        status = record.status if record else "left"
        minutes = f"{record.minutes:.0f}" if record and record.status == "done" else f"({part.minutes})"
        lines.append(
            f"{part.name:<30}{part.number:>7}  {status:<12}{minutes:>8}  {about(part, record, records)}"
        )
    left = float(sum(part.minutes for part in parts if part.name not in records))
    left += sum(
        max(0.0, part.minutes - records[part.name].minutes)
        for part in parts
        if part.name in records and records[part.name].status in ("running", "interrupted")
    )
    lines.append(f"left: {duration(60 * left)} of {duration(60 * sum(part.minutes for part in parts))}")
    lines.append(f"this machine: {state.this_cpu().in_words()}")
    if len(state.kinds(record.cpu for record in records.values())) > 1:
        lines.append("Parts of unequal CPUs are neither pooled nor compared.")
    return "\n".join(lines)


def about(part: Part, record: PartRecord | None, records: Mapping[str, PartRecord]) -> str:
    """Return a part's CPU, and why it failed; if it was not begun, what it waits for."""
    if record is not None:
        fault = f"; {record.ran[-1].fault}" if record.status == "failed" else ""
        return record.cpu.in_words() + fault
    if missing := log.missing(part, records):
        return f"after {', '.join(missing)}"
    due = log.due_at(part, records)
    if due is None:
        return f"{part.hours:g} hours after {', '.join(part.apart_from)}"
    return f"due at {due.isoformat(timespec='minutes')}" if due > datetime.now(UTC) else ""


def check_figures(root: Path, parts: Sequence[Part], *, write: bool) -> int:
    """Check the marked figures of all pages, or rewrite them; return 1 if one is wrong."""
    records = figures.Records(root / log.FOLDER, parts)
    wrong = 0
    for path in figures.pages(root):
        text = path.read_text(encoding="utf-8")
        if write:
            store.write_text(path, figures.rewritten(text, records))
            continue
        for said in figures.wrong_figures(text, records):
            wrong += 1
            print(f"{path.relative_to(root)}, {said}")
    return 1 if wrong else 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # SIGINT too, which a shell's background job ignores.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        click.echo("Interrupted; the same command goes on.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BenchError as error:
        click.echo(f"campaign: {error}", err=True)
        sys.exit(error.exit_status)
