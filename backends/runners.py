"""Runners: from a mode to the class that trains in it. `backends.catalog` names the class of each mode.

A backend holds what all its modes share: the network, its parameters, the optimizer, evaluation. A runner
holds the training programs of one mode.
"""

import os
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from backends.info import BackendInfo
from bench.errors import UnavailableError
from bench.workloads.ranks import Place
from bench.workloads.specs import Device


class Runner(Protocol):
    """Trains the network of a backend in one mode."""

    call_steps: int
    """As in `Backend`."""

    def __init__(self, backend: Any) -> None:
        """Build the programs of this mode and no others; raise UnavailableError if it cannot run here."""

    def train(self, order: npt.NDArray[np.int32], draws: npt.NDArray[np.float32] | None) -> Any:
        """Train one step for each row of `order` as `Backend.train_steps` does; return the loss of each step.

        The losses, (steps,), may be an array of the framework: the backend waits for the last update and
        converts them.
        """


class DistributedRunner(Runner, Protocol):
    """Trains as one of several processes, by the framework's own engine; it reads `backend.place`."""

    @staticmethod
    def join(place: Place, device: Device) -> None:
        """Start the engine in this process, and wait for the other ranks; later calls do nothing.

        A backend calls it before it uses the framework otherwise: an engine decides what a device is.
        """

    def longest(self, seconds: float) -> float:
        """Do what `backends.base.Distributed` says."""


def name_interface(place: Place, *variables: str) -> None:
    """Set the variables that name the network interface to a library of collectives, if the place has one."""
    if place.interface is not None:
        os.environ.update(dict.fromkeys(variables, place.interface))


def load_runner(info: BackendInfo, mode: str, place: Place | None = None) -> Any:
    """Import the class that trains in a mode: a `Runner`, or a `DistributedRunner` for a place.

    Raise UnavailableError if the backend has no such mode, if a package that only this mode needs is missing,
    or if a distributed mode has no place among ranks.
    """
    found = next((one for one in info.modes if one.name == mode), None)
    if found is None or found.runner is None:
        known = ", ".join(one.name for one in info.modes)
        raise UnavailableError(f"{info.title} has no mode {mode!r}; it has {known}")
    if found.distributed and place is None:
        raise UnavailableError(f"mode {mode} of {info.title} trains in ranks; ask for some with --ranks")
    module, _, name = found.runner.partition(":")
    try:
        runner = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise UnavailableError(f"mode {mode} needs the package {error.name}: {error}") from error
    return runner
