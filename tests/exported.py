"""What the tests of the exports share: a whole run, one with hostile names, and the tools themselves."""

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec
from synthetic import (
    make_block,
    make_cell,
    make_header,
    make_job,
    make_parity,
    make_points,
    make_run,
    make_workload,
    realistic_run,
)

from bench.records.runs import Run
from bench.records.schema import Record

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HOSTILE = '../../<script>alert("1")</script>, a|b`c`\n\x1b[31m\x9b\u202e=1+1 \\ @x 模型'
"""A path upwards, HTML, CSV, Markdown, terminal escapes, a formula."""


def with_commit(
    run: Run, commit: str | None = COMMIT, *, dirty: bool | None = False, **changes: object
) -> Run:
    """Return the run as made at that commit, with further changes of its header."""
    environment = msgspec.structs.replace(run.header.environment, commit=commit, dirty=dirty)
    header = msgspec.structs.replace(run.header, environment=environment, **changes)
    return msgspec.structs.replace(run, header=header)


@cache
def full_run() -> Run:
    """Return a run with one of every mishap, as read from its folder, at a commit."""
    run = realistic_run()
    written = msgspec.json.encode(run.records, enc_hook=float)  # NumPy's floats become Python's
    records = msgspec.json.decode(written, type=tuple[Record, ...])
    return with_commit(msgspec.structs.replace(run, records=records))


@cache
def hostile_run() -> Run:
    """Return a run in which every name is hostile, and two names differ only in an unsafe character."""
    twin = HOSTILE.replace("\x1b", "\x07")
    cells = [make_cell(workload, HOSTILE, f"=cmd {HOSTILE}") for workload in (HOSTILE, twin)]
    workloads = [make_workload(cell.workload, 0.8) for cell in cells]
    records: list[Record] = []
    for cell, workload in zip(cells, workloads, strict=True):
        records += [make_parity(cell), *(make_block([cell], block) for block in range(3))]
        records += [
            make_job(cell, block, workload=workload, epochs=2, points=make_points(0.9, 2, 1.0))
            for block in range(3)
        ]
    run = make_run(make_header(cells, titles={HOSTILE: HOSTILE}, workloads=workloads), records)
    environment = msgspec.structs.replace(
        run.header.environment, hostname=HOSTILE, cpu_model=HOSTILE, system=HOSTILE, python=HOSTILE
    )
    backends = tuple(
        msgspec.structs.replace(backend, versions={HOSTILE: HOSTILE}) for backend in run.header.backends
    )
    header = msgspec.structs.replace(run.header, run_id=HOSTILE, backends=backends, environment=environment)
    return with_commit(msgspec.structs.replace(run, header=header))


def tool(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m TOOL …` as a user would, with a home of its own."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        check=False,
        cwd=cwd,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(cwd),
            "COLUMNS": "200",
            "PYTHONWARNINGS": "ignore",  # the tools' own
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            **(env or {}),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


def acts_on_a_terminal(text: str) -> list[str]:
    """Return the characters that a terminal would not print, except line ends."""
    return [char for char in text if char != "\n" and not char.isprintable()]


def texts_in(value: object) -> list[str]:
    """Return every text in a JSON value."""
    if isinstance(value, dict):
        return [found for item in value.items() for part in item for found in texts_in(part)]
    if isinstance(value, list):
        return [found for item in value for found in texts_in(item)]
    return [value] if isinstance(value, str) else []


def plain_file_names(folder: Path) -> bool:
    """Whether all names below the folder are safe in every shell, page and file system."""
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@+-.")
    names = [path.name for path in folder.rglob("*")]
    return bool(names) and all(set(name) <= allowed and name.strip(".") and len(name) < 200 for name in names)
