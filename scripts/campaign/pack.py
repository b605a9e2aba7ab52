"""Pack the raw values of the campaign, and write the README of its folder.

The raw values of a folder go to the `records.tar.xz` beside it, which is where the program looks for them:
those of `results/campaign/run-default-1` to `results/campaign/records.tar.xz`. An archive that is packed
again from the same files has the same bytes.

Everything is kept, with one exception: of the notebooks' trainings from the fourth seed on, the loss of each
single step and the distributions of the parameters are left out. With them one part would take 7.7 MB of the
10 MB that all results may. Every figure after the notebooks' steps is kept.
"""

import io
import lzma
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bench import store
from bench.analysis.summary import summarise
from bench.errors import RecordError
from bench.recipes.records import FIGURES, read_training
from bench.recipes.records import HEADER as TRAINING_HEADER
from bench.records.runs import HEADER, read_run
from bench.report.format import NOTHING
from bench.report.markdown import grid
from bench.run.report import markdown
from campaign import log
from campaign.cuts import CUT
from campaign.log import Amendment, CampaignHeader, PartRecord
from campaign.page import table
from campaign.plan import SUBJECTS
from campaign.records import Part
from campaign.state import Cpu, kinds

RAW = ("records.jsonl", "blocks.jsonl", "figures.jsonl", "processes.jsonl")
"""The files of raw values."""
WHOLE_SEEDS = 3
"""Of so many seeds of a recipe in a framework, from 0 on, a training is kept with the loss of every step."""
MOST_BYTES = 10_000_000
"""Of all that is published, older results and guests' among it."""
_PRESET = 9 | lzma.PRESET_EXTREME
_TEMPORARY = ("checkpoints", "events")


def pack(folder: Path) -> list[Path]:
    """Move all raw values below a folder into archives, and return these.

    A file is removed only after its archive was read back and holds the same bytes. Raises RecordError if it
    does not.
    """
    by_archive: dict[Path, list[Path]] = {}
    for name in RAW:
        for path in sorted(folder.rglob(name)):
            by_archive.setdefault(path.parent.parent / store.ARCHIVE, []).append(path)
    for archive, paths in sorted(by_archive.items()):
        members = dict(store.archived(archive))
        members |= {f"{path.parent.name}/{path.name}": kept(path) for path in paths}
        store.write_durably(archive, packed(members))
        if unpacked(archive.read_bytes()) != members:
            raise RecordError(f"{archive} does not hold what was packed; the files stay where they are.")
        for path in paths:
            path.unlink()
    return sorted(by_archive)


def kept(path: Path) -> bytes:
    """Return what is kept of a file of raw values: all, or less of a training from a later seed."""
    if path.name != FIGURES or not (path.parent / TRAINING_HEADER).is_file():
        return path.read_bytes()
    training = read_training(path.parent)
    if training.header.seed < WHOLE_SEEDS or training.rejected or not training.finished:
        return path.read_bytes()
    figures = (msgspec.structs.replace(one, losses=b"", distributions={}) for one in training.figures)
    return b"".join(store.encoded(figure) + b"\n" for figure in figures)


def write_reports(folder: Path) -> None:
    """Write the report of each run again, because it says where the raw values are."""
    for header in sorted(folder.glob(f"*/{HEADER}")):
        run = read_run(header.parent)
        markdown.write(run, summarise(run))


def packed(members: Mapping[str, bytes]) -> bytes:
    """Return an archive of files by their names; the same files give the same bytes."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(members.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return lzma.compress(whole.getvalue(), preset=_PRESET)


def unpacked(content: bytes) -> dict[str, bytes]:
    """Return the files of an archive by their names."""
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(content))) as tar:
        files = [(member.name, tar.extractfile(member)) for member in tar if member.isfile()]
        return {name: file.read() for name, file in files if file is not None}


def refuse_too_large(results: Path, most: int = MOST_BYTES) -> int:
    """Return the bytes of all results; raise RecordError, with the largest files, if they are too many."""
    sizes = {
        path: path.stat().st_size
        for path in results.rglob("*")
        if path.is_file() and path.suffix != ".safetensors" and not set(path.parts) & set(_TEMPORARY)
    }
    total = sum(sizes.values())
    if total >= most:
        largest = sorted(sizes, key=lambda path: -sizes[path])[:5]
        said = ", ".join(f"{path.relative_to(results)} ({sizes[path] / 1e6:.1f} MB)" for path in largest)
        raise RecordError(f"{results} has {total / 1e6:.1f} MB, and {most / 1e6:.0f} are the limit: {said}.")
    return total


def readme(
    header: CampaignHeader | None,
    records: Mapping[str, PartRecord],
    parts: Sequence[Part],
    tries: Mapping[str, PartRecord],
) -> str:
    """Return the README of the campaign's folder."""
    alike = kinds(record.cpu for record in (*records.values(), *tries.values()))
    cpus = {cpu: f"CPU {number}" for number, kind in enumerate(alike, start=1) for cpu in kind}
    rows = [row(part, records.get(part.name), cpus) for part in parts]
    began = (
        f"It began at {header.began_at} with commit `{header.commit[:10]}`. "
        f"State of the code: `{header.state}`."
        if header
        else "It has not begun."
    )
    lines = [
        "# The campaign",
        "All figures of README and docs come from here. Every part was measured with one state of the code, "
        "by rules that were fixed beforehand: see [the page about it](../../docs/campaign.md). Parts that "
        "failed are listed as failed.",
        began,
        *(f"- {name}: {cpu.in_words()}" for cpu, name in cpus.items()),
        *(["Parts of unequal CPUs are neither pooled nor compared."] if len(alike) > 1 else []),
        grid(("part", "subject", "status", "began", "took", "CPU", "exit statuses"), rows),
        "A command's exit status: 0 all decided, 1 a demand was not met, 3 something stayed undecided.",
        *_of_tries(tries, cpus),
        *_of_amendments(header.amendments if header else ()),
        "## Left out",
        table(("subject", "asked", "planned", "why"),
             [(SUBJECTS[one.number], one.asked, one.planned, one.why) for one in CUT]),
    ]  # fmt: skip
    return "\n\n".join(lines) + "\n"


def _of_amendments(amendments: Sequence[Amendment]) -> list[str]:
    """Return the section of the plan's changes; one that several parts share is one entry."""
    changes: dict[tuple[str, str], list[Amendment]] = {}
    for one in amendments:
        changes.setdefault((one.commit, one.reason), []).append(one)
    entries = [
        f"- {', '.join(one.part for one in same)}, {same[0].at}, commit `{commit[:10]}`: {reason}"
        for (commit, reason), same in changes.items()
    ]
    return ["## Changes of the plan after it began", *entries] if entries else []


def row(part: Part, record: PartRecord | None, cpus: Mapping[Cpu, str]) -> tuple[str, ...]:
    """Return a part's row of the table."""
    subject = SUBJECTS[part.number]
    if record is None:
        return (part.name, subject, "left", "", f"{part.minutes} min planned", "", "")
    return (part.name, subject, *_how_it_ran(record, cpus))


def _how_it_ran(record: PartRecord, cpus: Mapping[Cpu, str]) -> tuple[str, ...]:
    statuses = ", ".join(NOTHING if one.exit_status is None else str(one.exit_status) for one in record.ran)
    return (record.status, record.started_at, f"{record.minutes:.0f} min", cpus[record.cpu], statuses)


def _of_tries(tries: Mapping[str, PartRecord], cpus: Mapping[Cpu, str]) -> list[str]:
    """Return the section on what was kept when a part began again."""
    if not tries:
        return []
    rows = [(name, *_how_it_ran(record, cpus)) for name, record in tries.items()]
    return [
        "## Earlier tries",
        "These parts were begun again. What was measured before is kept, and no figure is taken from it.",
        grid(("folder", "status", "began", "took", "CPU", "exit statuses"), rows),
    ]


def write_readme(folder: Path, parts: Sequence[Part]) -> Path:
    """Write the README of the campaign's folder, from the records of its parts; return its path."""
    path = folder / "README.md"
    records, tries = log.read_parts(folder, parts), log.read_tries(folder, parts)
    store.write_text(path, readme(log.read_header(folder), records, parts, tries))
    return path
