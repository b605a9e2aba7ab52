"""Distributed modes: several ranks train as one, in every framework, and a wrong engine is caught.

All checks of a framework run in the same processes, one for each rank, because importing a framework takes
longer than any check.
"""

from collections.abc import Callable
from typing import Any

import pytest
from conftest import INFOS, kept_compiled
from distributed_checks import CHECKS, NETWORKS, PARITY, write_measured
from distributed_twins import TWINS
from ranks_kit import in_ranks

from backends.runners import load_runner
from bench.errors import UnavailableError

pytestmark = [pytest.mark.alone, pytest.mark.long]

DISTRIBUTED = [
    pytest.param(name, marks=pytest.mark.framework(name)) for name in ("torch", "jax", "tensorflow")
]
CASES = [(2, name) for name in CHECKS] + [(4, name) for name in PARITY]
LIMIT_S = 600.0

Found = Callable[[str, int], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Return a function from a backend and a number of ranks to what each of them found."""
    traces, compiled = tmp_path_factory.mktemp("traces"), kept_compiled(request.config)
    for name in NETWORKS:
        write_measured(name, traces)
    kept: dict[tuple[str, int], list[dict[str, Any]] | AssertionError] = {}

    def run(backend: str, ranks: int) -> list[dict[str, Any]]:
        if (backend, ranks) not in kept:
            argument = {
                "backend": backend,
                "traces": str(traces),
                "checks": [name for number, name in CASES if number == ranks],
                "twins": list(TWINS) if ranks == 2 else [],
            }
            try:
                kept[backend, ranks] = in_ranks(
                    INFOS[backend], "distributed_checks:run", argument, ranks,
                    limit_s=LIMIT_S, compiled=compiled,
                )  # fmt: skip
            except AssertionError as died:  # do not start them again for every check
                kept[backend, ranks] = died
        result = kept[backend, ranks]
        if isinstance(result, AssertionError):
            raise result
        return result

    return run


@pytest.mark.parametrize(("ranks", "check"), CASES)
@pytest.mark.parametrize("backend", DISTRIBUTED)
def test_ranks_train_as_one(backend: str, ranks: int, check: str, found: Found) -> None:
    of_ranks = [one["checked"][check] for one in found(backend, ranks)]
    for rank, one in enumerate(of_ranks):
        assert one["wrong"] is None, f"{backend}, rank {rank} of {ranks}: {one['wrong']}"
    assert len({one["digest"] for one in of_ranks}) == 1, f"{backend}: {ranks} ranks end with other bits"


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("backend", DISTRIBUTED)
def test_a_wrong_engine_is_caught(backend: str, twin: str, found: Found) -> None:
    caught = [one["twins"][twin] for one in found(backend, 2)]
    assert all(caught), f"{backend}: parity finds nothing wrong with {twin} in ranks: {caught}"


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_a_distributed_mode_without_ranks_says_how_to_ask_for_them(backend: str) -> None:
    mode = next(mode.name for mode in INFOS[backend].modes if mode.distributed)
    with pytest.raises(UnavailableError, match=f"mode {mode} of .* trains in ranks; ask .* with --ranks"):
        load_runner(INFOS[backend], mode)
