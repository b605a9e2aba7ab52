"""Time series: which values are in which, in which order, and what is excluded."""

import random

import msgspec
import pytest
from histories import BOX, make_entry, make_figures, make_history, make_run_of
from hypothesis import given
from hypothesis import strategies as st
from synthetic import make_cell

from bench.history.entries import History, entry_of
from bench.history.time_series import by_machine, time_series


def test_a_time_series_has_one_machine_cell_and_mark() -> None:
    entries = [
        make_entry(0),
        make_entry(1, machine=msgspec.structs.replace(BOX, key="2")),
        make_entry(2, mark="made on the small sample"),
        make_entry(3, [make_figures(cell=make_cell(mode="compile"))]),
        make_entry(4, [make_figures(cell=make_cell(precision="bf16"))]),
        make_entry(5, [make_figures(cell=make_cell(device="gpu"))]),
        make_entry(6, [make_figures(cell=make_cell("mnist-mlp"))]),
        make_entry(7),
    ]
    found = time_series(History(entries=tuple(entries)), "speed")
    days = {tuple(int(point.entry.run_id[-1]) for point in one.points) for one in found}
    assert days == {(0, 7), (1,), (2,), (3,), (4,), (5,), (6,)}


def test_runs_on_a_sample_and_on_limited_data_are_marked_and_apart() -> None:
    runs = [
        make_run_of("full"),
        make_run_of("sample", day=1, sample=True),
        make_run_of("few", day=2, dataset_limit=500),
    ]
    found = by_machine(History(entries=tuple(entry_of(run) for run in runs)), "speed")
    assert [one.mark and one.mark.partition(".")[0] for one in found] == [
        None,
        "Limited to the first 500 images of each split",
        "Made on the small sample that comes with the program",
    ]


def test_accuracies_after_other_epochs_are_apart_and_speeds_are_not() -> None:
    entries = tuple(
        make_entry(day, [make_figures(epochs=epochs)]) for day, epochs in enumerate((3.0, 1.0, 3.0))
    )
    history = History(entries=entries)
    assert [(one.epochs, len(one.points)) for one in time_series(history, "accuracy")] == [(1.0, 1), (3.0, 2)]
    assert [(one.epochs, len(one.points)) for one in time_series(history, "speed")] == [(None, 3)]


def test_memory_on_a_gpu_is_the_gpus() -> None:
    cell = make_cell(device="gpu")
    known, unknown = make_figures(cell=cell, peak_device_bytes=5), make_figures(cell=cell)
    history = History(entries=(make_entry(0, [known]), make_entry(1, [unknown])))
    (one,) = time_series(history, "memory")
    assert [point.value for point in one.points] == [5.0]


def test_what_was_not_measured_is_no_value_and_nor_is_zero() -> None:
    history = History(entries=(make_entry(0, [make_figures(None, test_accuracy=0.0, first_step_s=None)]),))
    assert [time_series(history, metric) for metric in ("speed", "accuracy", "first-step")] == [()] * 3


def test_values_of_rows_that_lack_what_a_ranking_needs_are_excluded() -> None:
    lacking = make_figures(500.0, ranked=False, counts=False, why_not="1 of the 3 blocks it needs")
    history = History(entries=(make_entry(0), make_entry(1, [lacking]), make_entry(2)))
    (one,) = time_series(history, "speed")
    assert [point.value for point in one.points] == [1000.0, 1000.0]
    assert [point.value for point in one.excluded] == [500.0]
    assert one.change == pytest.approx(1)


@pytest.mark.parametrize(
    ("rates", "change"),
    [([1000.0, 9000.0, 1010.0, 990.0, 1100.0], 1100 / (1000 * 1010) ** 0.5), ([1000.0], None)],
)
def test_a_change_is_against_the_median_of_all_before(rates: list[float], change: float | None) -> None:
    (one,) = time_series(make_history(rates), "speed")
    assert one.change == (None if change is None else pytest.approx(change))


@given(seed=st.integers(0, 1000))
def test_series_come_machine_by_machine_and_workload_by_workload(seed: int) -> None:
    drawn = random.Random(seed)  # noqa: S311
    entries = []
    for day in range(6):
        cells = [make_cell(f"w{place}", mode=mode) for place in range(3) for mode in ("eager", "compile")]
        machine = msgspec.structs.replace(BOX, key=str(drawn.randrange(3)))
        chosen = drawn.sample(cells, drawn.randint(1, 6))
        entries.append(make_entry(day, [make_figures(cell=cell) for cell in chosen], machine=machine))
    series = time_series(History(entries=tuple(entries)), "speed")
    found = [(one.machine.key, one.cell.workload) for one in series]
    assert len(dict.fromkeys(found)) == sum(a != b for a, b in zip([None, *found], found, strict=False))
