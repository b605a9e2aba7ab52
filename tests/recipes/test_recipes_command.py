"""The commands around the recipes, as a user meets them: train, evaluate, predict, show, notebooks."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import fakes
import pytest
from conftest import Call
from followed import make_figures, make_header, make_model, write_training
from following import small

from backends.info import BackendInfo
from bench.datasets.cache import load_sample
from bench.measuring.backends import Registry
from bench.options import parse_pythons
from bench.recipes import catalog as recipes
from bench.recipes.catalog import RECIPES
from bench.recipes.checkpoints import checkpoint_files
from bench.recipes.records import read_training

SAMPLE = ("--sample", "--device", "cpu")
PLOT = ("notebook-softmax-plot", "--backend", "numpy", *SAMPLE, "--dataset-limit", "200", "--steps", "100")
FOLDER = "trainings/notebook-softmax-plot-numpy-seed-0-sample-first-200"
MODEL = f"{FOLDER}/notebook-softmax-plot-step-100.safetensors"


def known(monkeypatch: pytest.MonkeyPatch, infos: Sequence[BackendInfo]) -> None:
    """Let there be these backends and no others."""
    found = Registry(backends={info.name: info for info in infos}, broken={})
    monkeypatch.setattr("bench.recipes.setup.find_backends", lambda: found)


def interrupt(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


# Train


def test_a_training_ends_with_its_model_and_is_not_repeated_unless_anew(call: Call, tmp_path: Path) -> None:
    said = call("train", *PLOT)
    assert (said.status, said.err) == (0, ""), said
    lines = said.out.splitlines()
    first = read_training(tmp_path / FOLDER)
    assert [figure.step for figure in first.figures] == [0, 100]
    assert [line.split()[0] for line in lines if line.split()[0].isdigit()] == ["0", "100"]
    (ended,) = [line for line in lines if line.startswith("notebook-softmax-plot in NumPy: 100 steps, ")]
    assert ended.endswith(f" of training, test accuracy {first.figures[-1].test_accuracy:.4f}")
    assert "the notebook" not in said.out, "its figures are of the whole data set"
    assert lines[-1] == f"Model: {MODEL}"
    assert (tmp_path / MODEL).is_file()
    assert first.header.command == ("bench", "train", *PLOT)

    again = call("train", *PLOT)
    assert again.status == 0
    assert f"{FOLDER} is trained already, 100 steps. (--anew trains it again)" in again.out
    assert again.out.splitlines()[-1] == f"Model: {MODEL}"
    for path in (tmp_path / MODEL, *checkpoint_files(tmp_path / FOLDER)):
        path.unlink()
    without = call("train", *PLOT)
    assert without.status == 0, without
    assert "is trained already" in without.out
    assert without.out.splitlines()[-1] == f"There is no {MODEL}; --anew trains it again."
    assert read_training(tmp_path / FOLDER) == first

    assert "is trained already" not in call("train", *PLOT, "--anew").out
    assert (tmp_path / MODEL).is_file()


@pytest.mark.usefixtures("one_recipe")
def test_figures_of_the_notebook_stand_below_those_of_its_whole_data_set(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    header = make_header("notebook-softmax-plot", steps=24, sample=False)
    done = write_training(tmp_path / "done", header, make_figures([0, 24]))
    monkeypatch.setattr("bench.recipes.command.follow", lambda *arguments: done)
    said = call("train", "softmax-plot", "--backend", "numpy", "--device", "cpu")
    assert said.status == 0, said
    assert "  the notebook: 0.8798 at step 100 (test accuracy)" in said.out.splitlines()


@pytest.mark.parametrize(
    ("anew", "again"), [((), "The same command"), (("--anew",), "The same command without --anew")]
)
def test_an_interrupted_training_says_how_to_continue(
    anew: tuple[str, ...], again: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.recipes.command.follow", interrupt)
    said = call("train", *PLOT, *anew)
    assert said.status == 130
    kept = f"Interrupted; the checkpoints in {FOLDER} are kept. {again} continues."
    assert said.out.splitlines()[-1] == kept


def test_a_training_that_fails_is_something_not_done(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, [fakes.info("fails", "fakes:LosesNumbers")])
    said = call("train", "softmax-plot", "--backend", "fails", *SAMPLE)
    said.refused(3, "notebook-softmax-plot fails/only cpu fp32: loss not a number: the loss of step")


def test_another_data_set_has_a_name_of_its_own_and_no_figures_of_the_notebook(
    call: Call, tmp_path: Path
) -> None:
    said = call(
        "train", "softmax-plot", "--dataset", "cifar10", "--backend", "numpy", *SAMPLE, "--steps", "2",
        "--folder", "mine",
    )  # fmt: skip
    assert said.status == 0, said
    assert "the notebook:" not in said.out
    assert said.out.splitlines()[-1] == "Model: mine/notebook-softmax-plot-cifar10-step-2.safetensors"
    assert read_training(tmp_path / "mine").header.workload.dataset == "cifar10"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "softmax-plto", "--backend", "numpy"), ("unknown recipe 'softmax-plto'", "softmax-plot")),
        (("train", *PLOT[:1], "--backend", "nunpy", *SAMPLE), ("unknown backend 'nunpy'", "'numpy'?")),
        (("train", *PLOT[:1]), ("--backend",)),
        (("train", *PLOT, "--steps", "0"), ("--steps", "0")),
        (("train", *PLOT, "--python", "numpy"), ("--python 'numpy' is not NAME=PATH",)),
        (("train", *PLOT, "--python", "numpy=/no/such"), ("there is no file /no/such",)),
        (("evaluate", "none.safetensors", *SAMPLE), ("there is no model none.safetensors",)),
        (("evaluate", ".", *SAMPLE), ("holds no model",)),
        (("predict", "none.safetensors", "--sample"), ("there is no model none.safetensors",)),
        (("show", "mnits"), ("unknown source 'mnits'; did you mean 'mnist'?",)),
        (("show", "mnist", "--index", "500", "--sample"), ("there is no test image 500",)),
        (("show", ".", "--sample"), ("is not a training run",)),
        (("notebooks", "--recipe", "affin"), ("unknown recipe 'affin'",)),
        (("notebooks", "--budget", "soon"), ("budget 'soon'",)),
        (("notebooks", "--recipe", "one-layer", "--backend", "nunpy"), ("unknown backend 'nunpy'",)),
    ],
)  # fmt: skip
def test_wrong_usage_is_named_with_its_value(
    arguments: tuple[str, ...], words: tuple[str, ...], call: Call, tmp_path: Path
) -> None:
    call(*arguments).refused(2, *words)
    assert list(tmp_path.iterdir()) == []


def test_another_training_in_the_folder_is_refused(call: Call, tmp_path: Path) -> None:
    write_training(tmp_path / "mine", make_header("notebook-softmax-plot", seed=0))
    call("train", *PLOT, "--folder", "mine", "--seed", "3").refused(2, "seed 0, not 3", "--anew")


def test_pythons_are_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "python").touch()
    assert parse_pythons((f"torch={tmp_path / 'python'}",)) == {"torch": tmp_path / "python"}


# Evaluate and predict


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "given-step-9.safetensors", RECIPES["notebook-softmax-plot"].workload)


@pytest.mark.parametrize(
    ("infos", "status"),
    [
        ((fakes.STEADY, fakes.ABSENT), 0),
        ((fakes.STEADY, fakes.EXITS), 3),
        ((fakes.WRONG, fakes.EXITS), 1),
    ],
    ids=["right, one not installed", "one failed", "one wrong, one failed"],
)
def test_a_model_is_evaluated_and_the_status_says_whether_it_is_the_same_network(
    infos: tuple[BackendInfo, ...], status: int, model: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, infos)
    said = call("evaluate", str(model), *SAMPLE)
    assert (said.status, said.err) == (status, ""), said
    assert "given-step-9.safetensors, trained in numpy (float64), seed 1" in said.out
    rows = {line.split()[0] for line in said.out.splitlines() if line.strip()}
    assert rows >= {info.title for info in infos if info is not fakes.ABSENT}
    assert ("TOO FAR" in said.out) == (fakes.WRONG in infos)
    assert ("Exits: the process ended with status 7" in said.out) == (fakes.EXITS in infos)
    absent = "absent: not installed: no-such-framework or no-such-twin."
    assert (absent in said.out) == (fakes.ABSENT in infos)


def test_a_model_that_held_out_more_than_the_sample_has_is_evaluated_on_it(
    tmp_path: Path, call: Call
) -> None:
    path = make_model(tmp_path / "m-step-1.safetensors", RECIPES["notebook-one-layer"].workload)
    said = call("evaluate", str(path), "--backend", "numpy", *SAMPLE)
    assert (said.status, said.err) == (0, ""), said
    path.write_bytes(path.read_bytes()[:-9])
    call("evaluate", str(path), "--backend", "numpy", *SAMPLE).refused(3, f"{path} cannot be read")


def test_a_prediction_shows_every_class_and_which_is_right(model: Path, call: Call) -> None:
    said = call("predict", str(model), "--index", "3", "--sample")
    assert (said.status, said.err) == (0, ""), said
    lines = said.out.splitlines()
    assert lines[0] == "given-step-9.safetensors, test image 3 of mnist"
    shares = [float(line.split()[1]) for line in lines[2:12]]
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert sum("<- its class" in line for line in lines) == 1
    assert lines[-1].startswith(f"Predicted: {shares.index(max(shares))}, which is ")
    call("predict", str(model), "--index", "500", "--sample").refused(2, "--index 500", "0 to 499")


# Show


def test_a_training_is_shown_in_its_own_folder(call: Call, tmp_path: Path) -> None:
    header = make_header("notebook-softmax-plot", steps=200)
    write_training(tmp_path / "mine", header, make_figures([0, 100, 200]), model=True)
    said = call("show", "mine", "weights", "curves", "--sample")
    assert (said.status, said.err) == (0, ""), said
    names = ["curves", "weights"]
    assert said.out.splitlines() == [f"mine/pictures/{name}.svg" for name in names]
    assert {path.stem for path in (tmp_path / "mine/pictures").iterdir()} == set(names)


def test_only_the_picture_that_is_named_is_drawn_and_where_it_is_wanted(call: Call, tmp_path: Path) -> None:
    said = call("show", "mnist", "samples", "--sample", "--output", "there")
    assert (said.status, said.out) == (0, "there/samples.svg\n"), said
    assert b"<svg" in (tmp_path / "there/samples.svg").read_bytes()


# Notebooks


@pytest.fixture
def one_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the only recipe be one of two dozen steps on the sample, as the whole data set is not here.

    Its report has no pictures.
    """
    recipe = small(seeds=2, published=RECIPES["notebook-softmax-plot"].published)
    for place in ("bench.recipes.catalog", "bench.recipes.command"):
        monkeypatch.setattr(f"{place}.RECIPES", {recipe.name: recipe})
    monkeypatch.setattr("bench.recipes.report.drawings", lambda *arguments: [])
    monkeypatch.setattr("bench.datasets.cache.fetch", lambda *arguments, **options: None)
    monkeypatch.setattr("bench.datasets.cache.load", lambda name, cache, limit=None: load_sample(name, limit))


@pytest.mark.usefixtures("one_recipe")
def test_a_budget_that_is_spent_still_ends_with_a_report(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known(monkeypatch, [fakes.STEADY])
    (recipe,) = recipes.RECIPES.values()
    header = make_header(recipe, "torch", sample=False)
    write_training(tmp_path / "table/torch", header, make_figures([0, 24]))
    monkeypatch.setattr("bench.recipes.command.parse_budget", lambda text: 0.0)
    said = call("notebooks", "--budget", "10s", "--folder", "table")
    assert said.status == 3, said
    assert said.err.splitlines() == [
        f"bench: notebook-softmax-plot-steady-seed-{seed}: the budget was spent" for seed in (0, 1)
    ]
    assert said.out.splitlines()[-1] == "Report: table/report.html"
    assert "notebook-softmax-plot: 0.9238 at step 5,000 (test accuracy)" in said.out


@pytest.mark.usefixtures("one_recipe")
def test_trainings_there_are_reported_without_training(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (recipe,) = recipes.RECIPES.values()
    for seed in (0, 1):
        header = make_header(recipe, "torch", seed, sample=False)
        write_training(tmp_path / f"table/{seed}", header, make_figures([0, 100, 5000], final=0.92))
    (tmp_path / "table/broken").mkdir()
    (tmp_path / "table/broken/train.json").write_text("{")
    known(monkeypatch, [])
    said = call("notebooks", "--report-only", "--folder", "table")
    assert said.status == 3, said
    assert said.err.startswith("bench: cannot read table/broken/train.json")
    assert "\N{BULLET} PyTorch: 0.9200 ± 0.0000 (2) [0.9200, 0.9200]: outside" in said.out.splitlines()
    assert (tmp_path / "table/NOTEBOOKS.md").is_file()
    (tmp_path / "table/broken/train.json").unlink()
    said = call("notebooks", "--report-only", "--folder", "table")
    assert (said.status, said.err) == (0, "")


@pytest.mark.usefixtures("one_recipe")
def test_a_folder_without_any_training_is_named(call: Call) -> None:
    call("notebooks", "--report-only", "--folder", "table").refused(2, "there is no training run in table.")


@pytest.mark.usefixtures("one_recipe")
def test_an_interrupted_table_says_that_the_same_command_continues(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, [fakes.STEADY])
    monkeypatch.setattr("bench.recipes.notebooks.train", interrupt)
    said = call("notebooks", "--folder", "table")
    assert said.status == 130
    assert said.out.splitlines()[-1] == "Interrupted; what is trained is kept. The same command continues."


def test_the_seeds_that_help_tells_are_those_of_the_recipes(call: Call) -> None:
    *firsts, last = (str(recipe.seeds) for recipe in RECIPES.values())
    said = " ".join(call("notebooks", "--help").out.split())
    assert f"[default: {', '.join(firsts)} and {last}, in the order of bench list]" in said


# Help


def test_help_lists_the_commands_and_imports_no_library_of_theirs() -> None:
    script = (
        "import sys; sys.argv = ['bench', '--help']\n"
        "from bench.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n    print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True, timeout=300, cwd=fakes.TESTS.parent,
    )  # fmt: skip
    for command in ("train", "evaluate", "predict", "show", "notebooks"):
        assert f"\n  {command} " in done.stdout
    imported = set(done.stderr.split())
    assert "bench.cli.main" in imported, "the list of modules is not to be trusted"
    heavy = {"numpy", "matplotlib", "scipy", "rich", "msgspec", "safetensors", "tensorboard", "torch", "jax"}
    assert heavy & imported == set()
