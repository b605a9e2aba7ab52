"""What was asked becomes a plan, or a refusal that says what is wrong; never something else."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import fakes
import msgspec
import pytest
from fakes import ABSENT, QUICK, STEADY
from played_nvml import Nvml

from backends.info import BackendInfo, Mode
from bench.errors import DataError, UnavailableError, UsageError
from bench.measuring import data, selection
from bench.measuring.backends import Registry, interpreter, named_python
from bench.measuring.selection import Asked, Available
from bench.options import parse_budget
from bench.records.runs import HEADER, read_run
from bench.run import setup as prepare
from bench.run.plan import find_preset
from bench.workloads.catalog import MAIN_WORKLOADS, find_workload
from bench.workloads.specs import Device

REFERENCE = fakes.info("numpy", "fakes:Steady", reference=True)


def registry(*infos: BackendInfo, broken: dict[str, str] | None = None) -> Registry:
    return Registry(backends={info.name: info for info in infos}, broken=broken or {})


def splits(
    limit: int | None = 300, workload: str = fakes.WORKLOAD, **changes: object
) -> dict[str, data.Split]:
    fields = {"cache": Path("/nowhere"), "sample": True, "offline": True} | changes
    return data.prepare_data([find_workload(workload)], limit=limit, display=fakes.Screen(), **fields)


@pytest.mark.parametrize(
    ("asked", "driver", "device"),
    [("cpu", True, "cpu"), ("gpu", True, "gpu"), ("auto", True, "gpu"), ("auto", False, "cpu")],
)
@pytest.mark.usefixtures("own_variables")
def test_the_device_is_the_one_asked_for(
    asked: str, driver: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "nvidia_driver_present", lambda: driver)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert selection.choose_device(asked) == device
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == ("0" if device == "gpu" else None)


@pytest.fixture
def own_variables() -> Iterator[None]:
    """Give the test variables of its own, as choosing a GPU sets one."""
    with mock.patch.dict(os.environ):
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        os.environ.pop("CUDA_DEVICE_ORDER", None)
        yield


@pytest.fixture
def gpus(own_variables: None, monkeypatch: pytest.MonkeyPatch) -> Nvml:
    """Return a driver with two GPUs."""
    driver = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(selection, "nvidia_driver_present", lambda: True)
    return driver


def test_the_gpu_of_a_number_is_the_only_one_that_is_visible(gpus: Nvml) -> None:
    assert selection.choose_device("auto", 1) == "gpu"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == gpus.uuids[1]
    assert (selection.used_gpu("gpu") or "").startswith(f"H100, {gpus.uuids[1]}, PCI ")
    assert selection.used_gpu("cpu") is None
    gpus.missing = {"nvmlInit"}
    said = f"CUDA_VISIBLE_DEVICES={gpus.uuids[1]}, of which NVML reports nothing"
    assert selection.used_gpu("gpu") == said


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_gpus_that_are_hidden_are_not_taken_unless_they_are_asked_for(visible: str, gpus: Nvml) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = visible
    assert selection.choose_device("auto") == "cpu"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
    with pytest.raises(UnavailableError, match="shows none of the GPUs here"):
        selection.choose_device("gpu")


def test_a_gpu_is_not_chosen_for_the_cpu(gpus: Nvml) -> None:
    with pytest.raises(UsageError, match="--gpu 0 chooses a GPU: leave it out"):
        selection.choose_device("cpu", 0)


def test_a_gpu_that_no_program_may_use_is_refused(gpus: Nvml) -> None:
    gpus.mode = 2
    with pytest.raises(UnavailableError, match=r"H100 \(GPU-8932f937\) is in compute mode prohibited"):
        selection.choose_device("auto")


def test_a_gpu_that_is_asked_for_and_missing_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "nvidia_driver_present", lambda: False)
    with pytest.raises(UnavailableError, match="no NVIDIA driver is loaded"):
        selection.choose_device("gpu")


def test_all_backends_but_the_reference_run_when_none_is_named() -> None:
    here = selection.choose_backends(registry(REFERENCE, STEADY, QUICK), Asked(), "cpu")
    assert list(here.infos) == ["steady", "quick"]
    assert list(here.versions["steady"]) == ["numpy"]
    assert here.unavailable == {}


def test_the_reference_runs_when_it_is_named_or_all_are_verified() -> None:
    known = registry(REFERENCE, STEADY)
    assert list(selection.choose_backends(known, Asked(backends=("numpy",)), "cpu").infos) == ["numpy"]
    assert set(selection.choose_backends(known, Asked(), "cpu", reference=True).infos) == {"numpy", "steady"}


def test_a_missing_backend_is_set_aside_among_all_and_refused_by_name() -> None:
    known = registry(STEADY, ABSENT)
    here = selection.choose_backends(known, Asked(), "cpu")
    assert here.unavailable == {
        "absent": "not installed: no-such-framework or no-such-twin. "
        "Install it, or name an interpreter that has it: --python absent=PATH"
    }
    with pytest.raises(UnavailableError, match=r"backend 'absent': not installed: no-such-framework"):
        selection.choose_backends(known, Asked(backends=("steady", "absent")), "cpu")


def test_nothing_that_can_run_is_an_error_with_every_reason() -> None:
    known = registry(ABSENT, broken={"odd": "backend 'odd' (odd:INFO) cannot be used: no module"})
    with pytest.raises(UnavailableError, match=r"no backend can run here\. odd: .*absent: not installed"):
        selection.choose_backends(known, Asked(), "cpu")


def test_a_broken_backend_is_set_aside_among_all() -> None:
    here = selection.choose_backends(registry(STEADY, broken={"odd": "it raises"}), Asked(), "cpu")
    assert here.unavailable == {"odd": "it raises"}


def test_a_precision_that_is_not_to_be_had_is_refused_and_not_replaced() -> None:
    both = fakes.info("both", "fakes:Steady", cpu_precisions=("fp32", "bf16"))
    asked = Asked(precision="bf16")
    here = selection.choose_backends(registry(STEADY, both), asked, "cpu")
    assert here.unavailable == {"steady": "precision bf16 is not available on cpu; it has: fp32."}
    with pytest.raises(UnavailableError, match="precision tf32 is not available on cpu; it has: fp32, bf16"):
        selection.choose_backends(registry(both), Asked(precision="tf32", backends=("both",)), "cpu")
    with pytest.raises(UnavailableError, match="precision fp32 is not available on gpu; it has: none"):
        selection.choose_backends(registry(STEADY), Asked(backends=("steady",)), "gpu")


def test_an_interpreter_for_an_unknown_backend_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown backend 'stedy'; did you mean 'steady'"):
        selection.choose_backends(registry(STEADY), Asked(pythons={"stedy": Path("/bin/true")}), "cpu")


def test_naming_a_thing_twice_runs_it_once() -> None:
    asked = Asked(workloads=("mnist-mlp", "mnist-mlp"), backends=("steady", "steady"), modes=("only", "only"))
    here = selection.choose_backends(registry(STEADY), asked, "cpu")
    (cell,) = selection.chosen_cells(asked, here, "cpu", "default")
    assert str(cell) == "mnist-mlp steady/only cpu fp32"


def test_the_cells_are_those_of_the_six_workloads_when_none_is_named() -> None:
    here = selection.choose_backends(registry(STEADY, ABSENT), Asked(), "cpu")
    cells = selection.chosen_cells(Asked(), here, "cpu", "default")
    assert {(cell.workload, cell.backend) for cell in cells} == {
        (workload, backend) for workload in MAIN_WORKLOADS for backend in ("steady", "absent")
    }
    assert len(cells) == 12


PLAIN = Mode(name="tutorial", summary="plain", level="taught", pipeline=True)
TAUGHT = msgspec.structs.replace(STEADY, name="taught", modes=(*STEADY.modes, PLAIN))


@pytest.mark.parametrize(
    ("asked", "preset", "expected"),
    [
        (Asked(), "quick", ["mnist-mlp taught/tutorial cpu fp32"]),
        (Asked(backends=("taught",)), "quick", ["mnist-mlp taught/tutorial cpu fp32"]),
        (Asked(backends=("steady",)), "quick", []),
        (Asked(workloads=("mnist-cnn",)), "quick", []),
        (Asked(sweep=(16,)), "quick", []),
        (Asked(modes=("only",)), "quick", []),
        (Asked(workloads=("mnist-cnn",)), "standard", ["mnist-cnn taught/tutorial cpu fp32"]),
    ],
)
def test_quick_trains_one_workload_as_taught_too_unless_modes_are_named(
    asked: Asked, preset: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "find_backends", lambda: registry(STEADY, TAUGHT))
    plan = msgspec.structs.replace(
        PLAN, asked=msgspec.structs.replace(asked, device="cpu"), preset=find_preset(preset)
    )
    cells = prepare.prepare(plan).cells
    assert [str(cell) for cell in cells if cell.mode == "tutorial"] == expected
    assert len(set(cells)) == len(cells)


FIT = Mode(name="fit", summary="plain", level="taught", default=True, pipeline=True)
REQUESTED = msgspec.structs.replace(STEADY, name="requested", modes=(FIT,), on_request=True, engine="taught")


@pytest.mark.parametrize(
    ("asked", "preset", "expected"),
    [
        (Asked(), "quick", ["mnist-mlp requested/fit cpu fp32"]),
        (Asked(), "standard", ["mnist-mlp requested/fit cpu fp32"]),
        (Asked(workloads=("mnist-cnn",)), "quick", []),
        (Asked(backends=("taught",)), "quick", []),
        (Asked(modes=("taught",)), "quick", []),
    ],
)
def test_a_backend_that_runs_on_request_trains_beside_the_rows_as_taught(
    asked: Asked, preset: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = msgspec.structs.replace(ABSENT, name="gone", modes=(FIT,), on_request=True)
    monkeypatch.setattr(prepare, "find_backends", lambda: registry(TAUGHT, REQUESTED, gone))
    plan = msgspec.structs.replace(
        PLAN, asked=msgspec.structs.replace(asked, device="cpu"), preset=find_preset(preset)
    )
    prepared = prepare.prepare(plan)
    assert [str(cell) for cell in prepared.cells if cell.mode == "fit"] == expected
    assert "gone" not in prepared.available.infos, "what is missing is no fault of a run that did not ask"
    assert prepared.available.versions.keys() >= prepared.available.infos.keys()


def test_a_backend_runs_in_the_interpreter_of_its_engine_unless_it_has_one() -> None:
    theirs, own = Path("/theirs/python"), Path("/own/python")
    assert named_python(REQUESTED, {"taught": theirs}) == theirs
    assert named_python(REQUESTED, {"taught": theirs, "requested": own}) == own
    assert named_python(TAUGHT, {"requested": own}) is None
    assert interpreter(TAUGHT, {"requested": own}) == Path(sys.executable)


@pytest.mark.parametrize(("limit", "train", "test"), [(None, 2000, 500), (300, 300, 300), (9999, 2000, 500)])
def test_the_sample_is_as_large_as_asked(limit: int | None, train: int, test: int) -> None:
    split = splits(limit)[fakes.WORKLOAD]
    assert (split.train, split.test) == (train, test)
    assert split.source.cache is None


@pytest.mark.parametrize("limit", [1, 99])
def test_less_than_a_batch_is_refused(limit: int) -> None:
    with pytest.raises(UsageError, match=f"{limit} training images are less than one batch of mnist-softmax"):
        splits(limit)


def test_no_network_and_no_cache_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mnist"):
        splits(sample=False, cache=tmp_path)


# The header, and taking a run up again

PLAN = prepare.RunPlan(
    asked=Asked(limit=300, sample=True), preset=fakes.TINY, budget_s=60, target_half_width=0.015, seeds=1,
    seed=3, lead_s=0.05,
)  # fmt: skip


def begun(folder: Path, here: Available, device: Device = "cpu") -> prepare.Run:
    cells = selection.chosen_cells(Asked(workloads=(fakes.WORKLOAD,)), here, device, "default")
    return prepare.new_run(
        folder, PLAN, cells=cells, workloads=[find_workload(fakes.WORKLOAD)], available=here
    )


def test_the_header_says_what_was_asked_and_found(tmp_path: Path) -> None:
    here = selection.choose_backends(registry(STEADY, ABSENT), Asked(), "cpu")
    run = begun(tmp_path, here)
    header = read_run(run.folder).header
    assert header == run.header
    assert run.folder == tmp_path / header.run_id
    assert (header.seed, header.dataset_limit, header.sample, header.budget_s) == (3, 300, True, 60)
    assert header.workloads == (find_workload(fakes.WORKLOAD),)
    steady, absent = header.backends
    assert (steady.name, steady.title, steady.default_mode, steady.reference) == (
        "steady",
        "Steady",
        "only",
        False,
    )
    assert steady.versions == here.versions["steady"]
    assert steady.packages == 1
    assert steady.installed_bytes > 10_000_000
    assert (header.seeds, header.min_blocks, header.target_half_width) == (1, 2, 0.015)
    assert header.lead_s == 0.05
    assert header.planned.jobs == 4
    assert header.planned.parity_s + header.planned.blocks_s < 60
    assert absent.versions == {}


def test_two_runs_of_one_second_have_two_names(tmp_path: Path) -> None:
    here = selection.choose_backends(registry(STEADY), Asked(), "cpu")
    assert begun(tmp_path, here).folder != begun(tmp_path, here).folder


def test_a_run_with_a_backend_that_was_missing_can_be_resumed(tmp_path: Path) -> None:
    known = registry(REFERENCE, STEADY, ABSENT, QUICK)
    run = begun(tmp_path, selection.choose_backends(registry(STEADY, ABSENT), Asked(), "cpu"))
    here = selection.backends_of_run(known, run.header, {})
    assert set(here.infos) == {"steady", "absent"}
    assert set(here.unavailable) == {"absent"}
    assert prepare.resumed_run(run.folder, here).header == run.header


def test_a_run_of_the_reference_can_be_resumed(tmp_path: Path) -> None:
    run = begun(tmp_path, selection.choose_backends(registry(REFERENCE), Asked(backends=("numpy",)), "cpu"))
    here = selection.backends_of_run(registry(REFERENCE, STEADY), run.header, {})
    assert set(here.infos) == {"numpy"}
    assert prepare.resumed_run(run.folder, here).header == run.header


def test_a_run_is_resumed_at_its_own_precision(tmp_path: Path) -> None:
    both = fakes.info("both", "fakes:Steady", cpu_precisions=("bf16",))
    here = selection.choose_backends(registry(both), Asked(precision="bf16"), "cpu")
    cells = selection.chosen_cells(
        Asked(workloads=(fakes.WORKLOAD,), precision="bf16"), here, "cpu", "default"
    )
    run = prepare.new_run(
        tmp_path, PLAN, cells=cells, workloads=[find_workload(fakes.WORKLOAD)], available=here
    )
    assert selection.backends_of_run(registry(both), run.header, {}).unavailable == {}


@pytest.mark.parametrize("known", [registry(QUICK), registry(QUICK, broken={"steady": "it raises"})])
def test_a_run_whose_backend_has_gone_is_not_resumed(known: Registry, tmp_path: Path) -> None:
    run = begun(tmp_path, selection.choose_backends(registry(STEADY, QUICK), Asked(), "cpu"))
    here = selection.backends_of_run(known, run.header, {})
    with pytest.raises(prepare.RecordError, match=r"was begun with Steady .*here is \{\}"):
        prepare.resumed_run(run.folder, here)


@pytest.mark.parametrize(
    "change", [{"hostname": "other"}, {"usable_cpus": 999}, {"memory_bytes": 2**50}, {"gpu_driver": "1.0"}]
)
def test_a_run_of_another_machine_is_not_resumed(change: dict[str, object], tmp_path: Path) -> None:
    here = selection.choose_backends(registry(STEADY), Asked(), "cpu")
    run = begun(tmp_path, here)
    environment = msgspec.structs.replace(run.header.environment, **change)
    (run.folder / HEADER).write_bytes(
        msgspec.json.encode(msgspec.structs.replace(run.header, environment=environment))
    )
    with pytest.raises(prepare.RecordError, match="Figures of two machines do not mix"):
        prepare.resumed_run(run.folder, here)


GRAPHIC = fakes.info("graphic", "fakes:Elsewhere", gpu_precisions=("fp32",))


def test_a_resumed_run_takes_the_gpu_that_it_began_with(
    gpus: Nvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "find_backends", lambda: registry(GRAPHIC))
    assert selection.choose_device("gpu", 1) == "gpu"
    run = begun(tmp_path, selection.choose_backends(registry(GRAPHIC), Asked(), "gpu"), "gpu")
    assert run.header.environment.gpu is not None
    assert run.header.environment.gpu.uuid == gpus.uuids[1]
    assert run.header.environment.variables["CUDA_VISIBLE_DEVICES"] == gpus.uuids[1]
    del os.environ["CUDA_VISIBLE_DEVICES"]
    assert prepare.prepare_resumed(run.folder, {}).begun is not None
    assert os.environ["CUDA_VISIBLE_DEVICES"] == gpus.uuids[1]
    os.environ["CUDA_VISIBLE_DEVICES"] = "0"
    with pytest.raises(UnavailableError, match=rf"GPU {gpus.uuids[1]} is not visible here"):
        prepare.prepare_resumed(run.folder, {})


def test_a_run_is_not_resumed_with_other_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_LOGS", raising=False)
    here = selection.choose_backends(registry(STEADY), Asked(), "cpu")
    run = begun(tmp_path, here)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")  # which no job on the CPU sees
    assert prepare.resumed_run(run.folder, here).header == run.header
    monkeypatch.setenv("TORCH_LOGS", "all")
    with pytest.raises(prepare.RecordError, match="variables: TORCH_LOGS was not set and is 'all'"):
        prepare.resumed_run(run.folder, here)


def test_more_seeds_than_blocks_make_more_blocks() -> None:
    assert PLAN.min_blocks == 2
    assert msgspec.structs.replace(PLAN, seeds=7).min_blocks == 8


def test_the_plan_is_said_in_words(tmp_path: Path) -> None:
    run = begun(tmp_path, selection.choose_backends(registry(STEADY), Asked(), "cpu"))
    said = prepare.plan_in_words(run.header)
    assert said.startswith("Plan for 1 min: about parity ")
    assert "2 jobs in blocks" in said
    assert said.endswith(" It ends sooner once every ratio is known to ±1.5 %.")
    assert "does not fit" not in said
    short = msgspec.structs.replace(run.header, budget_s=10)
    said = prepare.plan_in_words(short)
    assert "too few blocks to be ranked" in said
    (budget,) = re.findall(r"Use --budget (\S+) or more,", said)
    enough = msgspec.structs.replace(run.header, budget_s=parse_budget(budget))
    assert "does not fit" not in prepare.plan_in_words(enough)


def test_a_sweep_times_every_workload_at_every_size() -> None:
    found = selection.chosen_workloads(Asked(workloads=("mnist-mlp", "mnist-cnn"), sweep=(16, 32)))
    assert [workload.name for workload in found] == [
        "mnist-mlp@16", "mnist-mlp@32", "mnist-cnn@16", "mnist-cnn@32",
    ]  # fmt: skip
    assert [workload.batch_size for workload in found] == [16, 32, 16, 32]
