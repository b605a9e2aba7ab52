"""Which GPUs CUDA shows to this process, and how to show it a single one.

NVML lists every GPU, in the order of the bus. CUDA shows the GPUs that CUDA_VISIBLE_DEVICES names, in that
order, and counts them by speed unless CUDA_DEVICE_ORDER is PCI_BUS_ID. A UUID means the same GPU to both.
https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias, TypeVar

from bench.errors import UnavailableError, UsageError

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
_BY_BUS = "PCI_BUS_ID"
_MIG_ENABLED = 1
_NAMES_A_GPU = re.compile(r"\s*([0-9]|GPU-|MIG-)")
_SHORT_UUID = re.compile(r"(?:MIG-)?(?:GPU-)?[^-/]*")

_T = TypeVar("_T")


class VisibleGpu(NamedTuple):
    """A GPU, or a MIG slice of one."""

    uuid: str | None
    """None if the driver does not report it."""
    name: str
    handle: Any
    """NVML's handle of the GPU or the slice."""
    parent: Any = None
    """NVML's handle of the GPU that this is a slice of; None for a whole GPU."""

    def in_words(self) -> str:
        return f"{self.name} ({short_uuid(self.uuid)})" if self.uuid else self.name


_Gpus: TypeAlias = list[tuple[VisibleGpu, list[VisibleGpu]]]
"""Every GPU, and what CUDA can show of it: the GPU itself, or its slices in MIG mode."""


def show_one_gpu(wanted: int | str | None = None) -> None:
    """Set CUDA_VISIBLE_DEVICES of this process, which its workers inherit, to a single GPU.

    `wanted` is a number among the GPUs that are visible so far, or a UUID; None: the first. Without NVML, the
    entry of CUDA_VISIBLE_DEVICES is taken as it is written. Raises what `choose_gpu` raises.
    """
    with opened_nvml() as nvml:
        listed = nvml is not None and bool(answer(lambda: _all_gpus(nvml)))
        uuid = choose_gpu(nvml, os.environ, wanted).uuid if listed else None
    os.environ[VISIBLE] = uuid or _as_written(os.environ, wanted)


def show_gpus(wanted: Sequence[int | str], count: int) -> tuple[str, ...]:
    """Set CUDA_VISIBLE_DEVICES of this process to `count` GPUs, and return the entry of each, its UUID.

    `wanted` are numbers among the GPUs that are visible so far, or UUIDs; none: the first ones. Raises
    UnavailableError if there are too few, and what `choose_gpu` raises.
    """
    places = (wanted or range(count))[:count]
    with opened_nvml() as nvml:
        listed = nvml is not None and bool(answer(lambda: _all_gpus(nvml)))
        shown = visible_gpus(nvml, os.environ) if listed else []
        if len(places) < count or (listed and len(shown) < count):
            raise UnavailableError(f"--ranks {count}: {_too_few(shown, wanted)}")
        uuids = [choose_gpu(nvml, os.environ, one, "--devices").uuid if listed else None for one in places]
    found = tuple(
        uuid or _as_written(os.environ, one, "--devices") for uuid, one in zip(uuids, places, strict=True)
    )
    os.environ[VISIBLE] = ",".join(found)
    return found


def _too_few(shown: Sequence[VisibleGpu], wanted: Sequence[int | str]) -> str:
    many = len(wanted) or len(shown)
    gpus = "1 GPU" if many == 1 else f"{many} GPUs"
    found = f"--devices names {gpus}" if wanted else f"there {'is' if many == 1 else 'are'} {gpus} here"
    return f"{found}, and every rank needs its own."


def list_gpus() -> list[str]:
    """Return the visible GPUs and MIG slices in words, in the order of `--gpu`; none without NVML."""
    with opened_nvml() as nvml:
        found = None if nvml is None else answer(lambda: visible_gpus(nvml, os.environ))
        return [f"{one.name}, {one.uuid or 'without a UUID'}" for one in found or []]


def are_hidden(variables: Mapping[str, str]) -> bool:
    """Whether CUDA_VISIBLE_DEVICES hides every GPU: it is empty, or begins with what names none."""
    return VISIBLE in variables and not _NAMES_A_GPU.match(variables[VISIBLE])


def choose_gpu(
    nvml: Any, variables: Mapping[str, str], wanted: int | str | None = None, option: str = "--gpu"
) -> VisibleGpu:
    """Return the visible GPU or MIG slice with this number, from 0, or this UUID; None: the first.

    `option` is what the user has named it with.
    Raises UsageError if there is no such number, or if it is uncertain which GPU the variables name, and
    UnavailableError if no GPU is visible or none has the UUID.
    """
    shown = visible_gpus(nvml, variables)
    if not shown:
        raise UnavailableError(_why_none(nvml, variables))
    numbered = ", ".join(f"{number} {one.in_words()}" for number, one in enumerate(shown))
    if isinstance(wanted, str):
        found = next((one for one in shown if one.uuid == wanted), None)
        if found is None:
            raise UnavailableError(f"GPU {wanted} is not visible here; these are: {numbered}.")
        return found
    _refuse_unknown_order(nvml, variables, wanted)
    if wanted is not None and wanted >= len(shown):
        raise UsageError(f"{option} {wanted}: there is no such GPU; these are visible: {numbered}.")
    return shown[wanted or 0]


def visible_gpus(nvml: Any, variables: Mapping[str, str]) -> list[VisibleGpu]:
    """Return the GPUs that CUDA shows with these variables; a GPU in MIG mode is replaced by its slices.

    As in CUDA, an entry that names no GPU ends the list.
    """
    gpus = _all_gpus(nvml)
    if VISIBLE not in variables:
        return [one for _, parts in gpus for one in parts]
    shown: list[VisibleGpu] = []
    for entry in variables[VISIBLE].split(","):
        parts = _named(nvml, gpus, entry.strip())
        if parts is None:
            break
        shown += parts
    return shown


def short_uuid(uuid: str) -> str:
    """Return the first part of a UUID, which tells the GPUs of a machine apart: `GPU-8932f937`."""
    match = _SHORT_UUID.match(uuid)
    return match[0] if match else uuid


def _all_gpus(nvml: Any) -> _Gpus:
    gpus = []
    for index in range(nvml.nvmlDeviceGetCount()):
        gpu = _describe(nvml, nvml.nvmlDeviceGetHandleByIndex(index))
        gpus.append((gpu, _slices(nvml, gpu) if _is_in_mig_mode(nvml, gpu) else [gpu]))
    return gpus


def _is_in_mig_mode(nvml: Any, gpu: VisibleGpu) -> bool:
    return answer(lambda: nvml.nvmlDeviceGetMigMode(gpu.handle)[0]) == _MIG_ENABLED


def _slices(nvml: Any, gpu: VisibleGpu) -> list[VisibleGpu]:
    most = answer(lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(gpu.handle)) or 0
    handles = [_slice_handle(nvml, gpu, place) for place in range(most)]
    return [_describe(nvml, handle, gpu) for handle in handles if handle is not None]


def _slice_handle(nvml: Any, gpu: VisibleGpu, place: int) -> Any:
    return answer(lambda: nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu.handle, place))  # places may be empty


def _describe(nvml: Any, handle: Any, parent: VisibleGpu | None = None) -> VisibleGpu:
    uuid = answer(lambda: nvml.nvmlDeviceGetUUID(handle))
    name = answer(lambda: nvml.nvmlDeviceGetName(handle))
    unnamed = f"MIG slice of {parent.name}" if parent else "GPU without a name"
    return VisibleGpu(
        uuid=None if uuid is None else as_text(uuid),
        name=unnamed if name is None else as_text(name),
        handle=handle,
        parent=None if parent is None else parent.handle,
    )


def _named(nvml: Any, gpus: _Gpus, entry: str) -> list[VisibleGpu] | None:
    """Return what an entry of CUDA_VISIBLE_DEVICES shows; None if it names no GPU."""
    if entry.startswith("MIG-"):
        slices = [one for _, parts in gpus for one in parts if (one.uuid or "").startswith(entry)]
        return slices if len(slices) == 1 else _slice_by_name(nvml, entry)
    if entry.startswith("GPU-"):
        found = [parts for gpu, parts in gpus if (gpu.uuid or "").startswith(entry)]
        return found[0] if len(found) == 1 else None
    number = int(entry) if entry.isascii() and entry.isdecimal() else len(gpus)
    return gpus[number][1] if number < len(gpus) else None


def _slice_by_name(nvml: Any, entry: str) -> list[VisibleGpu] | None:
    """Return the slice that the driver knows by another name than its UUID, such as MIG-GPU-UUID/1/0."""
    handle = answer(lambda: nvml.nvmlDeviceGetHandleByUUID(entry))
    if handle is None:
        return None
    parent = answer(lambda: nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle))
    whole = None if parent is None else _describe(nvml, parent)
    return [_describe(nvml, handle, whole)._replace(uuid=entry)]


def _refuse_unknown_order(nvml: Any, variables: Mapping[str, str], wanted: int | None) -> None:
    """Raise UsageError if CUDA may count the GPUs in another order than NVML, as it does if they differ."""
    named = variables.get(VISIBLE)
    by_uuid = named is not None and named.strip().startswith(("GPU-", "MIG-"))
    counted_by_us = named is None and wanted is not None
    kinds = [gpu.name for gpu, _ in _all_gpus(nvml)]
    if by_uuid or counted_by_us or len(set(kinds)) == 1 or variables.get(ORDER) == _BY_BUS:
        return
    numbered = ", ".join(f"{number} {name}" for number, name in enumerate(kinds))
    if named is None:
        raise UsageError(f"there are different GPUs here: {numbered}. Choose one with --gpu N.")
    raise UsageError(
        f"{VISIBLE}={named} is ambiguous, as there are different GPUs here: {numbered}. CUDA counts the "
        f"fastest first. Set {ORDER}={_BY_BUS} to count as above, or give UUIDs (nvidia-smi -L)."
    )


def _why_none(nvml: Any, variables: Mapping[str, str]) -> str:
    bare = [gpu.in_words() for gpu, parts in _all_gpus(nvml) if not parts]
    if bare:
        return (
            f"MIG is enabled on {', '.join(bare)}, and no slice is visible to this user. Create one "
            "(nvidia-smi mig -cgi PROFILE -C), or disable MIG (nvidia-smi -mig 0)."
        )
    return f"{VISIBLE}={variables.get(VISIBLE, '')!r} shows none of the GPUs here; nvidia-smi -L lists them."


def _as_written(variables: Mapping[str, str], wanted: int | str | None, option: str = "--gpu") -> str:
    """Return the entry of CUDA_VISIBLE_DEVICES for a GPU, without asking NVML."""
    if isinstance(wanted, str):
        return wanted
    place = wanted or 0
    if VISIBLE not in variables:
        return str(place)
    entries = [entry.strip() for entry in variables[VISIBLE].split(",")]
    if place >= len(entries) or not _NAMES_A_GPU.match(entries[place]):
        raise UsageError(
            f"{VISIBLE}={variables[VISIBLE]!r} has no entry number {place} that names a GPU; "
            f"unset it, or choose another with {option} N."
        )
    return entries[place]


def open_nvml() -> Any:
    """Return the initialized module `pynvml`, which must be shut down; None without a usable driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no module, no library, no driver, or versions that do not fit together
        return None
    return pynvml


@contextmanager
def opened_nvml() -> Iterator[Any]:
    """Yield what `open_nvml` returns, and shut it down in the end."""
    nvml = open_nvml()
    try:
        yield nvml
    finally:
        if nvml is not None:
            answer(nvml.nvmlShutdown)


def answer(call: Callable[[], _T]) -> _T | None:
    """Return what a function of NVML returns; None if the driver or the module has no answer."""
    try:
        return call()
    except Exception:  # NVMLError, or AttributeError if the module is too old to have the function
        return None


def as_text(name: str | bytes) -> str:
    """Return a text of NVML; versions of its module before 11.515 return bytes."""
    return name.decode() if isinstance(name, bytes) else name
