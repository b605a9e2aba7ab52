"""A run in the formats of other tools: which there are, and how what they make gets to disk.

A format's module makes content out of records, and writes nothing; this one writes, and makes nothing. Names
in a run are what somebody's backend, workload or host is called, so none of them is trusted: see
`bench.exports.names`.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import msgspec

from bench import store
from bench.errors import RecordError, UsageError, unknown
from bench.records.runs import Run

Kind: TypeAlias = Literal["text", "binary", "folder"]


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """A format: what it is, and the function that makes it."""

    name: str
    summary: str
    """What it holds and what reads it, in a line."""
    kind: Kind
    maker: str
    """`module:function`, imported when it is asked for: `bench --help` must not wait for NumPy.

    It takes a `Run` and returns text, or bytes. That of a folder takes the folder too, from which it may read
    what earlier runs left there, and returns the files to write, by their paths in it.
    """

    def make(self, *arguments: Any) -> Any:
        module, _, function = self.maker.partition(":")
        return getattr(import_module(module), function)(*arguments)


_ALL = (
    Export(
        name="pytest-benchmark",
        summary="JSON for pytest-benchmark compare: the seconds of a training step, by window",
        kind="text",
        maker="bench.exports.pytest_benchmark:to_json",
    ),
    Export(
        name="asv",
        summary="results folder for asv publish; runs of other commits can be added",
        kind="folder",
        maker="bench.exports.asv:to_files",
    ),
    Export(
        name="github-bigger",
        summary="github-action-benchmark, bigger is better: throughput, accuracy, targets",
        kind="text",
        maker="bench.exports.github_action:to_bigger",
    ),
    Export(
        name="github-smaller",
        summary="github-action-benchmark, smaller is better: first step, memory, time to target",
        kind="text",
        maker="bench.exports.github_action:to_smaller",
    ),
    Export(
        name="mlperf",
        summary="folder with a log for every training, for MLPerf's compliance checker",
        kind="folder",
        maker="bench.exports.mlperf:to_files",
    ),
    Export(
        name="csv",
        summary="a line for every row of the report, for spreadsheets",
        kind="text",
        maker="bench.exports.tables:to_csv",
    ),
    Export(
        name="parquet",
        summary="the same rows with their types, for data frames; needs samework[parquet]",
        kind="binary",
        maker="bench.exports.tables:to_parquet",
    ),
)
EXPORTS: Mapping[str, Export] = MappingProxyType({export.name: export for export in _ALL})


def find_export(name: str) -> Export:
    """Return the format of that name; raise UsageError where there is none."""
    if name not in EXPORTS:
        raise unknown("format", name, list(EXPORTS), "bench export --help shows all")
    return EXPORTS[name]


def as_text(export: Export, run: Run) -> str:
    """Return a run in a format that is text; raise UsageError where the format is none."""
    if export.kind != "text":
        what = "a folder" if export.kind == "folder" else "a binary file"
        raise UsageError(f"--format {export.name} makes {what}: say where to, with --output PATH.")
    made: str = export.make(run)
    return made


def write(export: Export, run: Run, output: Path) -> None:
    """Write a run to a file, or to a folder whose other files stay; raise RecordError where that cannot be.

    Everything is made before anything is written.
    """
    if export.kind == "folder":
        files = {output / inside(path): content for path, content in export.make(run, output).items()}
    else:
        made = export.make(run)
        files = {output: made.encode("utf-8") if isinstance(made, str) else made}
    try:
        for path, content in files.items():
            if export.kind == "folder":
                path.parent.mkdir(parents=True, exist_ok=True)
            store.write_durably(path, content)
    except OSError as error:
        what = "folder" if export.kind == "folder" else "file"
        raise RecordError(
            f"cannot write {output}: {error.strerror or error}. Name another {what} with --output."
        ) from error


def inside(path: str) -> PurePosixPath:
    """Return a path in a folder; raise ValueError for one that leaves it, which no format may make."""
    found = PurePosixPath(path)
    if found.is_absolute() or not found.parts or ".." in found.parts or "\\" in path or "\0" in path:
        raise ValueError(f"{path!r} is no path inside a folder")
    return found
