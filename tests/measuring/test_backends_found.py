"""A stranger's backend is found by entry point, and a broken one is named and hurts no other."""

import sys
from importlib import metadata
from pathlib import Path

import fakes
import pytest
from conftest import INFOS

from bench.errors import ContractError, UsageError
from bench.measuring import backends as registry
from bench.measuring.backends import Registry, find_backends, footprints, installed_versions, interpreter
from bench.worker.loading import load_backend

BROKEN_MODULE = """
from backends.info import BackendInfo, Mode
from fakes import info
NOT_AN_INFO = {"name": "dictionary"}
MISNAMED = info("somebody-else", "fakes:Steady")
TWO_DEFAULTS = info(
    "two-defaults", "fakes:Steady",
    modes=(Mode(name="a", summary="", default=True), Mode(name="b", summary="", default=True)),
)
NO_DEFAULT = info("no-default", "fakes:Steady", modes=(Mode(name="a", summary=""),))
"""
ENTRIES = {
    "steady": "fakes:STEADY",
    "quick": "fakes:QUICK",
    "dictionary": "stranger:NOT_AN_INFO",
    "misnamed": "stranger:MISNAMED",
    "two-defaults": "stranger:TWO_DEFAULTS",
    "no-default": "stranger:NO_DEFAULT",
    "nobody": "stranger:NOBODY",
    "raising": "stranger_raising:INFO",
    "missing": "no_such_module:INFO",
}


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Install a distribution whose entry points are broken in every way, and read the registry."""
    folder = tmp_path_factory.mktemp("strangers")
    fakes.distribution(folder, ENTRIES)
    (folder / "stranger.py").write_text(BROKEN_MODULE)
    (folder / "stranger_raising.py").write_text("raise ImportError('needs libfoo.so.7')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        return find_backends()


def test_the_projects_own_backends_are_found() -> None:
    found = find_backends()
    assert {"numpy", "tensorflow", "torch", "jax"} <= found.backends.keys()
    assert found.broken == {}
    assert {info.name for info in found.frameworks()} == {"tensorflow", "torch", "jax"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dictionary", "must name a BackendInfo, not a dict"),
        ("misnamed", "its BackendInfo is called 'somebody-else'"),
        ("two-defaults", "2 of its modes are marked as default; it must be exactly one"),
        ("no-default", "0 of its modes are marked as default; it must be exactly one"),
        ("nobody", "NOBODY"),
        ("raising", "needs libfoo.so.7"),
        ("missing", "No module named 'no_such_module'"),
    ],
)
def test_a_broken_backend_is_named_with_the_reason(name: str, said: str, strangers: Registry) -> None:
    assert name not in strangers.backends
    reason = strangers.broken[name]
    assert reason.startswith(f"backend {name!r} ({ENTRIES[name]}) cannot be used: ")
    assert said in reason
    with pytest.raises(ContractError, match="cannot be used"):
        strangers.find(name)


def test_the_others_go_on(strangers: Registry) -> None:
    assert INFOS.keys() | {"steady", "quick"} == strangers.backends.keys()
    assert strangers.find("steady") == fakes.STEADY
    assert strangers.names() == strangers.backends.keys() | strangers.broken.keys()


@pytest.mark.parametrize(
    ("value", "usable"), [("fakes:QUICK", False), ("fakes:STEADY", True)], ids=["another", "the same"]
)
def test_a_name_that_two_distributions_give_to_different_backends_is_used_by_neither(
    value: str, usable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, target in (("first", "fakes:STEADY"), ("second", value)):
        fakes.distribution(tmp_path, {"steady": target}, name=name)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = find_backends()
    assert ("steady" in found.backends, "steady" in found.broken) == (usable, not usable)
    if not usable:
        said = found.broken["steady"]
        assert {"first 1.0 (fakes:STEADY)", "second 1.0 (fakes:QUICK)"} == {
            part for part in ("first 1.0 (fakes:STEADY)", "second 1.0 (fakes:QUICK)") if part in said
        }
        assert said.endswith("Uninstall all but one.")
    assert {"tensorflow", "torch", "jax"} <= found.backends.keys()


def test_damaged_metadata_of_one_distribution_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.distribution(tmp_path, {"steady": "fakes:STEADY"}, name="good")
    fakes.distribution(tmp_path, {"quick": "fakes:QUICK"}, name="damaged")
    (tmp_path / "damaged-1.0.dist-info" / "entry_points.txt").write_bytes(
        b"[bench.backends]\nx = \xff:INFO\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = find_backends()
    assert {"steady", "torch"} <= found.backends.keys()
    assert found.broken.keys() == {"damaged"}
    assert found.broken["damaged"].startswith(
        "the entry points of the distribution 'damaged' cannot be read: "
    )


def test_an_unknown_backend_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown backend 'tensorflo'; did you mean 'tensorflow'"):
        find_backends().find("tensorflo")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("fakes:Incomplete", "lacks export_params, save_state, restore_state, describe"),
        ("fakes:STEADY", "is no class"),
        ("fakes:Nobody", "is no class"),
        ("fakes", "is no class"),
    ],
)
def test_a_class_that_keeps_no_contract_is_refused(target: str, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        load_backend(fakes.info("fake", target))


def test_a_class_that_keeps_the_contract_is_returned() -> None:
    assert load_backend(fakes.STEADY) is fakes.Steady


def test_one_of_several_names_of_a_distribution_is_enough() -> None:
    backend = fakes.info("fake", "fakes:Steady", distributions=("no-such-thing|numpy", "msgspec"))
    versions, missing = installed_versions([backend], {})["fake"]
    assert versions == {"numpy": metadata.version("numpy"), "msgspec": metadata.version("msgspec")}
    assert missing == []


def test_what_is_not_installed_is_named_with_all_its_names() -> None:
    _, missing = installed_versions([fakes.ABSENT], {})["absent"]
    assert missing == ["no-such-framework|no-such-twin"]


def test_versions_are_those_of_the_backends_own_interpreter(tmp_path: Path) -> None:
    stub = fakes.program(tmp_path / "python", ["""echo '{"numpy": "0.0.7"}'"""])
    found = installed_versions([fakes.STEADY, fakes.QUICK], {"steady": stub})
    assert found["steady"] == ({"numpy": "0.0.7"}, [])
    assert found["quick"] == ({"numpy": metadata.version("numpy")}, [])


def test_the_question_to_an_interpreter_is_one_that_python_can_answer() -> None:
    """The stub above takes any question: this is the real one."""
    versions, missing = installed_versions([fakes.STEADY], {"steady": Path(sys.executable)})["steady"]
    assert (versions, missing) == ({"numpy": metadata.version("numpy")}, [])


def test_an_environment_without_the_framework_says_so(tmp_path: Path) -> None:
    stub = fakes.program(tmp_path / "python", ["""echo '{"numpy": null}'"""])
    assert installed_versions([fakes.STEADY], {"steady": stub})["steady"] == ({}, ["numpy"])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["echo hello"], "does not run as a Python interpreter"),
        (["echo null"], "does not run as a Python interpreter"),
        (["echo '[1, 2]'"], "does not run as a Python interpreter"),
        (["printf '\\377'"], "does not run as a Python interpreter"),
        (["echo first >&2", "echo no libpython >&2", "exit 127"], "interpreter: no libpython$"),
        (["exit 3"], "interpreter: it ended with status 3$"),
    ],
)
def test_a_program_that_is_no_python_is_refused(lines: list[str], said: str, tmp_path: Path) -> None:
    stub = fakes.program(tmp_path / "python", lines)
    with pytest.raises(UsageError, match=said) as caught:
        installed_versions([fakes.STEADY], {"steady": stub})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["json", "numpy", "importlib", "bench", "backends", "typing"])
def test_a_module_in_the_current_folder_hides_none_of_an_interpreters(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{name}.py").write_text("raise SystemExit('hidden')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", fakes.python_path())
    own = {"steady": Path(sys.executable)}
    assert installed_versions([fakes.STEADY], own)["steady"][0] == {"numpy": metadata.version("numpy")}
    assert footprints([fakes.STEADY], own).keys() == {"steady"}


def test_a_python_that_is_too_old_is_named(tmp_path: Path) -> None:
    lines = ["echo 'Unknown option: -P' >&2", "echo 'Try python -h for more information.' >&2", "exit 2"]
    stub = fakes.program(tmp_path / "python", lines)
    with pytest.raises(UsageError, match=r"python is older than Python 3\.11, which workers need"):
        installed_versions([fakes.STEADY], {"steady": stub})


def test_a_file_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("text")
    with pytest.raises(UsageError, match="Permission denied"):
        installed_versions([fakes.STEADY], {"steady": tmp_path / "python"})


def test_a_program_that_gives_no_answer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_VERSIONS_LIMIT_S", 0.3)
    stub = fakes.program(tmp_path / "python", ["exec sleep 60"])
    with pytest.raises(UsageError, match="gave no answer"):
        installed_versions([fakes.STEADY], {"steady": stub})


def test_a_backend_runs_in_its_own_interpreter_or_in_ours(tmp_path: Path) -> None:
    own = {"steady": tmp_path / "python"}
    assert interpreter(fakes.STEADY, own) == tmp_path / "python"
    assert interpreter(fakes.QUICK, own) == Path(sys.executable)
