"""Whatever the module of a plug-in does when it is imported, it is named, and the others are read."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import fakes
import pytest

from bench.measuring import plugins
from bench.measuring.plugins import read_infos

GOOD = "from fakes import info\nINFO = info('good', 'fakes:Steady')\n"
SAID = {
    "leaves": ("raise SystemExit(3)", "its module calls sys.exit(3) when it is imported."),
    "leaves_quietly": ("import sys\nsys.exit()", "its module calls sys.exit(None) when it is imported."),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "ends": (
        "import os, sys\nprint('bye', file=sys.stderr, flush=True)\nos._exit(9)",
        "its module ended the process with status 9: bye",
    ),
    "crashes": ("import os\nos.kill(os.getpid(), 9)", "with status -9: it printed nothing"),
    "raises": ("raise BaseException('one\\x1b[31m\\ntwo')", "BaseException: one\ufffd[31m two"),
    "is_no_python": ("def (:", "SyntaxError: invalid syntax"),
    "lacks_it": ("", "AttributeError: module 'lacks_it' has no attribute 'INFO'"),
    "another_kind": ("INFO = 3", "its entry point must name a BackendInfo, not a int."),
    "wrong_value": (f"{GOOD}INFO = info('good', 5)", "its BackendInfo has a wrong value: Expected `str`"),
    "no_value": (f"{GOOD}INFO = info('good', object())", "its BackendInfo has a wrong value: "),
}
READ = {
    "prints": f"import os\nprint('x' * 100_000)\nos.write(1, b'raw')\n{GOOD}",
    "keeps_a_thread": (
        f"import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n{GOOD}"
    ),
    "moves_away": f"{GOOD}import os\nos.chdir('/')\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def read(folder: Path, **modules: str) -> dict[str, object]:
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    return dict(zip(modules, read_infos([f"{name}:INFO" for name in modules]), strict=True))


def test_what_a_module_does_when_it_is_imported_is_named_and_hides_no_other(folder: Path) -> None:
    found = read(folder, **{name: source for name, (source, _) in SAID.items()}, good=GOOD)
    for name, (_, said) in SAID.items():
        assert said in str(found[name]), name
    assert found["good"] == fakes.info("good", "fakes:Steady")


def test_a_module_may_print_and_keep_a_thread(folder: Path) -> None:
    found = read(folder, **READ)
    assert set(found) == set(READ)
    assert all(info == fakes.info("good", "fakes:Steady") for info in found.values()), found


def test_a_module_that_hangs_is_named_and_costs_the_others_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "LIMIT_S", 250.0)
    # The time at the beginning, and before each answer: those that hang have 2 s left, the good one all.
    times = iter((0.0, 248.0, 0.0, 248.0))
    monkeypatch.setattr(plugins, "time", SimpleNamespace(monotonic=lambda: next(times)))
    began = time.monotonic()
    found = read(folder, hangs="import time\ntime.sleep(600)", good=GOOD, hangs_too="while True: pass")
    assert found["hangs"] == found["hangs_too"] == "its module was not imported within 250 s."
    assert found["good"] == fakes.info("good", "fakes:Steady")
    assert time.monotonic() - began < 300


@pytest.mark.parametrize("value", ["", "no colon at all", ":NAME", "a b:c"])
def test_a_value_that_is_no_entry_point_is_named(value: str) -> None:
    assert read_infos([value]) == ["its entry point is not module:NAME."]


def test_the_module_is_not_imported_here(folder: Path) -> None:
    read(folder, only_in_the_child=GOOD)
    assert "only_in_the_child" not in sys.modules


def test_a_module_in_the_current_folder_is_not_taken_for_one_of_the_harness(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path_factory.mktemp("here")
    for name in ("json", "msgspec", "bench", "backends", "typing"):
        (here / f"{name}.py").write_text("raise SystemExit('hidden')\n")
    monkeypatch.chdir(here)
    assert read(folder, good=GOOD)["good"] == fakes.info("good", "fakes:Steady")
