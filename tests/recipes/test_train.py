"""Following a recipe with real workers: a whole training, and one cut off, damaged, or asked for again."""

import fcntl
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import msgspec
import psutil
import pytest
from followed import make_figure
from following import (
    LIMIT,
    Interrupts,
    assert_same,
    assert_same_params,
    final_params,
    order_of,
    place,
    small,
    trained,
    untimed,
)

from backends.catalog import NUMPY
from backends.info import Mode
from bench.errors import RecordError, UnavailableError, UsageError
from bench.measuring.backends import Registry
from bench.measuring.selection import Asked
from bench.recipes import setup as places
from bench.recipes import train as training
from bench.recipes.catalog import RECIPES
from bench.recipes.checkpoints import checkpoint_files, load_model
from bench.recipes.records import EVENTS, FIGURES, HEADER, Training, read_training
from bench.recipes.setup import Place
from bench.recipes.train import LOG, Shown, TrainingFailedError
from bench.workloads.specs import OptimizerSpec

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
ENDS = fakes.info("ends", "fakes:EndsAt")
DUE = [0, 5, 10, 15, 20, 24]


def ends_at(step: int) -> Any:
    """Return a backend whose process ends before a step."""
    return fakes.info("ends", "fakes:EndsAt", environment={**ONE_THREAD, fakes.END_AT: str(step)})


@pytest.fixture(autouse=True)
def _workers_find_the_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", fakes.python_path())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, fakes.Screen]:
    """Return a training that nobody disturbed, which stays as it is, and what the terminal showed."""
    screen = fakes.Screen()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", fakes.python_path())
        return trained(tmp_path_factory.mktemp("whole") / "training", display=screen), screen


@pytest.fixture
def whole(undisturbed: tuple[Training, fakes.Screen]) -> Training:
    return undisturbed[0]


@pytest.fixture
def copy(whole: Training, tmp_path: Path) -> Path:
    """Return the folder of a copy of it, to be damaged."""
    return Path(shutil.copytree(whole.folder, tmp_path / "copy"))


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(training, "run_worker", refuse)


def steps_of(found: Training) -> list[int]:
    return [figure.step for figure in found.figures]


def content_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change_header(folder: Path, **changes: Any) -> None:
    path = folder / HEADER
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def lose_figures(folder: Path, kept: int) -> None:
    """Leave only so many figures of a training."""
    path = folder / FIGURES
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:kept]))


# A whole training


def test_a_training_leaves_its_header_figures_checkpoints_events_and_model(whole: Training) -> None:
    names = {path.name for path in whole.folder.iterdir()}
    assert names == {HEADER, FIGURES, "checkpoints", EVENTS, "notebook-softmax-plot-step-24.safetensors"}
    assert steps_of(whole) == DUE
    assert (whole.finished, whole.rejected, len(whole.losses)) == (True, (), 24)
    assert [path.stem for path in checkpoint_files(whole.folder)] == ["step-24", "step-16"]
    (events,) = (whole.folder / EVENTS).iterdir()
    assert events.stat().st_size > 1000
    assert load_model(whole.folder / "notebook-softmax-plot-step-24.safetensors").about.step == 24
    header = whole.header
    assert (header.recipe, header.steps, header.seed) == ("notebook-softmax-plot", 24, 1)
    assert (header.limit, header.sample) == (LIMIT, True)
    assert header.workload == small().workload
    assert str(header.cell) == "notebook-softmax-plot numpy/float64 cpu fp32"
    assert header.backend.title == NUMPY.title
    assert header.backend.versions["numpy"]
    assert header.environment.usable_cpus >= 1
    assert header.command[0] == "bench"
    assert header.taken_up == ()


def test_the_terminal_gets_a_line_a_figure_and_how_far_it_is(
    undisturbed: tuple[Training, fakes.Screen],
) -> None:
    found, screen = undisturbed
    unit, head, *lines = screen.lines
    assert unit == "The loss is in nats, of 100 images."
    assert head.split() == ["step", "test", "accuracy", "train", "accuracy", "test", "loss", "training"]
    assert [int(line.split()[0]) for line in lines] == DUE
    assert all(
        f"{figure.test_accuracy:.4f}" in line for line, figure in zip(lines, found.figures, strict=True)
    )
    assert f"{100 * found.figures[-1].test_loss:.5g}" in lines[-1].split(), "the loss as the notebook says it"
    assert [text for text, _, _ in screen.overalls][-1] == "numpy: step 24 of 24, checkpoint at 16"
    assert [done for _, done, _ in screen.overalls] == [step / 24 for step in (0, 5, 8, 10, 15, 16, 20, 24)]


def test_the_time_that_is_left_is_told_from_what_was_trained_here(tmp_path: Path) -> None:
    times = iter([100.0, 110.0, 130.0])
    screen = fakes.Screen()
    shown = Shown(order_of(small(), place(small()), tmp_path), screen, clock=lambda: next(times))
    for step in (8, 12, 24):  # it went on from step 8
        shown.step(step)
    assert screen.overalls == [
        ("numpy: step 8 of 24", 8 / 24, None),
        ("numpy: step 12 of 24", 12 / 24, 30.0),
        ("numpy: step 24 of 24", 1.0, 0.0),
    ]
    shown.figure(make_figure(5))
    shown.figure(make_figure(10, before=5))
    steps = [line.split()[0] for line in screen.lines]
    assert steps == ["The", "step", "5", "10"], "one head for all figures"


# Cut off


def test_a_worker_that_dies_is_an_error_and_what_it_did_is_kept(whole: Training, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingFailedError, match=r"notebook-softmax-plot ends/only cpu fp32: crashed: .*status 7"
    ) as raised:
        trained(tmp_path / "t", None, ends_at(13))
    assert "no further" in str(raised.value)
    assert raised.value.exit_status == 3
    assert f"(its standard error: {tmp_path / 't' / LOG})" in str(raised.value)
    assert (tmp_path / "t" / LOG).read_text() == "no further\n"
    kept = read_training(tmp_path / "t")
    assert steps_of(kept) == [0, 5, 10]
    assert not kept.finished
    assert [path.stem for path in checkpoint_files(kept.folder)] == ["step-8"]
    screen = fakes.Screen()
    found = trained(tmp_path / "t", None, ENDS, display=screen)
    assert screen.lines[0] == "Continues from step 8. (--anew starts again)"
    told = [line.split()[0] for line in screen.lines[3:]]
    assert told == [str(step) for step in DUE], "the figures kept, and those made now"
    assert_same(found, whole)
    assert [one.step for one in found.header.taken_up] == [8]
    assert len(list((tmp_path / "t" / EVENTS).iterdir())) == 1


def test_a_worker_that_dies_before_any_checkpoint_leaves_a_training_to_start_again(
    whole: Training, tmp_path: Path
) -> None:
    with pytest.raises(TrainingFailedError):
        trained(tmp_path / "t", None, ends_at(7))
    assert steps_of(read_training(tmp_path / "t")) == [0, 5]
    screen = fakes.Screen()
    assert_same(trained(tmp_path / "t", None, ENDS, display=screen), whole)
    assert screen.lines[0] == "Starts again, as there is no checkpoint to continue from."


@pytest.mark.parametrize(("line", "kept"), [("10 ", [0, 5, 10]), ("24 ", DUE)])
def test_ctrl_c_leaves_no_process_and_the_training_goes_on_later(
    line: str, kept: list[int], whole: Training, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "t", display=Interrupts(line))
    assert psutil.Process().children() == []
    assert steps_of(read_training(tmp_path / "t")) == kept
    assert_same(trained(tmp_path / "t"), whole)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("HangsInTraining", "timed out: it was stopped at its limit of 2 s"),
        ("LosesNumbers", "loss not a number: the loss of step 4 is not finite"),
        ("Elsewhere", "ran on another device: asked to run on cpu, it runs on gpu"),
        ("NotHere", "not available here: its driver is too old"),
    ],
)
def test_a_training_that_fails_says_why_in_a_line_and_leaves_no_process(
    target: str, words: str, tmp_path: Path
) -> None:
    limit_s = 2.0 if target.startswith("Hangs") else None
    with pytest.raises(TrainingFailedError, match=words) as raised:
        trained(tmp_path / "t", None, fakes.info("fails", f"fakes:{target}"), time_limit_s=limit_s)
    assert "\n" not in str(raised.value)
    assert psutil.Process().children() == []


# Damaged


def test_a_checkpoint_that_cannot_be_read_is_named_and_the_older_one_taken(
    whole: Training, copy: Path
) -> None:
    newest, older = checkpoint_files(copy)
    newest.write_bytes(newest.read_bytes()[:-100])
    next(copy.glob("*.safetensors")).unlink()
    screen = fakes.Screen()
    found = trained(copy, display=screen)
    assert screen.lines[0].startswith(f"{newest} cannot be read: ")
    assert screen.lines[0].endswith(" An older checkpoint is taken.")
    assert screen.lines[1].startswith("Continues from step 16.")
    assert older.name == "step-16.safetensors"
    assert_same(found, whole)


def test_without_any_checkpoint_that_can_be_read_training_starts_again(whole: Training, copy: Path) -> None:
    for path in checkpoint_files(copy):
        path.write_bytes(b"")
    lose_figures(copy, 5)
    screen = fakes.Screen()
    assert_same(trained(copy, display=screen), whole)
    assert "Starts again, as there is no checkpoint to continue from." in screen.lines


@pytest.mark.parametrize(("lines", "begins"), [(5, 16), (4, 16), (0, None)])
def test_figures_that_are_lost_are_made_again_from_a_checkpoint_before_them(
    lines: int, begins: int | None, whole: Training, copy: Path
) -> None:
    lose_figures(copy, lines)
    screen = fakes.Screen()
    found = trained(copy, display=screen)
    said = [line for line in screen.lines if line.startswith("Continues")]
    assert said == ([f"Continues from step {begins}. (--anew starts again)"] if begins else [])
    assert_same(found, whole)


def test_checkpoints_of_no_use_do_not_outlive_those_that_are_made_anew(
    whole: Training, tmp_path: Path
) -> None:
    """Else the newest two that are kept would be the old ones, and what was trained anew would be lost."""
    folder = trained(tmp_path / "t", None, ENDS).folder
    lose_figures(folder, 2)
    with pytest.raises(TrainingFailedError):
        trained(folder, None, ends_at(12))
    assert [path.stem for path in checkpoint_files(folder)] == ["step-8"]
    found = trained(folder, None, ENDS)
    assert [one.step for one in found.header.taken_up] == [0, 8]
    assert_same(found, whole)


def cut_line_3(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[2][:50], *lines[3:]]


def add_line_7(lines: list[bytes]) -> list[bytes]:
    return [*lines, b"no figure", b""]


@pytest.mark.parametrize(("damage", "number"), [(cut_line_3, 3), (add_line_7, 7)])
def test_a_line_that_is_no_figure_is_named_and_taken_out_and_a_missing_figure_made_again(
    damage: Callable[[list[bytes]], list[bytes]], number: int, whole: Training, copy: Path
) -> None:
    path = copy / FIGURES
    path.write_bytes(b"\n".join(damage(path.read_bytes().splitlines())))
    screen = fakes.Screen()
    found = trained(copy, display=screen)
    assert f"left out, as it cannot be read: {FIGURES} line {number}: " in screen.lines[0]
    assert found.rejected == ()
    assert_same(found, whole)


def test_a_model_that_is_gone_is_written_again_without_training(whole: Training, copy: Path) -> None:
    next(copy.glob("*.safetensors")).unlink()
    screen = fakes.Screen()
    found = trained(copy, display=screen)
    assert found.figures == whole.figures
    assert_same_params(final_params(found), final_params(whole))
    assert [text for text, _, _ in screen.overalls] == ["numpy starts"]


# Asked again, or for something else


def test_a_finished_training_is_not_trained_again_not_even_if_only_its_figures_are_kept(
    copy: Path, no_worker: None
) -> None:
    before = content_of(copy)
    screen = fakes.Screen()
    found = trained(copy, display=screen)
    assert steps_of(found) == DUE
    assert screen.lines == [f"{copy} is trained already, 24 steps. (--anew trains it again)"]
    assert before == content_of(copy)
    next(copy.glob("*.safetensors")).unlink()
    shutil.rmtree(copy / "checkpoints")
    assert trained(copy).finished


def test_anew_deletes_what_was_trained_and_trains_what_is_asked_for(copy: Path, whole: Training) -> None:
    (copy / "leftover").touch()
    adam = OptimizerSpec(name="adam", learning_rate=0.01)
    recipe = small(workload=msgspec.structs.replace(small().workload, optimizer=adam))
    found = trained(copy, recipe, ENDS, limit=100, seed=9, anew=True)
    header = found.header
    assert (header.seed, header.limit, header.cell.backend, header.taken_up) == (9, 100, "ends", ())
    assert steps_of(found) == DUE
    assert untimed(found.figures) != untimed(whole.figures)
    assert load_model(next(copy.glob("*.safetensors"))).about.workload == recipe.workload
    assert not (copy / "leftover").exists()


def test_more_steps_continue_where_the_training_ended_and_keep_its_last_figure(
    whole: Training, tmp_path: Path
) -> None:
    trained(tmp_path / "t", steps=12)
    screen = fakes.Screen()
    found = trained(tmp_path / "t", display=screen)
    assert screen.lines[0] == "Continues from step 12. (--anew starts again)"
    assert found.header.steps == 24
    assert steps_of(found) == [0, 5, 10, 12, 15, 20, 24]
    assert found.losses.tobytes() == whole.losses.tobytes()
    assert_same_params(final_params(found), final_params(whole))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 7}, "holds another training run: seed 1, not 7. Name another --folder"),
        ({"steps": 23}, "holds another training run: 24 steps, more than 23. Name another --folder"),
        ({"limit": 100}, "holds another training run: limit 200, not 100."),
        ({"recipe": small("notebook-cifar-cnn")}, "recipe notebook-softmax-plot, not notebook-cifar-cnn"),
        (
            {"recipe": small(workload=msgspec.structs.replace(small().workload, batch_size=25))},
            "holds another training run: another definition of notebook-softmax-plot. Name",
        ),
    ],
    ids=["seed", "steps", "limit", "recipe", "workload"],
)
def test_another_training_in_the_folder_is_refused_and_left_alone(
    changes: dict[str, Any], words: str, copy: Path, no_worker: None
) -> None:
    before = content_of(copy)
    with pytest.raises(UsageError) as raised:
        trained(copy, **changes)
    assert str(copy) in str(raised.value)
    assert words in str(raised.value)
    assert before == content_of(copy)


def test_another_backend_version_or_machine_is_another_training(copy: Path, no_worker: None) -> None:
    with pytest.raises(UsageError, match=r"cell .* numpy/float64 cpu fp32, not .* ends/only cpu fp32"):
        trained(copy, None, ENDS)
    header = json.loads((copy / HEADER).read_text())
    elsewhere = {"hostname": "elsewhere", "cpu_model": "An Abacus"}
    change_header(copy, environment=header["environment"] | elsewhere)
    assert trained(copy).finished, "what is finished is read anywhere"
    lose_figures(copy, 3)
    with pytest.raises(UsageError, match="holds another training run: the machine An Abacus"):
        trained(copy)
    change_header(copy, backend=header["backend"] | {"versions": {"numpy": "1.0"}})
    with pytest.raises(UsageError, match=r"'numpy': '1\.0'"):
        trained(copy)


def test_other_tuning_variables_are_another_training(
    copy: Path, no_worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_LOGS", "all")
    assert trained(copy).finished, "what is finished is read with any"
    lose_figures(copy, 3)
    with pytest.raises(UsageError, match="another training run: TORCH_LOGS was not set and is 'all'"):
        trained(copy)


@pytest.mark.parametrize("anew", [False, True])
def test_a_folder_that_holds_something_else_is_refused(anew: bool, tmp_path: Path, no_worker: None) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "of the children").write_text("dear")
    words = f"{folder} holds something other than a training run. Name another --folder."
    with pytest.raises(UsageError) as raised:
        trained(folder, anew=anew)
    assert str(raised.value) == words
    assert (folder / "of the children").read_text() == "dear"


def test_two_commands_do_not_train_in_one_folder(tmp_path: Path, no_worker: None) -> None:
    with (tmp_path / ".t.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # which only a claim to have the folder alone meets
        with pytest.raises(UsageError, match=f"another command trains in {tmp_path / 't'}"):
            trained(tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_a_folder_that_cannot_be_written_is_an_error_and_an_empty_one_is_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="cannot write"):
        trained(tmp_path / "file" / "t")
    (tmp_path / "deep" / "empty").mkdir(parents=True)
    assert trained(tmp_path / "deep" / "empty", small(steps=2)).finished


# Where a recipe can be followed

TWO_MODES = fakes.info(
    "two",
    "fakes:EndsAt",
    modes=(Mode(name="plain", summary="p", default=True), Mode(name="rich", summary="r", augments=True)),
)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    infos = [NUMPY, TWO_MODES, fakes.ABSENT]
    found = Registry(backends={info.name: info for info in infos}, broken={})
    monkeypatch.setattr(places, "find_backends", lambda: found)
    monkeypatch.setattr("bench.measuring.selection.nvidia_driver_present", lambda: False)


def found_place(name: str = "notebook-softmax-plot", **changes: Any) -> Place:
    asked = Asked(**{"backends": ("two",), "sample": True} | changes)
    return Place.find(RECIPES[name].workload, asked, data=None, offline=True, display=fakes.Screen())


@pytest.mark.usefixtures("here")
def test_the_default_mode_trains_if_none_is_named() -> None:
    (cell,) = found_place().cells
    assert str(cell) == "notebook-softmax-plot two/plain cpu fp32"
    (cell,) = found_place(modes=("rich",)).cells
    assert cell.mode == "rich"
    found = found_place(backends=("two", "numpy"), limit=300)
    assert [cell.backend for cell in found.cells] == ["two", "numpy"]
    assert (found.source.name, found.source.cache, found.source.limit) == ("mnist", None, 300)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"modes": ("rihc",)}, UsageError, "unknown mode of two on the CPU 'rihc'; did you mean 'rich'?"),
        ({"backends": ("tow",)}, UsageError, "unknown backend 'tow'; did you mean 'two'?"),
        (
            {"name": "notebook-cifar-cnn"},
            UsageError,
            "two plain does not augment images, as notebook-cifar-cnn does; these do: rich.",
        ),
        ({"backends": ("absent",)}, UnavailableError, "backend 'absent': not installed: no-such-framework"),
        ({"device": "gpu"}, UnavailableError, "device gpu: no NVIDIA driver is loaded here."),
        ({"precision": "bf16"}, UnavailableError, "precision bf16 is not available on cpu"),
        ({"limit": 99}, UsageError, "99 training images are less than one batch"),
        (
            {"name": "notebook-one-layer"},
            UsageError,
            "2000 training images are less than one batch of notebook-one-layer, 100 images, after 5000",
        ),
    ],
)
def test_what_is_not_to_be_had_is_named(changes: dict[str, Any], error: Any, words: str) -> None:
    with pytest.raises(error) as raised:
        found_place(**changes)
    assert words in str(raised.value)


@pytest.mark.usefixtures("here")
def test_all_installed_backends_are_used_where_none_is_named() -> None:
    found = found_place(backends=(), name="notebook-cifar-cnn", modes=("rich",))
    assert "absent" in found.available.unavailable
    assert [cell.backend for cell in found.cells] == ["two"]
