"""The contract of `backends.base`, checked for every backend in every mode, and proof that checks can fail.

A check is a function that takes a `Kit` and raises AssertionError. All checks of a backend run in one new
process, because importing a framework and compiling take longer than any check.
"""

import os
import subprocess
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import broken
import broken_closer
import conftest
import msgspec
import numpy as np
import pytest
from conformance_closer import CLOSER_CHECKS
from conformance_data import (
    grey_images_are_augmented_too,
    images_are_augmented_or_refused,
    images_are_neither_copied_nor_changed,
    images_may_begin_anywhere_in_memory,
)
from conformance_kit import (
    ALIKE,
    ARCHITECTURES,
    BATCH,
    INFO,
    OPTIMIZERS,
    SAME,
    Kit,
    assert_close,
    assert_same_params,
    cross_entropy,
    narrow,
    order,
    start,
)
from conftest import INFOS, demand, every_backend, in_process, kept_compiled

from backends.base import Backend, TrainingData
from backends.info import BackendInfo
from backends.numpy_backend import NumpyBackend
from bench.errors import UnavailableError
from bench.measuring.parity import parity_data
from bench.parity import checks as parity
from bench.parity import reference
from bench.worker.loading import load_backend
from bench.workloads.catalog import NOTEBOOKS, WORKLOADS
from bench.workloads.specs import OptimizerSpec, Workload

pytestmark = pytest.mark.alone  # it fills the cores by itself

LIMIT_S = 1500.0
"""The time limit of all checks of one backend, in a process that may have half a busy core."""


# ---- the checks


def parameters_come_back_as_they_went_in(kit: Kit) -> None:
    for architecture, network in ARCHITECTURES.items():
        given, backend = start(architecture), kit.build(architecture, OPTIMIZERS["sgd"])
        backend.load_params(given)
        exported = backend.export_params()
        for name, value in start(architecture).items():
            assert given[name].tobytes() == value.tobytes(), (
                f"{architecture}, {name}: loading changed what was given"
            )
        shapes = network.parameter_shapes(INFO)
        assert list(exported) == list(shapes), f"{architecture}: exported in the order {list(exported)}"
        for name, value in exported.items():
            assert type(value) is np.ndarray, f"{architecture}, {name}: a {type(value)}"
            assert value.dtype == np.float32, f"{architecture}, {name}: {value.dtype}"
            assert value.tobytes() == given[name].tobytes(), f"{architecture}, {name}: other bits came back"


def exports_are_copies(kit: Kit) -> None:
    for mode in kit.modes:
        backend = kit.make(mode=mode)
        before = backend.export_params()
        kept = {name: value.copy() for name, value in before.items()}
        backend.train_steps(order(2))
        after = backend.export_params()
        for name, value in kept.items():
            assert (before[name] == value).all(), f"{mode}, {name}: an export changed when training went on"
            assert (after[name] != value).any(), f"{mode}, {name}: two steps did not change it"


def logits_have_their_shape_and_type(kit: Kit) -> None:
    for mode in kit.modes:
        backend = kit.make("cnn" if mode == kit.info.default_mode else "softmax", mode=mode)
        before = backend.export_params()
        whole = backend.predict(kit.images)  # 1001: with batches of 1000, 500 or 100 the last one is ragged
        assert type(whole) is np.ndarray
        assert (whole.shape, whole.dtype) == ((1001, INFO.classes), np.float32), f"{mode}: {whole.shape}"
        for part in (slice(0, 1), slice(999, 1001), slice(500, 1001, 500)):
            assert_close(backend.predict(kit.images[part]), whole[part], SAME * 5, f"{mode}, images {part}")
        assert_same_params(backend.export_params(), before, 0.0, f"{mode}: prediction trains")


def losses_have_their_shape_and_are_taken_before_the_update(kit: Kit) -> None:
    for mode in kit.modes:
        backend = kit.make(mode=mode)
        batches = order(103)  # more than any mode may put into one call
        for row in (0, 1):
            expected = cross_entropy(backend.predict(kit.images[batches[row]]), kit.labels[batches[row]])
            losses = backend.train_steps(batches[row : row + 1])
            assert type(losses) is np.ndarray
            assert (losses.shape, losses.dtype) == ((1,), np.float32), (
                f"{mode}: {losses.shape} {losses.dtype}"
            )
            assert_close(losses, np.array([expected]), 1e-5, f"{mode}: loss of step {row}")
        backend.load_params(start("softmax"))
        losses = backend.train_steps(batches)
        assert (losses.shape, losses.dtype) == ((103,), np.float32), f"{mode}: {losses.shape} {losses.dtype}"
        assert np.isfinite(losses).all()


def some_optimizers(kit: Kit) -> list[tuple[str, str, OptimizerSpec]]:
    """Return all optimizers in the default mode, and one with state, decay and step count in the others."""
    default = kit.info.default_mode
    all_here = [(default, name, spec) for name, spec in OPTIMIZERS.items()]
    others = [mode for mode in kit.modes if mode != default]
    return all_here + [(mode, "adam", OPTIMIZERS["adam"]) for mode in others]


def calls_may_be_cut_anywhere(kit: Kit) -> None:
    batches = order(7)
    for mode, name, spec in some_optimizers(kit):
        backend = kit.make("softmax", spec, mode=mode)
        losses = backend.train_steps(batches)
        whole = backend.export_params()
        backend.load_params(start("softmax"))
        parts = np.concatenate([backend.train_steps(batches[:3]), backend.train_steps(batches[3:])])
        assert_close(parts, losses, SAME, f"{mode}, {name}: losses of 3 + 4 steps against 7")
        assert_same_params(backend.export_params(), whole, SAME * 10, f"{mode}, {name}: 3 + 4 steps")


def loading_resets_the_optimizer(kit: Kit) -> None:
    batches = order(6)
    for mode, name, spec in some_optimizers(kit):
        backend = kit.make("softmax", spec, mode=mode)
        first = backend.train_steps(batches)
        backend.load_params(start("softmax"))
        again = backend.train_steps(batches)
        assert_close(again, first, SAME, f"{mode}, {name}: losses after loading again")


def training_goes_on_from_a_saved_state(kit: Kit) -> None:
    cases = [(mode, "softmax", name, spec) for mode, name, spec in some_optimizers(kit)]
    cases.append((kit.info.default_mode, "two batch norms", "adam", OPTIMIZERS["adam"]))
    for mode, architecture, name, spec in cases:
        backend = kit.make(architecture, spec, mode=mode)
        backend.train_steps(order(5))
        state = backend.save_state()
        for key, value in state.items():
            assert isinstance(value, np.ndarray), f"{mode}, {name}: state {key!r} is a {type(value)}"
        expected = backend.train_steps(order(6, seed=2))
        ended = backend.export_params()
        # The backend that saved it, after more training; then one that was never trained.
        for taker in (backend, kit.build(architecture, spec, mode=mode)):
            taker.restore_state(state)
            found = taker.train_steps(order(6, seed=2))
            what = f"{mode}, {name}, {'same' if taker is backend else 'new'} backend"
            assert_close(found, expected, SAME, f"{what}: losses")
            assert_same_params(taker.export_params(), ended, SAME * 10, what)


def calls_are_of_a_number_of_steps(kit: Kit) -> None:
    for mode in kit.modes:
        for architecture in ("softmax", "cnn"):
            steps = kit.build(architecture, OPTIMIZERS["sgd"], mode=mode).call_steps
            assert type(steps) is int, f"{mode}: {steps!r} steps to a call"
            assert 1 <= steps <= 16, f"{mode}: {steps} steps to a call, where windows hold whole calls"


def it_says_what_it_runs_on(kit: Kit) -> None:
    for mode in kit.modes:
        backend = kit.make(mode=mode)
        backend.train_steps(order(1))
        said = backend.describe()
        assert said["device"] == "cpu", said
        assert said["device_name"], said
        assert "peak_device_bytes" in said, said
        assert said["peak_device_bytes"] is None, "the CPU has no allocator peak"
        assert said.get("build") or "numpy" in kit.info.distributions, "it does not say what it was built for"
        again = msgspec.json.decode(
            msgspec.json.encode(said), type=dict[str, str | int | float | bool | None], strict=True
        )
        assert again == said
        for name in kit.info.distributions:
            assert any(part in said for part in name.split("|")) or kit.info.reference, (
                f"no version of {name}"
            )


def a_gpu_that_is_not_there_is_refused(kit: Kit) -> None:
    for mode in kit.modes:
        try:
            kit.build("softmax", OPTIMIZERS["sgd"], mode=mode, device="gpu")
        except UnavailableError as error:
            assert len(str(error)) > 20, f"{mode}: it does not say what is missing: {error}"  # noqa: PT017
        else:
            raise AssertionError(f"{mode}: asked for a GPU where there is none, it built a network")


def modes_agree(kit: Kit) -> None:
    """Convolutions are left to `bench verify`: to compile several steps of them at once takes minutes."""
    batches, found = order(20), {}
    for mode in kit.modes:
        found[mode] = kit.make(mode=mode).train_steps(batches)
    for mode, losses in found.items():
        assert_close(losses, found[kit.info.default_mode], ALIKE, f"{mode}: losses")


def statistics_move_alike_when_compiled(kit: Kit) -> None:
    """The second and third modes compile more than the first; no gradient changes the statistics."""
    found = {}
    for mode in kit.modes[:3]:
        backend = kit.make("one batch norm", OPTIMIZERS["sgd"], mode=mode)
        losses = backend.train_steps(order(8))
        found[mode] = {"losses": losses, **backend.export_params()}
    for mode, values in found.items():
        assert_same_params(values, found[kit.info.default_mode], ALIKE * 10, mode)


def odd_networks_agree_with_the_reference(kit: Kit) -> None:
    for architecture, network in ARCHITECTURES.items():
        # Softmax regression is in the optimizers' check. Eleven layers are so deep that rounding hides what a
        # step changes.
        if architecture in ("softmax", "eleven layers", "one batch norm"):
            continue
        workload = Workload(
            name="noise",
            dataset="noise",
            architecture=network,
            optimizer=OptimizerSpec(name="sgd", learning_rate=0.01),
        )
        assert_parity(kit, workload, kit.data, kit.info.default_mode, "fp32")


def optimizers_agree_with_the_reference(kit: Kit) -> None:
    for spec in reference.OPTIMIZER_CASES:
        workload = msgspec.structs.replace(WORKLOADS["mnist-softmax"], optimizer=spec)
        assert_parity(kit, workload, parity_data(workload), kit.info.default_mode, "fp32")


def notebooks_agree_with_the_reference(kit: Kit) -> None:
    augments = next(mode.augments for mode in kit.info.modes if mode.default)
    # Four notebooks train the same network, at different rates: the last of them stands for all.
    different = {(one.architecture, one.optimizer.name, one.loss): one for one in NOTEBOOKS}
    for notebook in different.values():
        if notebook.augmentation is None or augments:
            workload = reference.gentle(narrow(notebook))
            assert_parity(kit, workload, parity_data(workload), kit.info.default_mode, "fp32")


def bfloat16_is_itself_and_near_enough(kit: Kit) -> None:
    for mode in kit.modes if "bf16" in kit.info.cpu_precisions else []:
        backend = kit.make("softmax", OPTIMIZERS["sgd"], mode=mode, precision="bf16")
        assert "bfloat16" in str(backend.describe()["dtype"]), f"{mode}: {backend.describe()['dtype']}"
        logits, losses = backend.predict(kit.images[:BATCH]), backend.train_steps(order(3))
        for value in (logits, losses, *backend.export_params().values()):
            assert value.dtype == np.float32, f"{mode}: {value.dtype} came out"
        error = parity.relative_error(logits, reference_logits(kit))
        assert error > 2e-4, f"{mode}: logits off by {error:.0e} are too good for bfloat16's 8 bits"
        if mode == kit.info.default_mode:
            workload = reference.gentle(WORKLOADS["mnist-softmax"])
            assert_parity(kit, workload, parity_data(workload), mode, "bf16")


def reference_logits(kit: Kit) -> np.ndarray:
    """Return the float64 logits of softmax regression at its start, for one batch of images."""
    workload = Workload(
        name="noise", dataset="noise", architecture=ARCHITECTURES["softmax"], optimizer=OPTIMIZERS["sgd"]
    )
    reference = NumpyBackend(workload, kit.data, mode="float64", device="cpu", precision="fp32")
    reference.load_params(start("softmax"))
    return reference.logits(kit.images[:BATCH])


def assert_parity(kit: Kit, workload: Workload, data: TrainingData, mode: str, precision: str):
    def make(workload: Workload, data: TrainingData) -> Backend:
        return kit.backend_class(workload, data, mode=mode, device="cpu", precision=precision)

    trace = kit.trace(workload, data)
    checks = parity.check_parity(make, workload, data, trace, precision)
    wrong = [f"{check.kind} at {check.worst} by {check.error:.1e}" for check in checks if not check.ok]
    what = f"{mode}, {workload.name}, {workload.architecture}, {workload.optimizer.name}, {precision}"
    assert not wrong, f"{what}: off in {'; '.join(wrong)}"


CHECKS: Mapping[str, Callable[[Kit], Any]] = {
    check.__name__: check
    for check in (
        parameters_come_back_as_they_went_in,
        exports_are_copies,
        logits_have_their_shape_and_type,
        images_are_neither_copied_nor_changed,
        images_may_begin_anywhere_in_memory,
        losses_have_their_shape_and_are_taken_before_the_update,
        calls_may_be_cut_anywhere,
        loading_resets_the_optimizer,
        training_goes_on_from_a_saved_state,
        calls_are_of_a_number_of_steps,
        it_says_what_it_runs_on,
        a_gpu_that_is_not_there_is_refused,
        modes_agree,
        statistics_move_alike_when_compiled,
        odd_networks_agree_with_the_reference,
        optimizers_agree_with_the_reference,
        notebooks_agree_with_the_reference,
        images_are_augmented_or_refused,
        grey_images_are_augmented_too,
        bfloat16_is_itself_and_near_enough,
        *CLOSER_CHECKS,
    )
}


def run_check(kit: Kit, name: str) -> None:
    """Run a check. A warning of the framework is an error, unless it is about deprecations inside itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("default", category=DeprecationWarning)
        warnings.filterwarnings("error", category=DeprecationWarning, module=r"backends\.")
        # PyTorch says so of Python 3.13.0 when it compiles; docs/guide/install.md tells users.
        warnings.filterwarnings("default", message="Guards may run slower on Python 3.13.0")
        CHECKS[name](kit)


# ---- all checks of every backend, each in a process of its own


def run_checks(argument: dict[str, Any]) -> dict[str, Any]:
    """Return for each check None or its traceback; called in a child process."""
    info = INFOS[argument["backend"]]
    backend_class, found = load_backend(info), {}
    with tempfile.TemporaryDirectory() as folder:
        kit = Kit(backend_class, info, Path(folder), traces=Path(argument["traces"]))
        for name in argument["checks"]:
            try:
                run_check(kit, name)
                found[name] = None
            except Exception:
                found[name] = traceback.format_exc()
    return found


@pytest.fixture(scope="module")
def verdicts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Return a function from a backend to what `run_checks` found, for all its checks in this session.

    Each core runs one process at a time, because tracing and compiling mostly take one core.
    """
    parameters = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    selected = {
        backend: [name for name in CHECKS if {"backend": backend, "check": name} in parameters]
        for backend in LONGEST_FIRST
    }
    traces, compiled = tmp_path_factory.mktemp("traces"), kept_compiled(request.config)

    def found(backend: str) -> dict[str, Any]:
        checks = selected[backend]
        argument = {"backend": backend, "checks": checks, "traces": str(traces)}
        try:
            demand(INFOS[backend])
            return in_process(
                INFOS[backend], "test_conformance:run_checks", argument, limit_s=LIMIT_S, compiled=compiled
            )
        except pytest.skip.Exception:  # its tests are skipped too
            return {}
        except (AssertionError, subprocess.TimeoutExpired) as died:  # do not start it again for every check
            return dict.fromkeys(checks, str(died))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        begun = {backend: pool.submit(found, backend) for backend, checks in selected.items() if checks}
        yield lambda backend: begun[backend].result()


LONGEST_FIRST = ("jax", "torch", "tensorflow", "keras-jax", "keras-torch", "keras-tensorflow", "numpy")
"""The backends in the order in which their processes start, so that both cores are busy to the end."""


@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("backend", every_backend())
def test_a_backend_keeps_the_contract(backend, check, verdicts):
    wrong = verdicts(backend)[check]
    assert wrong is None, f"{backend}: {wrong}"


# ---- the checks can fail


@pytest.fixture
def numpy_kit(tmp_path: Path) -> Callable[[type[Backend]], Kit]:
    return lambda backend_class: Kit(backend_class, INFOS["numpy"], tmp_path)


@pytest.mark.parametrize(
    ("twin", "check"),
    [
        (broken.RoundsOnLoad, parameters_come_back_as_they_went_in),
        (broken.ExportsSorted, parameters_come_back_as_they_went_in),
        (broken.ForgetsBiases, parameters_come_back_as_they_went_in),
        (broken.ExportsItself, exports_are_copies),
        (broken.FreezesFirstLayer, exports_are_copies),
        (broken.LosesRaggedBatch, logits_have_their_shape_and_type),
        (broken.WrapsRaggedBatch, logits_have_their_shape_and_type),
        (broken.LosesPrecisionOfType, logits_have_their_shape_and_type),
        (broken.WritesToTheData, images_are_neither_copied_nor_changed),
        (broken.WritesToTestImages, images_are_neither_copied_nor_changed),
        (broken.CopiesTheData, images_are_neither_copied_nor_changed),
        (broken.LosesPrecisionOfType, losses_have_their_shape_and_are_taken_before_the_update),
        (broken.ScalarForOneStep, losses_have_their_shape_and_are_taken_before_the_update),
        (broken.LossAfterUpdate, losses_have_their_shape_and_are_taken_before_the_update),
        (broken.ResetsEveryCall, calls_may_be_cut_anywhere),
        (broken.KeepsOptimizerState, loading_resets_the_optimizer),
        (broken.KeepsStepCount, loading_resets_the_optimizer),
        (broken.SavesNoStep, training_goes_on_from_a_saved_state),
        (broken.SavesNoSlots, training_goes_on_from_a_saved_state),
        (broken.SavesReferences, training_goes_on_from_a_saved_state),
        (broken.CallsNothing, calls_are_of_a_number_of_steps),
        (broken.TellsTooLittle, it_says_what_it_runs_on),
        (broken.TellsInNumpy, it_says_what_it_runs_on),
        (broken.FallsBackToCpu, a_gpu_that_is_not_there_is_refused),
        (broken.WarnsInTraining, loading_resets_the_optimizer),
        (broken.FlattensChannelsFirst, odd_networks_agree_with_the_reference),
        (broken.AdamEpsilonHat, optimizers_agree_with_the_reference),
    ],
    ids=lambda value: value.__name__,
)
def test_a_check_sees_a_breach_of_the_contract(twin, check, numpy_kit):
    with pytest.raises((AssertionError, KeyError, TypeError, ValueError, UserWarning)):
        run_check(numpy_kit(twin), check.__name__)


@pytest.mark.parametrize(
    ("twin", "check"), broken_closer.TWINS, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_check_sees_a_closer_look_that_misleads(twin, check, tmp_path):
    info = msgspec.structs.replace(INFOS["numpy"], reference=False)
    run_check(Kit(broken_closer.Sound, info, tmp_path), check)
    with pytest.raises(AssertionError):
        run_check(Kit(twin, info, tmp_path), check)


def two_modes(backend_class: type[Backend], folder: Path, **info: Any) -> Kit:
    """Return a kit of two modes, the second of which is another backend."""
    modes = tuple(
        msgspec.structs.replace(INFOS["numpy"].modes[0], name=name, default=name == "a") for name in "ab"
    )
    info = msgspec.structs.replace(INFOS["numpy"], modes=modes, **info)

    def make(workload, data, *, mode, **kinds):
        return (NumpyBackend if mode == "a" else backend_class)(workload, data, mode=mode, **kinds)

    return Kit(make, info, folder)


@pytest.mark.parametrize("twin", [broken.UnbiasedVariance, broken.ForgetsStatistics])
def test_a_mode_that_moves_statistics_otherwise_is_seen(twin, tmp_path):
    run_check(two_modes(NumpyBackend, tmp_path), "statistics_move_alike_when_compiled")
    with pytest.raises(AssertionError, match="b, conv1/"):
        run_check(two_modes(twin, tmp_path), "statistics_move_alike_when_compiled")


@pytest.mark.parametrize("twin", [broken.DecaysTooEarly, broken.SumsLoss])
def test_a_mode_that_computes_something_else_is_seen(twin, tmp_path):
    run_check(two_modes(NumpyBackend, tmp_path), "modes_agree")
    with pytest.raises(AssertionError, match="b: losses"):
        run_check(two_modes(twin, tmp_path), "modes_agree")


def test_float32_that_calls_itself_bfloat16_is_seen(tmp_path):
    kit = Kit(
        broken.ClaimsBfloat16,
        msgspec.structs.replace(INFOS["numpy"], cpu_precisions=("fp32", "bf16")),
        tmp_path,
    )
    with pytest.raises(AssertionError, match="too good for bfloat16"):
        run_check(kit, "bfloat16_is_itself_and_near_enough")


def outcome_of_demanding(info: BackendInfo) -> str:
    """Return the outcome in words, as a skip let through would only skip the test that looks for it."""
    try:
        demand(info)
    except (pytest.skip.Exception, pytest.fail.Exception) as stopped:
        return f"{type(stopped).__name__}: {stopped}"
    return "goes on"


def test_a_framework_that_is_missing_skips_or_where_required_fails(monkeypatch):
    info = msgspec.structs.replace(INFOS["torch"], distributions=("no-such-distribution|nor-this",))
    monkeypatch.delenv(conftest.REQUIRED, raising=False)
    skipped = outcome_of_demanding(info)
    assert skipped.startswith(
        "Skipped: PyTorch cannot be tested: no-such-distribution|nor-this not installed"
    )
    monkeypatch.setenv(conftest.REQUIRED, "1")
    assert outcome_of_demanding(info).startswith("Failed: PyTorch cannot be tested: no-such")
    assert outcome_of_demanding(INFOS["numpy"]) == "goes on"


def test_a_child_that_fails_says_why():
    with pytest.raises(AssertionError, match=r"(?s)status 1.*KeyError: 'checks'"):
        in_process(INFOS["numpy"], "test_conformance:run_checks", {"backend": "numpy", "traces": ""})
