"""What two runs differ in beside their figures: every difference is named, and nothing else."""

import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import make_workload
from two_runs import OTHER, make_jobs, make_side

from bench.gate.changes import (
    Changed,
    changes,
    data_change,
    environment_changes,
    machine_changes,
    work_changes,
)
from bench.machine.gpu import GpuInUse
from bench.workloads.specs import Architecture, ConvBlock, Initialiser, OptimizerSpec

ARROW = "\N{RIGHTWARDS ARROW}"
HERE = "Example CPU @ 2.60GHz, 16 CPUs, 64 GiB, no GPU"
THERE = "Other, 16 CPUs, 64 GiB, no GPU"
GPU = GpuInUse(name="H100", uuid="GPU-1-a", compute_mode="default")
ON_GPU = "Example CPU @ 2.60GHz, 16 CPUs, 64 GiB, H100 (GPU-1)"
CLEAN = {"dirty": False}
PLAIN = make_side(make_jobs(), environment=CLEAN)


def told(base, head) -> list[str]:
    return [one.in_words() for one in environment_changes(base, head)]


def with_versions(**versions: str):
    run = make_side(make_jobs(described={"torch": "x", "threads": 2}), environment=CLEAN)
    backend = msgspec.structs.replace(run.header.backends[0], versions=versions)
    return msgspec.structs.replace(run, header=msgspec.structs.replace(run.header, backends=(backend,)))


def test_equal_runs_differ_in_nothing():
    assert told(PLAIN, PLAIN) == []


def test_versions_are_told_where_they_differ_and_threads_always():
    assert told(with_versions(torch="2.13.0", numpy="2.1"), with_versions(torch="2.14.1", numpy="2.1")) == [
        f"PyTorch: torch 2.13.0 {ARROW} 2.14.1",
        f"PyTorch: threads 2 {ARROW} 2",
    ]
    more = told(with_versions(torch="2"), with_versions(torch="2", flax="0.1"))
    assert f"PyTorch: flax none {ARROW} 0.1" in more


def test_threads_that_nobody_tells_are_not_mentioned():
    untold = make_side(make_jobs(described={"threads": None}), environment=CLEAN)
    assert told(untold, untold) == []
    four = make_side(make_jobs(described={"threads": 4}), environment=CLEAN)
    assert told(untold, four) == [f"PyTorch: threads none {ARROW} 4"]


def test_what_belongs_to_one_job_is_no_difference():
    sides = [
        make_side(
            make_jobs(described={"peak_device_bytes": number, "energy_meter": str(number)}), environment=CLEAN
        )
        for number in (1, 2)
    ]
    assert told(*sides) == []


def test_modes_that_say_different_things_make_no_difference_in_another_order():
    modes = [
        *make_jobs(described={"input_workers": None, "dtype": "float32"}, blocks=3),
        *make_jobs(described={"input_workers": 2, "dtype": "bfloat16"}, blocks=3),
    ]
    there, back = (make_side(jobs, environment=CLEAN) for jobs in (modes, modes[::-1]))
    assert told(there, back) == []
    plain = make_side(modes[:3], environment=CLEAN)
    assert told(plain, there) == [
        f"PyTorch: input_workers none {ARROW} 2",
        f"PyTorch: dtype float32 {ARROW} bfloat16, float32",
    ]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"hostname": "attic"}, [f"host box {ARROW} attic"]),
        ({"cpu_model": "Other"}, [f"machine {HERE} {ARROW} {THERE}"]),
        ({"system": "Linux-7.0"}, [f"system Linux-6.8 {ARROW} Linux-7.0"]),
        ({"gpu_driver": "580.1"}, [f"driver none {ARROW} 580.1"]),
        (
            {"gpu": GPU},
            [f"machine {HERE} {ARROW} {ON_GPU}", f"GPU none {ARROW} H100, GPU-1-a, compute mode default"],
        ),
        ({"python": "CPython 3.14.0"}, [f"Python of the harness CPython 3.11.9 {ARROW} CPython 3.14.0"]),
        ({"version": "0.2.0"}, [f"samework 0.1.0 {ARROW} 0.2.0"]),
        ({"commit": "f" * 40}, [f"commit da23250c0f {ARROW} ffffffffff"]),
        ({"commit": None, "dirty": None}, [f"commit da23250c0f {ARROW} none"]),
        ({"dirty": True}, [f"commit da23250c0f {ARROW} da23250c0f with changes"]),
        ({"variables": {"OMP_NUM_THREADS": "2"}}, [f"$OMP_NUM_THREADS 16 {ARROW} 2"]),
        ({"variables": {}}, [f"$OMP_NUM_THREADS 16 {ARROW} none"]),
        ({"variables": {"OMP_NUM_THREADS": ""}}, [f"$OMP_NUM_THREADS 16 {ARROW} ''"]),
        ({"variables": {"OMP_NUM_THREADS": "16", "XLA_FLAGS": "none"}}, [f"$XLA_FLAGS none {ARROW} none"]),
    ],
)  # fmt: skip
def test_each_part_of_the_environment_is_told(environment, said):
    assert told(PLAIN, make_side(make_jobs(), environment=CLEAN | environment)) == said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"compute_mode": "exclusive process"}, "compute mode exclusive process"),
        ({"cuda": "13.0"}, "compute mode default, driver supports CUDA 13.0"),
        ({"slice_of": "GPU-2-b"}, "MIG slice of GPU-2-b, compute mode default"),
    ],
)
def test_a_change_of_the_gpu_in_use_is_told_though_the_machine_is_the_same(change, said):
    before, after = (
        make_side(make_jobs(), environment=CLEAN | {"gpu": msgspec.structs.replace(GPU, **changes)})
        for changes in ({}, change)
    )
    assert told(before, after) == [f"GPU H100, GPU-1-a, compute mode default {ARROW} H100, GPU-1-a, {said}"]
    assert machine_changes(before.header.environment, after.header.environment) == ()


def test_changed_code_is_told_though_both_are_changed_alike():
    """Two checkouts of one commit with changes need not have the same ones."""
    changed = make_side(make_jobs(), environment={"dirty": True})
    assert told(changed, changed) == [f"commit da23250c0f with changes {ARROW} da23250c0f with changes"]


def test_the_data_are_told():
    sample = make_side(make_jobs(), environment=CLEAN, sample=True)
    assert data_change(PLAIN, PLAIN) is None
    assert data_change(sample, sample) is None
    change = data_change(PLAIN, sample)
    assert change is not None
    assert change.in_words().startswith(f"data all {ARROW} Made on the small sample")
    assert told(PLAIN, sample) == [change.in_words()]
    limited = make_side(make_jobs(), dataset_limit=500)
    assert data_change(limited, make_side(make_jobs(), dataset_limit=501)) is not None


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            {"optimizer": OptimizerSpec(name="sgd", learning_rate=0.2)},
            {"optimizer.learning_rate": ("0.1", "0.2")},
        ),
        (
            {"optimizer": OptimizerSpec(name="adam", learning_rate=0.1, beta1=0.8)},
            {"optimizer.name": ("sgd", "adam"), "optimizer.beta1": ("0.9", "0.8")},
        ),
        ({"batch_size": 64}, {"batch_size": ("100", "64")}),
        ({"loss": "sum"}, {"loss": ("mean", "sum")}),
        ({"initialiser": Initialiser(name="zeros")}, {"initialiser.name": ("glorot_uniform", "zeros")}),
        ({"architecture": Architecture(hidden=(8,))}, {"architecture.hidden": ("()", "(8,)")}),
        ({"matched": False}, {"matched": ("True", "False")}),
    ],
)
def test_each_part_of_a_workload_is_told(part, said):
    head = make_side(
        make_jobs(), environment=CLEAN, workloads=[msgspec.structs.replace(make_workload(), **part)]
    )
    found = {
        one.what: (one.base, one.head)
        for one in work_changes(PLAIN.header.workloads, head.header.workloads)["mnist-cnn"]
    }
    assert found == said
    assert told(PLAIN, head) == [
        f"mnist-cnn: {what} {one} {ARROW} {other}" for what, (one, other) in said.items()
    ]


def test_a_network_of_other_layers_is_other_work():
    head = make_side(
        make_jobs(),
        workloads=[
            msgspec.structs.replace(make_workload(), architecture=Architecture(convs=(ConvBlock(filters=8),)))
        ],
    )
    (change,) = work_changes(PLAIN.header.workloads, head.header.workloads)["mnist-cnn"]
    assert change.what == "architecture.convs"


def test_a_target_is_told_and_is_no_other_work():
    head = make_side(make_jobs(), environment=CLEAN, workloads=[make_workload(target=None)])
    assert told(PLAIN, head) == [f"mnist-cnn: target_accuracy 0.97 {ARROW} none"]
    assert work_changes(PLAIN.header.workloads, head.header.workloads) == {}


def test_of_what_only_one_run_has_no_part_is_told():
    more = make_side(
        make_jobs(), environment=CLEAN, workloads=[make_workload(), make_workload("cifar10-cnn")]
    )
    assert told(PLAIN, more) == told(more, PLAIN) == []
    assert work_changes(PLAIN.header.workloads, more.header.workloads) == {}
    jax = make_side(make_jobs(), make_jobs(cell=OTHER), environment=CLEAN)
    assert told(PLAIN, jax) == [f"JAX: jax none {ARROW} 2.13.0"]


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        ({"hostname": "attic"}, ["host"]),
        ({"usable_cpus": 2, "gpu_driver": "1"}, ["machine", "driver"]),
        ({"gpu": GPU}, ["machine"]),
        ({"system": "other", "python": "other", "variables": {}, "load_average": 9.0}, []),
    ],
)
def test_another_machine_is_told_by_what_makes_it_one(environment, what):
    one, other = (run.header.environment for run in (PLAIN, make_side(make_jobs(), environment=environment)))
    assert [change.what for change in machine_changes(one, other)] == what
    assert one.same_machine(other) == (not what)


names = st.text(string.ascii_lowercase, min_size=1, max_size=6)
facts = st.dictionaries(names, st.text(max_size=4) | st.just("none"), max_size=6)


@given(facts, facts)
def test_every_difference_is_told_once_and_turns_round(base, head):
    there, back = changes(base, head), changes(head, base)
    differing = {name for name in base | head if base.get(name) != head.get(name)}
    assert sorted(one.what for one in there) == sorted(differing)
    assert {(one.what, one.base, one.head) for one in there} == {
        (one.what, one.head, one.base) for one in back
    }
    assert changes(base, base) == ()


@given(facts)
def test_threads_stay_told(base):
    kept = changes({**base, "X: threads": "2"}, {**base, "X: threads": "2"})
    assert kept == (Changed(what="X: threads", base="2", head="2"),)
    assert not kept[0].differs
