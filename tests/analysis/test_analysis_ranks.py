"""What the records say of ranks: which modes are distributed, and whether each rank had its own device."""

import msgspec
import pytest
from synthetic import make_cell, make_header, make_job, make_ranks, scaling_run

from bench.analysis.ranks import NOT_TOLD, distributed_modes, shared_device
from bench.analysis.summary import CellSummary, summarise
from bench.records.runs import Run
from bench.records.schema import RankRecord

PLAIN = make_cell()
TWO = make_cell(mode="ddp", ranks=2)


def rank(number: int, device: str, host: str = "box") -> RankRecord:
    return RankRecord(rank=number, host=host, device=device, status="ok")


def test_a_mode_with_several_ranks_is_distributed():
    assert distributed_modes(scaling_run({"torch": {1: 1.0, 2: 1.8}}).header) == {("torch", "ddp")}


def test_where_one_rank_alone_was_asked_for_every_mode_but_the_default_is_distributed():
    header = make_header([PLAIN, make_cell(mode="ddp")], ranks=(1,))
    assert distributed_modes(header) == {("torch", "ddp")}


def test_a_run_without_ranks_has_no_distributed_mode():
    assert distributed_modes(make_header([PLAIN, make_cell(mode="compile")])) == frozenset()


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (("CPU 0", "CPU 1"), None),
        (("CPU 1", "CPU 1"), "ranks 0 and 1 shared CPU 1 of box"),
        (("CPU 0-3", "CPU 2"), "ranks 0 and 1 shared CPU 0-3 of box"),
        (("CPU 0,2", "CPU 1,3"), None),
        (("CPU 0,2", "CPU 1-2"), "ranks 0 and 1 shared CPU 0,2 of box"),
        (("GPU-a", "GPU-b"), None),
        (("GPU-a", "GPU-a"), "ranks 0 and 1 shared GPU GPU-a of box"),
        (("CPU", "CPU 1"), NOT_TOLD),
        (("", "GPU-a"), NOT_TOLD),
        (("CPU 0",), NOT_TOLD),
        ((), NOT_TOLD),
    ],
)
def test_ranks_that_share_a_device_are_named(devices, said):
    job = make_job(TWO, ranks=tuple(rank(number, device) for number, device in enumerate(devices)))
    assert shared_device([job]) == said


def test_equal_devices_of_two_hosts_are_two_devices():
    job = make_job(TWO, ranks=(rank(0, "CPU 0", "a"), rank(1, "CPU 0", "b")))
    assert shared_device([job]) is None


def test_one_rank_shares_with_nobody():
    assert shared_device([make_job(PLAIN)]) is None


def row_of(run: Run) -> CellSummary:
    return next(row for row in summarise(run).cells if row.ranks == 2)


def test_a_row_whose_ranks_shared_a_core_is_never_ranked():
    run = scaling_run({"torch": {2: 1.8}})
    assert row_of(run).ranked
    records = [
        msgspec.structs.replace(one, ranks=make_ranks(one.spec.cell, shared=True))
        if getattr(one, "spec", None) and one.spec.cell.ranks > 1 and one.spec.block == 2
        else one
        for one in run.records
    ]
    row = row_of(msgspec.structs.replace(run, records=tuple(records)))
    assert not row.ranked
    assert row.why_not == "ranks 0 and 1 shared CPU 0 of box"
    assert row.samples_per_s is not None
