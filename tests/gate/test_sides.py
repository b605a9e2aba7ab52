"""What a side is asked to be, how its own code is asked what it is, and what its workers are started with."""

import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import RecordError, UsageError
from bench.gate.environments import PROJECT
from bench.gate.sides import Side, SideSpec, code_variables, describe, parse_side
from bench.worker.protocol import VERSION
from bench.workloads.catalog import WORKLOADS


def test_a_side_is_a_revision_versions_and_variables_in_any_order():
    spec = parse_side(["torch==2.13.0", "XLA_FLAGS=--a=1 --b=2", "origin/main", "JAX==0.9.2", "EMPTY="])
    assert spec.revision == "origin/main"
    assert spec.pins == {"torch": "2.13.0", "jax": "0.9.2"}
    assert spec.variables == {"XLA_FLAGS": "--a=1 --b=2", "EMPTY": ""}
    assert spec.asked[0] == "torch==2.13.0"
    assert parse_side([]) == SideSpec()


@pytest.mark.parametrize("value", ["", "-x", "--upload-pack=touch hacked"])
def test_what_is_none_of_these_is_refused(value):
    with pytest.raises(UsageError, match="not a revision, a version"):
        parse_side([value])


def test_a_side_has_one_revision():
    with pytest.raises(UsageError, match="'main' and 'HEAD~1'"):
        parse_side(["main", "HEAD~1"])


@given(
    st.from_regex(r"[A-Z_][A-Z0-9_]{0,12}", fullmatch=True),
    st.text().filter(lambda text: not text.startswith("=")),
)
def test_a_variable_comes_back_whatever_its_value(name, value):
    assert parse_side([f"{name}={value}"]).variables == {name: value}


def test_this_code_tells_its_backends_and_workloads():
    told = describe(Path(sys.executable), PROJECT)
    assert told.workloads == dict(WORKLOADS)
    assert told.protocol == VERSION
    assert {"numpy", "torch", "tensorflow", "jax"} <= told.backends.keys()


def test_another_codes_workloads_are_its_own(tmp_path):
    (tmp_path / "backends").symlink_to(PROJECT / "backends")
    shutil.copytree(PROJECT / "bench", tmp_path / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    changed = tmp_path / "bench" / "workloads" / "catalog.py"
    source = changed.read_text()
    assert "learning_rate=0.001" in source
    changed.write_text(source.replace("learning_rate=0.001", "learning_rate=0.01"))
    protocol = tmp_path / "bench" / "worker" / "protocol.py"
    protocol.write_text(protocol.read_text().replace(f"VERSION = {VERSION}", ""))
    told = describe(Path(sys.executable), tmp_path)
    assert told.protocol == 1, "as of a commit from before it was told"
    rates = {name: one.optimizer.learning_rate for name, one in told.workloads.items()}
    here = {name: one.optimizer.learning_rate for name, one in WORKLOADS.items()}
    assert {name for name in here if rates[name] != here[name]} >= {"mnist-mlp-adam"}


def test_code_from_before_the_folders_tells_its_backends_and_workloads(tmp_path):
    modules = {
        "__init__.py": "",
        "registry.py": "from types import SimpleNamespace\n"
        "def find_backends():\n    return SimpleNamespace(backends={}, broken={'odd': 'no module'})\n",
        "workloads.py": "WORKLOADS = {}\n",
        "protocol.py": "VERSION = 3\n",
    }
    (tmp_path / "bench").mkdir()
    for name, source in modules.items():
        (tmp_path / "bench" / name).write_text(source)
    told = describe(Path(sys.executable), tmp_path)
    assert (told.protocol, dict(told.broken)) == (3, {"odd": "no module"})


def test_code_that_is_none_of_this_program_is_named(tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("")
    with pytest.raises(RecordError, match="cannot be asked for its backends") as error:
        describe(Path(sys.executable), tmp_path)
    assert "registry" in str(error.value)
    assert "Traceback" not in str(error.value)


def test_an_interpreter_that_is_none_is_named(tmp_path):
    with pytest.raises(RecordError, match="cannot be asked"):
        describe(tmp_path / "python", PROJECT)


def test_a_sides_code_and_variables_come_before_all_others(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    side = Side(
        name="head", spec=SideSpec(variables={"JAX_PLATFORMS": "cuda", "A": "1"}), source=Path("/code"),
        commit=None, dirty=None, pythons={}, described=describe(Path(sys.executable), PROJECT), versions={},
    )  # fmt: skip
    info = side.info("jax")
    assert info.environment["PYTHONPATH"] == "/code:/elsewhere"
    assert info.environment["A"] == "1"
    assert info.cpu_environment["JAX_PLATFORMS"] == "cuda"
    assert code_variables(Path("/code"))["PYTHONSAFEPATH"] == "1"
