"""Which rows a run with ranks has, and what is refused before anything is trained."""

from collections.abc import Sequence

import msgspec
import pytest
import ranked as backends_in_ranks
from fakes import ABSENT, STEADY, info

from backends.info import BackendInfo
from bench.errors import UnavailableError, UsageError
from bench.measuring.ranks.rows import (
    NO_SUCH_MODE,
    ranked_cells,
    refuse_what_ranks_exclude,
    timed_workload,
    with_distributed_modes,
)
from bench.measuring.selection import Asked, Available, choose_modes
from bench.workloads.catalog import WORKLOADS, find_workload
from bench.workloads.specs import Cell

RANKED = backends_in_ranks.info()
WORKLOAD = "mnist-softmax"
UNMATCHED = next(one.name for one in WORKLOADS.values() if not one.matched)


def available(*infos: BackendInfo, unavailable: Sequence[str] = ()) -> Available:
    return Available(
        infos={one.name: one for one in infos},
        versions={one.name: {} for one in infos},
        unavailable=dict.fromkeys(unavailable, "not installed"),
    )


def rows(cells: Sequence[Cell]) -> list[tuple[str, int, str]]:
    return [(cell.mode, cell.ranks, cell.scaling) for cell in cells]


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ("strong", [("together", 2, "strong"), ("together", 4, "strong")]),
        ("weak", [("together", 2, "weak"), ("together", 4, "weak")]),
        (
            "both",
            [
                ("together", 2, "strong"), ("together", 4, "strong"),
                ("together", 2, "weak"), ("together", 4, "weak"),
            ],
        ),
    ],
)  # fmt: skip
def test_the_plain_row_comes_first_and_one_rank_has_one_row(
    scaling: str, expected: list[tuple[str, int, str]]
) -> None:
    asked = Asked(workloads=(WORKLOAD,), ranks=(1, 2, 4), scaling=scaling)  # type: ignore[arg-type]
    cells = ranked_cells(asked, available(RANKED), "cpu", plain=True)
    assert rows(cells) == [("plain", 1, "strong"), ("together", 1, "strong"), *expected]
    assert {cell.workload for cell in cells} == {WORKLOAD}
    assert len(set(cells)) == len(cells)
    proven = ranked_cells(asked, available(RANKED), "cpu", plain=False)
    assert proven == cells[1:]


def test_without_rank_1_there_is_the_plain_row_all_the_same() -> None:
    cells = ranked_cells(Asked(workloads=(WORKLOAD,), ranks=(2,)), available(RANKED), "cpu", plain=True)
    assert rows(cells) == [("plain", 1, "strong"), ("together", 2, "strong")]


def test_no_other_run_has_distributed_modes() -> None:
    for asked in ([], ["all"], ["together"], ["default"]):
        assert "together" not in choose_modes(RANKED, asked, "all", "cpu")


def test_ranks_that_cannot_cut_the_batch_are_refused_unless_each_has_a_whole_one() -> None:
    asked = Asked(workloads=(WORKLOAD,), ranks=(3,))
    with pytest.raises(UsageError, match=r"--ranks 3: mnist-softmax has batches of 100 images") as refused:
        ranked_cells(asked, available(RANKED), "cpu", plain=True)
    assert "--scaling weak" in str(refused.value)
    weak = msgspec.structs.replace(asked, scaling="weak")
    assert rows(ranked_cells(weak, available(RANKED), "cpu", plain=True))[-1] == ("together", 3, "weak")


@pytest.mark.parametrize(
    ("workload", "why"),
    [
        (UNMATCHED, "is trained with each framework's own defaults"),
        ("notebook-cifar-cnn", "augments its images"),
    ],
)
def test_work_that_ranks_cannot_be_proven_to_do_is_refused(workload: str, why: str) -> None:
    with pytest.raises(UsageError, match=f"--ranks: {workload} {why}"):
        ranked_cells(Asked(workloads=(workload,), ranks=(2,)), available(RANKED), "cpu", plain=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ranks": (2,), "modes": ("eager",)}, "leave out --mode"),
        ({"ranks": (2,), "sweep": (16, 32)}, "--ranks and --sweep"),
        ({"ranks": (2,), "gpu": 1}, "--gpu 1 chooses one GPU"),
        ({"scaling": "weak"}, "--scaling says how ranks train"),
        ({"devices": (0, 1)}, "--devices says how ranks train"),
    ],
)
def test_options_that_exclude_each_other_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        refuse_what_ranks_exclude(Asked(**changes))  # type: ignore[arg-type]
    refuse_what_ranks_exclude(Asked())
    refuse_what_ranks_exclude(Asked(ranks=(1, 2), scaling="both", devices=(0, 1)))


def test_backends_without_a_distributed_mode_are_named_or_left_out() -> None:
    asked_for = info("asked", "fakes:Steady", on_request=True)
    found = with_distributed_modes(available(RANKED, STEADY, asked_for), "cpu", named=False)
    assert set(found.infos) == {"ranked"}
    assert found.unavailable == {"steady": NO_SUCH_MODE}
    with pytest.raises(UsageError, match=r"--ranks: backend 'steady': it has no mode"):
        with_distributed_modes(available(RANKED, STEADY), "cpu", named=True)


@pytest.mark.parametrize("infos", [(STEADY,), (RANKED,)])
def test_where_no_backend_is_left_the_reasons_are_given(infos: tuple[BackendInfo, ...]) -> None:
    with pytest.raises(UnavailableError, match="--ranks: no backend that several processes can use") as said:
        with_distributed_modes(available(*infos, unavailable=["ranked"]), "cpu", named=False)
    assert "ranked: not installed" in str(said.value)


def test_weak_scaling_gives_each_rank_a_batch() -> None:
    workload = find_workload(WORKLOAD)
    cell = Cell(workload=WORKLOAD, backend="ranked", mode="together", device="cpu", precision="fp32", ranks=4)
    assert timed_workload(workload, cell) == workload
    weak = timed_workload(workload, msgspec.structs.replace(cell, scaling="weak"))
    assert (weak.name, weak.batch_size) == ("mnist-softmax@400", 400)


def test_a_backend_that_is_not_installed_keeps_its_rows() -> None:
    absent = msgspec.structs.replace(RANKED, name=ABSENT.name)
    found = with_distributed_modes(available(RANKED, absent, unavailable=[ABSENT.name]), "cpu", named=False)
    cells = ranked_cells(Asked(workloads=(WORKLOAD,), ranks=(2,)), found, "cpu", plain=True)
    assert {cell.backend for cell in cells} == {"ranked", ABSENT.name}
