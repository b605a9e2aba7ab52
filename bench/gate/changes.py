"""Find what differs between two sides beside their figures: versions, threads, variables, code, workloads."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from bench.analysis.notices import run_mark
from bench.gate.records import Ab
from bench.gate.sides import SideName
from bench.machine.environment import Environment
from bench.records.runs import Run
from bench.records.schema import BackendHere, JobRecord
from bench.workloads.specs import Workload

Facts = Mapping[str, str]
"""Facts in words, by their names."""

NONE = "none"
_EMPTY = "''"
_CHANGED = " with changes"
_ALWAYS = ("threads",)
"""Facts that are shown even if they are the same, because a reader asks for them first."""
_OF_ONE_JOB = ("peak_device_bytes", "energy_meter")
"""What a backend reports about a single job, and not about its set-up."""
_COMMIT = "commit"
_SHORT_COMMIT = 10


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """One fact on both sides."""

    what: str
    base: str
    head: str

    @property
    def differs(self) -> bool:
        return self.base != self.head

    def in_words(self) -> str:
        return f"{self.what} {self.base or _EMPTY} \N{RIGHTWARDS ARROW} {self.head or _EMPTY}"


def environment_changes(base: Run, head: Run) -> tuple[Changed, ...]:
    """Return what differs between two runs, and the threads of every backend.

    A workload that only one of them has is left out: its cells are missing, and that is reported.
    """
    shared = {workload.name for workload in base.header.workloads} & {
        workload.name for workload in head.header.workloads
    }
    return changes(_facts_of_run(base, shared), _facts_of_run(head, shared))


def data_change(base: Run, head: Run) -> Changed | None:
    """Return the data that two runs used if they differ; None if they are the same."""
    one, other = (_data(run) for run in (base, head))
    return None if one == other else Changed(what="data", base=one, head=other)


def work_changes(base: Iterable[Workload], head: Iterable[Workload]) -> dict[str, tuple[Changed, ...]]:
    """Return, for each workload that both sides have, the differences that change its work.

    The target accuracy is not one of them: training does not depend on it.
    """
    sides = [{workload.name: workload for workload in side} for side in (base, head)]
    found = {
        name: tuple(
            one
            for one in changes(*(_facts_of_workload(side[name]) for side in sides))
            if one.differs and one.what != "target_accuracy"
        )
        for name in sides[0]
        if name in sides[1]
    }
    return {name: differing for name, differing in found.items() if differing}


def machine_changes(base: Environment, head: Environment) -> tuple[Changed, ...]:
    """Return the differences that make it another machine."""
    facts = [machine_facts(one) for one in (base, head)]
    return changes(*({name: one[name] for name in ("host", "machine", "driver")} for one in facts))


def side_changes(ab: Ab) -> tuple[Changed, ...]:
    """Return what differs between the sides of a comparison, and the threads of every backend."""
    return changes(*(_facts_of_side(ab, name) for name in ("base", "head")))


def changes(base: Facts, head: Facts) -> tuple[Changed, ...]:
    """Return every fact that differs, and those that are always shown, in the order of the sides' facts.

    Changed code is reported even if both sides have changes, since they may differ.
    """
    return tuple(
        one
        for name in dict.fromkeys([*base, *head])
        for one in [Changed(what=name, base=base.get(name, NONE), head=head.get(name, NONE))]
        if base.get(name) != head.get(name)
        or (name.endswith(_ALWAYS) and one.base != NONE)
        or (name == _COMMIT and one.base.endswith(_CHANGED))
    )


def _facts_of_run(run: Run, workloads: Collection[str]) -> Facts:
    header = run.header
    return {
        **machine_facts(header.environment),
        **code_facts(header.environment.version, header.environment.commit, dirty=header.environment.dirty),
        **variable_facts(header.environment.variables),
        **backend_facts(header.backends, run.jobs),
        **workload_facts(one for one in header.workloads if one.name in workloads),
        "data": _data(run),
    }


def _facts_of_side(ab: Ab, name: SideName) -> Facts:
    side = ab.header.side(name)
    return {
        **code_facts(ab.header.environment.version, side.commit, dirty=side.dirty),
        **variable_facts(side.variables),
        **backend_facts(side.backends, [block.job(name) for block in ab.blocks]),
        **workload_facts(side.workloads),
    }


def _data(run: Run) -> str:
    return run_mark(run.header) or "all"


def machine_facts(environment: Environment) -> Facts:
    return {
        "host": environment.hostname,
        "machine": environment.in_words(),
        "system": environment.system,
        "driver": environment.gpu_driver or NONE,
        "GPU": environment.gpu.details() if environment.gpu else NONE,
        "Python of the harness": environment.python,
    }


def code_facts(version: str, commit: str | None, *, dirty: bool | None) -> Facts:
    """Return the version and commit of the code, and whether it has uncommitted changes."""
    changed = _CHANGED if dirty else ""
    return {"samework": version, _COMMIT: (commit[:_SHORT_COMMIT] if commit else NONE) + changed}


def variable_facts(variables: Mapping[str, str]) -> Facts:
    return {f"${name}": value for name, value in variables.items()}


def backend_facts(backends: Iterable[BackendHere], jobs: Sequence[JobRecord]) -> Facts:
    """Return the versions of every backend, and all facts that its jobs report.

    Modes report different values, and the jobs of a block come in any order, so every value of a fact is
    listed.
    """
    facts: dict[str, str] = {}
    for backend in backends:
        facts |= {f"{backend.title}: {name}": version for name, version in backend.versions.items()}
        said: dict[str, set[str]] = {}
        for job in jobs:
            if job.spec.cell.backend == backend.name:
                for name, value in job.described.items():
                    said.setdefault(name, set()).update([] if value is None else [str(value)])
        for name, values in said.items():
            if name not in _OF_ONE_JOB and name not in backend.versions:
                facts[f"{backend.title}: {name}"] = ", ".join(sorted(values)) or NONE
    return facts


def workload_facts(workloads: Iterable[Workload]) -> Facts:
    """Return every part of every workload by its path, such as `mnist-mlp: optimizer.learning_rate`."""
    return {
        f"{workload.name}: {path}": value
        for workload in workloads
        for path, value in _facts_of_workload(workload).items()
    }


def _facts_of_workload(workload: Workload) -> Facts:
    return {path: value for path, value in _flat("", msgspec.to_builtins(workload)) if path != "name"}


def _flat(path: str, value: object) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _flat(f"{path}.{name}" if path else str(name), part)
    else:
        yield path, NONE if value is None else str(value)
