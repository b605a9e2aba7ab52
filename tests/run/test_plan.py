"""What a run is to do: budgets, cells, balanced orders, epochs that fit."""

from collections import Counter
from itertools import pairwise, permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.info import BackendInfo, Mode
from bench.analysis.convergence import LONG_ENOUGH
from bench.errors import UsageError
from bench.measuring.design import balanced_order, compiles_anew, windows_asked
from bench.measuring.selection import GROUPS, choose_cells, choose_modes
from bench.options import parse_budget, parse_devices, parse_precision, parse_ranks, parse_sweep
from bench.run.plan import (
    PRESETS,
    SEVERAL_EPOCHS,
    START_GUESS_S,
    find_preset,
    make_plan,
    plan_epochs,
    training_seconds,
)
from bench.workloads.specs import Cell

# ---- presets and budgets


def test_presets_ask_for_ever_more():
    quick, standard, full = (find_preset(name) for name in ("quick", "standard", "full"))
    assert list(PRESETS) == ["quick", "standard", "full"]
    assert quick.budget_s < standard.budget_s < full.budget_s
    assert 3 <= quick.min_blocks < standard.min_blocks < full.min_blocks
    assert (quick.modes, standard.modes, full.modes) == ("default", "all", "all")
    for preset in PRESETS.values():
        assert preset.seeds < preset.min_blocks
        assert preset.windows % 12 == 0, "three or six rows get whole rounds of every order"
        assert preset.windows * preset.window_s >= 2


def test_a_preset_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="unknown preset 'quik'; did you mean 'quick'"):
        find_preset("quik")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("2h", 7200), ("10", 10), ("10s", 10), ("0.5h", 1800), ("168h", 604800)],
)
def test_a_budget_is_read(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "m",
        "9.9s",
        "0h",
        "-5m",
        "169h",
        "nan",
        "nanh",
        "inf",
        "infs",
        "15M",
        "1d",
        "2h30m",
        "ten",
        "5mm",
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(text):
    with pytest.raises(UsageError, match="is not a time from 10s to 168h"):
        parse_budget(text)


@given(st.text(max_size=8))
def test_any_text_is_a_budget_in_range_or_refused(text):
    try:
        seconds = parse_budget(text)
    except UsageError:
        return
    assert 10 <= seconds <= 604800


# ---- cells


def make_info(name: str, *modes: str) -> BackendInfo:
    return BackendInfo(
        name=name,
        title=name,
        target=f"{name}:Class",
        distributions=(),
        modes=tuple(Mode(name=mode, summary=mode, default=mode == modes[0]) for mode in modes),
    )


RED, BLUE = make_info("red", "eager", "compile"), make_info("blue", "jit", "eager", "loop")


def cells(modes: tuple[str, ...] = (), preset_modes: str = "default", named: bool = False, **other):
    found = choose_cells(
        workloads=other.get("workloads", ["w"]),
        backends=other.get("backends", [RED, BLUE]),
        modes=modes,
        preset_modes=preset_modes,
        device="cpu",
        precision="fp32",
        named=named,
    )
    assert all(cell.device == "cpu" and cell.precision == "fp32" for cell in found)
    return [f"{cell.workload} {cell.backend}/{cell.mode}" for cell in found]


@pytest.mark.parametrize(
    ("asked", "preset_modes", "expected"),
    [
        ((), "default", ["jit"]),
        ((), "all", ["jit", "eager", "loop"]),
        (("all",), "default", ["jit", "eager", "loop"]),
        (("loop", "jit"), "all", ["jit", "loop"]),
        (("compile",), "all", []),
    ],
)
def test_the_modes_of_a_backend(asked, preset_modes, expected):
    assert choose_modes(BLUE, asked, preset_modes, "cpu") == expected


def test_a_group_stands_for_its_modes():
    plain = Mode(name="tutorial", summary="plain", level="taught", pipeline=True)
    loader = Mode(name="loader", summary="through a pipeline", pipeline=True)
    info = msgspec.structs.replace(RED, modes=(*RED.modes, plain, loader))
    chosen = {group: choose_modes(info, [group], "all", "cpu") for group in GROUPS}
    assert chosen == {
        "default": ["eager"],
        "taught": ["tutorial"],
        "tuned": ["eager", "compile", "loader"],
        "pipeline": ["loader"],
        "all": ["eager", "compile", "tutorial", "loader"],
    }
    assert choose_modes(info, ["taught", "eager"], "all", "cpu") == ["eager", "tutorial"]


def test_a_mode_runs_only_where_it_can():
    graphs = Mode(name="graphs", summary="of a GPU", devices=("gpu",))
    info = msgspec.structs.replace(RED, modes=(*RED.modes, graphs))
    assert choose_modes(info, ["all"], "default", "cpu") == ["eager", "compile"]
    assert choose_modes(info, ["all"], "default", "gpu") == ["eager", "compile", "graphs"]
    with pytest.raises(UsageError, match="'graphs'") as refused:
        cells(("graphs",), backends=[info, BLUE])
    assert "on the CPU" in str(refused.value)
    assert "eager" in str(refused.value)


def test_cells_are_every_workload_by_every_chosen_mode():
    assert cells(workloads=["v", "w"]) == ["v red/eager", "v blue/jit", "w red/eager", "w blue/jit"]
    assert len(cells(preset_modes="all", workloads=["v", "w"])) == 10
    assert cells(("eager",)) == ["w red/eager", "w blue/eager"]


def test_a_mode_of_one_backend_leaves_the_others_out_unless_they_were_named():
    assert cells(("jit",)) == ["w blue/jit"]
    with pytest.raises(UsageError, match="backend 'red' has no mode jit; it has: eager, compile"):
        cells(("jit",), named=True)


def test_a_mode_for_ranks_is_not_asked_for_by_its_name():
    together = Mode(name="together", summary="", distributed=True)
    info = msgspec.structs.replace(RED, modes=(*RED.modes, together))
    with pytest.raises(UsageError, match="--mode together: several processes train together in that mode"):
        cells(("together",), backends=[info, BLUE])
    assert cells(("all",), backends=[info]) == ["w red/eager", "w red/compile"]


def test_a_mode_of_nobody_is_refused():
    with pytest.raises(UsageError, match="unknown mode 'compiel'; did you mean 'compile'"):
        cells(("compiel",))
    with pytest.raises(UsageError, match="unknown mode 'loop'"):
        cells(("loop",), backends=[RED])


# ---- balanced order


@pytest.mark.parametrize("size", range(2, 8))
def test_a_design_is_balanced_for_place_and_for_what_came_before(size):
    """Williams, 1949: n rows where n is even, 2n where it is odd."""
    rows = size * (1 + size % 2)
    design = [balanced_order(size, block) for block in range(rows)]
    assert all(sorted(row) == list(range(size)) for row in design)
    places = Counter((place, cell) for row in design for place, cell in enumerate(row))
    assert set(places.values()) == {rows // size}
    assert len(places) == size * size
    followers = Counter(pair for row in design for pair in pairwise(row))
    assert followers == dict.fromkeys(permutations(range(size), 2), rows // size)
    assert [balanced_order(size, block) for block in range(rows, 2 * rows)] == design


def test_two_cells_take_turns():
    assert [balanced_order(2, block) for block in range(4)] == [[0, 1], [1, 0], [0, 1], [1, 0]]


def test_one_cell_is_its_own_order():
    assert [balanced_order(1, block) for block in range(3)] == [[0], [0], [0]]


# ---- epochs

SECONDS = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 1e4), min_size=1)
BUDGET, LEAST, EXTRA = st.floats(-100, 1e5), st.integers(1, 5), st.integers(0, 20)


def costs(seconds, start=0.3):
    """Return the time of a training: evaluations before its end cost a part of an epoch."""
    return {name: lambda epochs, each=each: each * (epochs + start) for name, each in seconds.items()}


def planned_epochs(seconds, available, least, most):
    return plan_epochs(costs(seconds), available, least=least, most=most)


@given(SECONDS, BUDGET, LEAST, EXTRA)
def test_epochs_fit_the_budget_and_each_training_is_long_or_none(seconds, available, least, extra):
    epochs = planned_epochs(seconds, available, least, least + extra)
    assert epochs.keys() == seconds.keys()
    assert all(n == 0 or least <= n <= least + extra for n in epochs.values())
    spent = sum(costs(seconds)[name](n) for name, n in epochs.items() if n)
    assert spent <= max(0, available) * (1 + 1e-9)


@given(SECONDS, st.floats(0, 1e5), LEAST, EXTRA)
def test_as_many_workloads_are_trained_as_can_be(seconds, available, least, extra):
    epochs = planned_epochs(seconds, available, least, least + extra)
    trained = sum(n > 0 for n in epochs.values())
    cheapest = sorted(cost(least) for cost in costs(seconds).values())
    assert sum(cheapest[: trained + 1]) > available * (1 - 1e-9) or trained == len(seconds)
    slowest = max((seconds[name] for name, n in epochs.items() if n), default=0.0)
    assert all(seconds[name] >= slowest for name, n in epochs.items() if not n)


@given(SECONDS, st.floats(0, 1e5), LEAST, EXTRA)
def test_time_is_left_only_where_it_buys_no_epoch(seconds, available, least, extra):
    most = least + extra
    epochs = planned_epochs(seconds, available, least, most)
    spent = sum(costs(seconds)[name](n) for name, n in epochs.items() if n)
    for name, n in epochs.items():
        if 0 < n < most:
            assert spent + seconds[name] > available * (1 - 1e-9)


@given(SECONDS, st.floats(0, 1e5), st.floats(0, 1e5), LEAST, EXTRA)
def test_more_time_never_trains_fewer_workloads(seconds, one, other, least, extra):
    less, more = (planned_epochs(seconds, s, least, least + extra) for s in sorted((one, other)))
    assert {name for name, n in less.items() if n} <= {name for name, n in more.items() if n}


@pytest.mark.parametrize(
    ("seconds", "available", "least", "most", "epochs"),
    [
        ({"slow": 100, "quick": 1}, 1000, 1, 10, {"quick": 10, "slow": 9}),
        # The time for a part of a slow training goes to the quick ones.
        ({"slow": 100, "quick": 1, "quicker": 0.5}, 290, 3, 5, {"slow": 0, "quick": 5, "quicker": 5}),
        ({"slow": 100, "quick": 1}, 305, 3, 5, {"slow": 3, "quick": 5}),
        ({"a": 10, "b": 11}, 85, 3, 5, {"a": 4, "b": 4}),
        ({"a": 100}, 299, 3, 5, {"a": 0}),
        ({"a": 100}, 300, 3, 5, {"a": 3}),
        ({"a": 100}, 0, 3, 5, {"a": 0}),
        ({}, 100, 3, 5, {}),
    ],
)
def test_a_few_long_trainings_come_before_many_short_ones(seconds, available, least, most, epochs):
    found = plan_epochs(costs(seconds, start=0), available, least=least, most=most)
    assert found == epochs


def test_the_presets_train_several_epochs_or_none():
    for preset in PRESETS.values():
        assert LONG_ENOUGH < preset.least_epochs == SEVERAL_EPOCHS <= preset.epochs


def test_a_training_takes_the_time_of_its_epochs_and_evaluations():
    # Before the first step, after each tenth of the first epoch, and after each quarter of the second: 15.
    seconds = training_seconds(1000.0, 2, train=6000, test=900, batch_size=100)
    assert seconds == pytest.approx((2 * 6000 + 15 * 300) / 1000)


def test_without_workloads_there_are_no_cells():
    assert Cell(workload="w", backend="b", mode="m", device="cpu", precision="fp32") not in choose_cells(
        workloads=[],
        backends=[RED],
        modes=[],
        preset_modes="all",
        device="cpu",
        precision="fp32",
        named=False,
    )


# ---- precision, sweeps, the plan


@pytest.mark.parametrize(("text", "width"), [("1.5%", 0.015), ("0.015", 0.015), ("5 %", 0.05), ("50%", 0.5)])
def test_a_precision_is_read(text, width):
    assert parse_precision(text) == pytest.approx(width)


@pytest.mark.parametrize("text", ["", "%", "x", "0", "0%", "0.01%", "51%", "-1%", "nan", "inf", "1.5%%"])
def test_a_precision_without_sense_is_refused(text):
    with pytest.raises(UsageError, match=r"write 1\.5% or 0\.015"):
        parse_precision(text)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("batch=16..1024", (16, 32, 64, 128, 256, 512, 1024)),
        ("batch=100..350", (100, 200)),
        ("batch=64..64", (64,)),
        ("batch=512,16,100,16", (16, 100, 512)),
    ],
)
def test_a_sweep_is_read(text, sizes):
    assert parse_sweep(text) == sizes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "batch",
        "batch=",
        "16..64",
        "size=1..2",
        "batch=0..4",
        "batch=64..16",
        "batch=1..",
        "batch=a,b",
        "batch=1.5",
    ],
)
def test_a_sweep_without_sense_is_refused(text):
    with pytest.raises(UsageError, match="sweep"):
        parse_sweep(text)


def test_a_plan_fills_the_budget():
    cells = [cell("mnist-mlp", mode) for mode in ("eager", "compile")]
    plan = planned(cells)
    assert plan.jobs == 10
    assert plan.parity_s + plan.blocks_s + plan.training_s + plan.refining_s == pytest.approx(600)
    assert plan.training_s > 0


def test_a_sweep_trains_nothing_and_proves_parity_once():
    sizes = [cell(f"mnist-mlp@{size}", "eager") for size in (16, 32, 64)]
    plan = planned(sizes)
    one = planned(sizes[:1], seeds=0)
    assert plan.training_s == one.training_s == 0
    assert plan.parity_s == one.parity_s


def test_ranks_take_longer_to_start_on_a_cpu_and_are_proven_each():
    rows = [msgspec.structs.replace(cell("mnist-mlp", "eager"), ranks=ranks) for ranks in (1, 2, 4)]
    one, two, four = (planned([row], seeds=0) for row in rows)
    start = 5 * START_GUESS_S["cpu"]
    assert two.blocks_s - one.blocks_s == pytest.approx(start)
    assert four.blocks_s - one.blocks_s == pytest.approx(3 * start)
    assert planned(rows, seeds=0).parity_s == pytest.approx(7 * one.parity_s)
    weak = [msgspec.structs.replace(row, scaling="weak") for row in rows[1:]]
    assert planned([*rows, *weak], seeds=0).parity_s == planned(rows, seeds=0).parity_s


@pytest.mark.parametrize(("text", "ranks"), [("2", (2,)), ("1,2,4", (1, 2, 4)), ("4,1,4", (1, 4))])
def test_ranks_are_read(text, ranks):
    assert parse_ranks(text) == ranks


@pytest.mark.parametrize("text", ["", "0", "1,", "1;2", "-1", "two", "5000", "\u00b2"])
def test_ranks_without_sense_are_refused(text):
    with pytest.raises(UsageError, match="ranks"):
        parse_ranks(text)


def test_devices_are_read_in_their_order():
    assert parse_devices("3,0") == (3, 0)
    for text in ("", "0,", "GPU-1", "-1"):
        with pytest.raises(UsageError, match="devices"):
            parse_devices(text)


def test_on_a_gpu_a_start_is_thought_to_take_longer():
    on_cpu, on_gpu = (planned([cell("mnist-mlp", "eager", device)]) for device in ("cpu", "gpu"))
    assert on_gpu.blocks_s > 2 * on_cpu.blocks_s
    assert on_gpu.parity_s > on_cpu.parity_s


def test_long_steps_are_planned_for():
    one = [cell("cifar10-cnn", "eager")]
    quick, slow, slower = (planned(one, flops=flops).blocks_s for flops in (1e9, 1.5e10, 3e10))
    assert quick == planned(one, flops=1.0).blocks_s, "steps that fit into a window"
    # Of 40 windows 14 of 0.15 s would take the time meant; half are taken all the same, in 5 blocks.
    start = 5 * START_GUESS_S["cpu"]
    assert slow - start == pytest.approx(5 * 20 * 2 * 0.15)
    assert slower - start == pytest.approx(5 * 20 * 2 * 0.30)


@pytest.mark.parametrize(
    ("stretches", "asked"),
    [([], 60), ([1.0, 1.0], 60), ([1.0, 1.5], 48), ([2.0, 2.0], 30), ([1.0, 9.0], 30), ([8.0], 30)],
)
def test_of_windows_that_last_longer_fewer_are_asked_for(stretches, asked):
    assert windows_asked(60, stretches, 0.5) == asked
    assert windows_asked(60, stretches, 1.0) == 60


def planned(cells, *, flops=1e6, seeds=1):
    return make_plan(
        cells,
        step_flops={cell.workload: flops for cell in cells},
        min_blocks=5,
        windows=40,
        window_s=0.05,
        budget_s=600,
        seeds=seeds,
    )


def cell(workload, mode, device="cpu"):
    return Cell(workload=workload, backend="torch", mode=mode, device=device, precision="fp32")


def test_the_first_three_blocks_compile_anew_and_on_a_gpu_all() -> None:
    assert [compiles_anew("cpu", before) for before in range(5)] == [True, True, True, False, False]
    assert all(compiles_anew("gpu", before) for before in range(30))
