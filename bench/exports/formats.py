"""A run in the formats of other tools: which formats there are, and how their content gets to disk.

The module of a format makes content from records and writes nothing; this module writes. Names in a run can
be anything that somebody called a backend, a workload or a host, so none is trusted: see
`bench.exports.names`.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import msgspec

from bench import store
from bench.errors import UsageError, WriteError, unknown
from bench.paths import refusal
from bench.records.runs import Run

Payload: TypeAlias = Literal["text", "binary", "folder"]


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """A format, and the function that makes it."""

    name: str
    summary: str
    """Its content and the tool that reads it, in a line."""
    payload: Payload
    maker: str
    """`module:function`, imported when it is used: `bench --help` must not wait for NumPy.

    The function takes a `Run` and returns text or bytes. That of a folder also takes the folder, in which it
    may read what earlier runs left, and returns the files to write by their paths in the folder.
    """

    def make(self, *arguments: Any) -> Any:
        module, _, function = self.maker.partition(":")
        return getattr(import_module(module), function)(*arguments)


_ALL = (
    Export(
        name="pytest-benchmark",
        summary="JSON for pytest-benchmark compare: the seconds of a training step, by window",
        payload="text",
        maker="bench.exports.pytest_benchmark:to_json",
    ),
    Export(
        name="asv",
        summary="results folder for asv publish; runs of other commits can be added",
        payload="folder",
        maker="bench.exports.asv:to_files",
    ),
    Export(
        name="github-bigger",
        summary="github-action-benchmark, bigger is better: throughput, accuracy, targets",
        payload="text",
        maker="bench.exports.github_action:to_bigger",
    ),
    Export(
        name="github-smaller",
        summary="github-action-benchmark, smaller is better: first step, memory, time to target",
        payload="text",
        maker="bench.exports.github_action:to_smaller",
    ),
    Export(
        name="csv",
        summary="a line for every row of the report, for spreadsheets",
        payload="text",
        maker="bench.exports.tables:to_csv",
    ),
    Export(
        name="parquet",
        summary="the same rows with their types, for data frames; needs samework[parquet]",
        payload="binary",
        maker="bench.exports.tables:to_parquet",
    ),
)
EXPORTS: Mapping[str, Export] = MappingProxyType({export.name: export for export in _ALL})


def find_export(name: str) -> Export:
    """Return the format of that name; raise UsageError if there is none."""
    if name not in EXPORTS:
        raise unknown("format", name, list(EXPORTS), "bench export --help shows all")
    return EXPORTS[name]


def as_text(export: Export, run: Run) -> str:
    """Return a run in a format that is text; raise UsageError if the format is not text."""
    if export.payload != "text":
        what = "a folder" if export.payload == "folder" else "a binary file"
        raise UsageError(f"--format {export.name} makes {what}. Name it with --output PATH.")
    made: str = export.make(run)
    return made


def as_file(export: Export, run: Run) -> bytes:
    """Return the content of the file that a format makes; raise UsageError if it makes a folder."""
    if export.payload == "folder":
        raise UsageError(f"--format {export.name} makes a folder. Name it with --output PATH.")
    made: str | bytes = export.make(run)
    return made.encode() if isinstance(made, str) else made


def write(export: Export, run: Run, output: Path) -> None:
    """Write a run to a file, or to a folder whose other files stay.

    All content is made before the first file is written. Raise RecordError if one cannot be written.
    """
    if export.payload == "folder":
        files = {output / inside(path): content for path, content in export.make(run, output).items()}
    else:
        files = {output: as_file(export, run)}
    try:
        for path, content in files.items():
            if export.payload == "folder":
                path.parent.mkdir(parents=True, exist_ok=True)
            store.write_durably(path, content)
    except OSError as error:
        what = "folder" if export.payload == "folder" else "file"
        raise WriteError(
            f"cannot write {output}: {refusal(error, output)}. Name another {what} with --output."
        ) from error


def inside(path: str) -> PurePosixPath:
    """Return a path in a folder; raise ValueError for one that leaves it, which no format may make."""
    found = PurePosixPath(path)
    if found.is_absolute() or not found.parts or ".." in found.parts or "\\" in path or "\0" in path:
        raise ValueError(f"{path!r} is not a path inside a folder")
    return found
