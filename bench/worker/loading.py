"""Import the class of a backend, inside a worker."""

from importlib import import_module
from typing import TYPE_CHECKING

from backends.info import BackendInfo
from bench.errors import ContractError

if TYPE_CHECKING:  # it imports NumPy, which would take a third of the time of `bench list`
    from backends.base import Backend


_METHODS = (
    "load_params",
    "train_steps",
    "predict",
    "export_params",
    "save_state",
    "restore_state",
    "describe",
)


def load_backend(info: BackendInfo) -> "type[Backend]":
    """Import the class of a backend and its framework; raise ContractError if a method is missing."""
    module, _, name = info.target.partition(":")
    found = getattr(import_module(module), name, None)
    if not isinstance(found, type):
        raise ContractError(f"backend {info.name!r}: {info.target} is no class.")
    missing = [method for method in _METHODS if not callable(getattr(found, method, None))]
    if missing:
        raise ContractError(
            f"backend {info.name!r}: {info.target} lacks {', '.join(missing)}. "
            "(backends/base.py is the contract)"
        )
    return found
