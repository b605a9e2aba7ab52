"""The rows of a run with ranks: which there are, and that the ranks can share the work equally."""

from collections.abc import Sequence

import msgspec

from backends.info import BackendInfo
from bench.errors import UnavailableError, UsageError
from bench.measuring.selection import Asked, Available, chosen_workloads
from bench.workloads.catalog import swept
from bench.workloads.ranks import Scaling
from bench.workloads.specs import Cell, Device, Workload

NO_SUCH_MODE = "it has no mode in which several processes train together."


def refuse_what_ranks_exclude(asked: Asked) -> None:
    """Raise UsageError for what makes no sense beside `--ranks`, or makes sense only beside it."""
    if not asked.ranks:
        for option, given in (("--scaling", asked.scaling != "strong"), ("--devices", bool(asked.devices))):
            if given:
                raise UsageError(f"{option} says how ranks train: name their numbers, such as --ranks 1,2,4.")
        return
    if asked.modes:
        raise UsageError(
            "--ranks chooses the modes, the default one and the distributed one: leave out --mode."
        )
    if asked.sweep:
        raise UsageError("--ranks and --sweep both change the batch of a process: leave out one of them.")
    if asked.gpu is not None:
        raise UsageError(
            f"--gpu {asked.gpu} chooses one GPU for all: name those of the ranks with --devices."
        )


def with_distributed_modes(available: Available, device: Device, *, named: bool) -> Available:
    """Return the backends that have a distributed mode on the device, and the reason for the others.

    No reason is given for those that are measured only if they are named. Raises UsageError if one was named
    that has none, and UnavailableError if none is left.
    """
    without = [name for name, info in available.infos.items() if not distributed_modes(info, device)]
    if named and without:
        raise UsageError(f"--ranks: backend {without[0]!r}: {NO_SUCH_MODE}")
    infos = {name: info for name, info in available.infos.items() if name not in without}
    if not infos.keys() - available.unavailable.keys():
        found = "; ".join(f"{name}: {reason}" for name, reason in available.unavailable.items())
        raise UnavailableError(f"--ranks: no backend that several processes can use runs here. {found}")
    unasked = {name for name, info in available.infos.items() if info.reference or info.on_request}
    reasons = {name: NO_SUCH_MODE for name in without if name not in unasked}
    return Available(
        infos=infos,
        versions={name: available.versions[name] for name in infos},
        unavailable={**reasons, **available.unavailable},
    )


def ranked_cells(asked: Asked, available: Available, device: Device, *, plain: bool) -> tuple[Cell, ...]:
    """Return the cells of a run with ranks, those of each workload and backend together.

    With `plain`, the default mode in one process comes first: what the distributed rows are compared with.
    Then comes the distributed mode with each number of ranks; where that is one, both kinds of scaling are
    the same row. Raises UsageError for a workload that the ranks cannot train equally.
    """
    cells = []
    for workload in map(_trained_by_ranks, chosen_workloads(asked)):
        rows = _rows(workload, asked.ranks, _kinds(asked))
        for info in available.infos.values():
            own = Cell(
                workload=workload.name,
                backend=info.name,
                mode=info.default_mode,
                device=device,
                precision=asked.precision,
            )
            cells += [own] if plain else []
            cells += [
                msgspec.structs.replace(own, mode=mode, ranks=ranks, scaling=scaling)
                for mode in distributed_modes(info, device)
                for ranks, scaling in rows
            ]
    return tuple(cells)


def distributed_modes(info: BackendInfo, device: Device) -> list[str]:
    """Return the modes of a backend in which several processes can train together on the device."""
    return [mode.name for mode in info.modes if mode.distributed and device in mode.devices]


def timed_workload(workload: Workload, cell: Cell) -> Workload:
    """Return what all ranks of a cell train together: in weak scaling, a batch for each of them."""
    return swept(workload, workload.batch_size * cell.ranks) if cell.scaling == "weak" else workload


def _kinds(asked: Asked) -> tuple[Scaling, ...]:
    return ("strong", "weak") if asked.scaling == "both" else (asked.scaling,)


def _rows(workload: Workload, ranks: Sequence[int], kinds: Sequence[Scaling]) -> list[tuple[int, Scaling]]:
    """Return the rows of the distributed mode; raise UsageError if ranks cannot cut the batch equally."""
    if "strong" in kinds:
        for count in ranks:
            if workload.batch_size % count:
                raise UsageError(
                    f"--ranks {count}: {workload.name} has batches of {workload.batch_size} images, which "
                    f"{count} ranks cannot cut into equal parts. --scaling weak gives each rank a whole one."
                )
    alone: list[tuple[int, Scaling]] = [(1, "strong")] if 1 in ranks else []
    return [*alone, *((count, kind) for kind in kinds for count in ranks if count > 1)]


def _trained_by_ranks(workload: Workload) -> Workload:
    """Return the workload; raise UsageError if it is none that ranks can train and that can be proven."""
    if workload.augmentation is not None:
        raise UsageError(f"--ranks: {workload.name} augments its images, which no distributed mode does.")
    if not workload.matched:
        raise UsageError(
            f"--ranks: {workload.name} is trained with each framework's own defaults, so it cannot be proven "
            "that its ranks compute what one process computes."
        )
    return workload
