"""The command says what hides one of its modules, with a status that no measured failure has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(folder: Path, before: str, *arguments: str, first: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, after a line of Python; `first` is the first entry of PYTHONPATH."""
    script = f"import os, sys; {before}; sys.argv[0] = 'bench'; from samework import main; main()"
    path = os.pathsep.join(filter(None, [first, str(ROOT)]))
    return subprocess.run(
        [sys.executable, "-P", "-c", script, *arguments], check=False, cwd=folder, capture_output=True,
        text=True, timeout=300, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def first_on_the_path(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a folder on PYTHONPATH, as a relative path, before anything else."""
    return run(
        folder, "here = os.getcwd(); sys.path.remove(here); sys.path.insert(0, here)", *arguments, first="."
    )


@pytest.mark.parametrize("source", ["x = 1", "raise SystemExit(0)", "1 / 0"])
@pytest.mark.parametrize(
    ("file", "hidden"),
    [
        ("bench.py", "package 'bench'"),
        ("bench/__init__.py", "package 'bench'"),
        ("backends.py", "package 'backends'"),
        ("click.py", "module 'click'"),
        ("typing.py", "module 'typing'"),
    ],
)
def test_what_hides_a_module_is_named_with_what_to_do(
    file: str, hidden: str, source: str, tmp_path: Path
) -> None:
    place = tmp_path / file
    place.parent.mkdir(exist_ok=True)
    place.write_text(source)
    done = first_on_the_path(tmp_path, "list")
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert str(tmp_path / Path(file).parts[0]) in done.stderr
    assert hidden in done.stderr
    assert f"Rename it, or remove {tmp_path} from PYTHONPATH." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_script_that_ends_the_command_half_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "subprocess.py").write_text("raise SystemExit(0)")
    done = first_on_the_path(tmp_path, "list")
    assert (done.returncode, done.stdout) == (3, "")
    assert f"{tmp_path / 'subprocess.py'} hides the module 'subprocess'" in done.stderr


def test_a_fault_of_a_hidden_module_is_a_fault_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "msgspec.py").write_text("")
    done = first_on_the_path(tmp_path, "list")
    assert done.returncode == 70
    assert f"\nbench: {tmp_path / 'msgspec.py'} hides the module 'msgspec'." in done.stderr


@pytest.mark.parametrize("name", ["bench", "json", "numpy", "typing"])
def test_a_module_in_the_current_folder_hides_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("raise SystemExit('hidden')")
    done = run(tmp_path, "pass", "--version")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_package_of_another_distribution_is_named_with_its_owner(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").touch()
    (tmp_path / "bench" / "cli.py").touch()
    info = tmp_path / "frappe_bench-5.22.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: frappe-bench\nVersion: 5.22\n")
    (info / "RECORD").write_text("bench/__init__.py,,\nbench/cli.py,,\n")
    done = run(tmp_path.parent, f"sys.path.insert(0, {str(tmp_path)!r})", "--version")
    assert done.returncode == 3
    assert f"Python finds {tmp_path / 'bench' / '__init__.py'}" in done.stderr
    assert "It belongs to frappe-bench 5.22. Uninstall it, or use another environment" in done.stderr


def test_a_wrong_command_is_still_a_wrong_command(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("")
    done = first_on_the_path(tmp_path, "lst")
    assert done.returncode == 2
    assert "hides" not in done.stderr


@pytest.mark.parametrize("name", ["json", "msgspec", "typing"])
def test_python_m_bench_does_not_import_from_the_current_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("raise SystemExit('hidden')")
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--version"], check=False, cwd=tmp_path, capture_output=True,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("samework, version")


def test_python_m_bench_runs_in_a_checkout_that_is_not_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--version"], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
