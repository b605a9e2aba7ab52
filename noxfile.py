"""The project's chores: `nox -l` lists them, and `pip install nox && nox -s tests` needs nothing else.

Three frameworks take a minute and some gigabytes to install, and nox would give every session its own copy.
So `tests` and `verify` share one environment, and `bench` has one for each framework. All are kept under
`.nox/` and installed into again only after pyproject.toml or constraints.txt has changed. The project is
installed editable: source edits count at once.

Where uv is installed, beside nox or elsewhere on the path, it installs instead of pip, which takes longer. It
takes packages from where pip is configured to.

The environments use the Python that nox runs on, or one that is found where the frameworks have no build for
that. `nox --force-python 3.12 -s bench`, or the variable NOXFORCEPYTHON, chooses another.
"""

import ast
import functools
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import nox

nox.needs_version = ">=2026"
nox.options.default_venv_backend = "uv|venv"
nox.options.sessions = ["tests"]

ROOT = Path(__file__).resolve().parent
PYPROJECT = ROOT / "pyproject.toml"
CONSTRAINTS = ROOT / "constraints.txt"
PROJECT = nox.project.load_toml(PYPROJECT)
FRAMEWORKS = ("tensorflow", "torch", "jax")
ON_REQUEST = ("keras-tensorflow", "keras-torch", "keras-jax")
"""What gets an environment only where it is named after `--`."""
PYTHONS = ("3.13", "3.12", "3.11")
"""The versions for which every framework that constraints.txt pins has a build; the first is preferred."""
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's own index of builds without CUDA. On Linux those of the package registry bring CUDA libraries."""
CPU_INDEX_LIMIT_S = 5
OPEN = """
import sys, urllib.request
try:
    urllib.request.urlopen(sys.argv[1], timeout=60).close()
except OSError as error:
    sys.exit(str(getattr(error, "reason", error)))
"""
"""A script that opens an address; if that fails, its last line is the reason."""
UV_VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "no-index": ("UV_OFFLINE", " "),  # uv has no variable for --no-index
    "constraint": ("UV_CONSTRAINT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
}
"""For each setting of pip that says where packages come from: uv's variable, and what separates values."""


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """Run the tests on the CPU, all three frameworks in one environment; pytest gets what follows `--`.

    Two at a time, then so those that measure, then alone those that fill the cores. With anything after `--`,
    one by one.
    """
    run_tests(session, {})


@nox.session(python=False)
def nightly(session: nox.Session) -> None:
    """Run what takes too long for every change: the tests with all draws, all modes, and a known fault.

    The tests come first, then `verify` and `reproduce`, whether or not the tests passed.
    """
    session.notify("verify", posargs=["--mode", "all"])
    session.notify("reproduce(script='jax_39103')", posargs=[])
    run_tests(session, {"SAMEWORK_FULL": "1"})


def run_tests(session: nox.Session, variables: Mapping[str, str]) -> None:
    """Run the tests with these variables set, in three parts, and fail once all have run."""
    environment = cpu_environment(session)
    # Here every framework is installed: a test that is skipped for want of one would hide a fault.
    env = {"SAMEWORK_REQUIRE_FRAMEWORKS": "1", **variables}
    pytest = (program(environment, "python"), "-m", "pytest")
    if session.posargs:
        session.run(*pytest, *session.posargs, env=env, external=True)
        return
    # Modules share what takes long to make: a module stays with one process; conftest begins with long ones.
    two_at_a_time = ("-n", "2", "--dist=loadfile", "--no-loadscope-reorder")
    failed = []
    for part, options in (
        ("not measures and not alone", two_at_a_time),
        ("measures", (*two_at_a_time, *files_with("measures"))),
        ("alone", files_with("alone")),
    ):
        try:
            session.run(*pytest, "-m", part, *options, env=env, external=True)
        except nox.command.CommandFailed:  # the other parts are still worth knowing
            failed.append(part)
    if failed:
        session.error(f"Tests failed among those marked: {'; '.join(failed)}.")


def files_with(mark: str) -> tuple[str, ...]:
    """Return the test files that use a mark. Collecting these alone saves the import of all the others."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return tuple(str(file.relative_to(ROOT)) for file in files if f"pytest.mark.{mark}" in file.read_text())


@nox.session(reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Check style, types and the direction of imports; needs no framework."""
    session.install(*requirements([], ["lint"]), silent=False, env=package_sources())
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session(python=False)
def verify(session: nox.Session) -> None:
    """Compare each framework with the float64 reference; `bench verify` gets what follows `--`."""
    environment = cpu_environment(session)
    session.run(program(environment, "bench"), "verify", "--device", "cpu", *session.posargs, external=True)


@nox.session(reuse_venv=True)
@nox.parametrize("script", sorted(path.stem for path in (ROOT / "tests" / "reproducers").glob("*.py")))
def reproduce(session: nox.Session, script: str) -> None:
    """Reproduce a known fault of a framework, in an environment that holds the faulty version.

    A script ends with status 1 where the fault is there, which is what it is for: the session then passes.
    """
    path = ROOT / "tests" / "reproducers" / f"{script}.py"
    session.install(*nox.project.load_toml(path)["dependencies"], env=package_sources())
    session.run("python", str(path), success_codes=[1])


@nox.session(python=False)
def benchmarks(session: nox.Session) -> None:
    """Measure each cell, each mode against a loop by hand, and this program; pytest gets what follows `--`.

    On the CPU, for two hours; nothing else may run meanwhile. `tests/benchmarks/cells.py` after
    `--` takes that file alone, which takes minutes; `-k "jax and softmax"` picks cells, and `-m ""` takes
    every mode and backend, not the default modes alone. pytest-benchmark's options save, compare and draw:
    `--benchmark-autosave`, `--benchmark-compare --benchmark-compare-fail=mean:30%`, `--benchmark-histogram`.
    """
    environment = cpu_environment(session)
    session.run(program(environment, "bench"), "data", "fetch", "mnist", "cifar10", external=True)
    named = [argument for argument in session.posargs if argument.partition("::")[0].endswith(".py")]
    # Files stand first, as some options take what follows them; of an option said twice the last counts.
    files = () if named else [f"tests/benchmarks/{name}.py" for name in ("cells", "throughput", "harness")]
    cells = () if any("::" in argument for argument in named) else ("-m", "not on_request")
    session.run(
        program(environment, "python"), "-m", "pytest", *files, "-p", "no:randomly", "--timeout=0", *cells,
        "--benchmark-max-time=3", *session.posargs, external=True,
    )  # fmt: skip


@nox.session(python=False)
def bench(session: nox.Session) -> None:
    """Run the quick benchmark, on the GPU where there is one; `bench run` gets what follows `--`.

    Each framework gets an environment of its own, since side by side they disturb each other: TensorFlow
    imports JAX where it finds it, which makes it start later, and on a GPU their CUDA libraries collide.
    BENCH_GPU=1 takes the GPU without looking for a driver, BENCH_GPU=0 the CPU.
    """
    environment = prepare(session, "harness")
    gpu = gpu_wanted(session)
    pythons = framework_pythons(session, wanted_backends(session.posargs, gpu=gpu), gpu=gpu)
    # A run that is resumed knows its preset and its device, and takes no others.
    resumed = bool(values_of("--resume", session.posargs))
    begin = () if resumed else ("--preset", "quick", "--device", "gpu" if gpu else "cpu")
    session.run(
        program(environment, "bench"), "run", *begin, *pythons, *session.posargs, external=True,
    )  # fmt: skip


@nox.session(python=False)
def regression(session: nox.Session) -> None:
    """Compare this code with a commit, version or variable, side by side; `bench ab` gets what follows `--`.

    `--base REV` is the least to say. What needs other packages than this code gets environments of its own.
    """
    environment = prepare(session, "harness")
    gpu = gpu_wanted(session)
    pythons = framework_pythons(session, wanted_backends(session.posargs, gpu=gpu), gpu=gpu)
    # `bench ab` installs other versions with pip.
    variables = {} if gpu else package_sources(cpu_index(session))
    of_pip = {name: value for name, value in variables.items() if name.startswith("PIP_")}
    session.run(
        program(environment, "bench"), "ab", "--device", "gpu" if gpu else "cpu", *pythons,
        *session.posargs, env=of_pip, external=True,
    )  # fmt: skip


@nox.session(python=False)
def notebooks(session: nox.Session) -> None:
    """Reproduce the notebooks in every framework, for hours; `bench notebooks` gets what follows `--`."""
    environment = prepare(session, "harness")
    gpu = gpu_wanted(session)
    pythons = framework_pythons(session, FRAMEWORKS, gpu=gpu)
    device = "gpu" if gpu else "cpu"
    session.run(
        program(environment, "bench"), "notebooks", "--device", device, *pythons, *session.posargs,
        external=True,
    )  # fmt: skip


@nox.session(python=False)
def campaign(session: nox.Session) -> None:
    """Run the next part of the campaign that is due, or go on with it: `-- --list` shows all parts.

    `-- PART` runs one by its name. A part takes up to 100 minutes, and nothing else may run meanwhile. Ctrl-C
    leaves it so that the same command goes on. docs/campaign.md has the other options.
    """
    environment = prepare(session, "harness")
    module = (program(environment, "python"), "-P", "-m", "campaign")
    path = [str(ROOT / "scripts"), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {"PYTHONPATH": os.pathsep.join(path)}
    # Whose environments the part needs: none to list, six for Keras.
    said = session.run(*module, "--backends", *session.posargs, env=variables, silent=True, external=True)
    wanted = str(said or "").split()
    named = [name for name in wanted if name != "tests"]
    pythons = framework_pythons(session, named, gpu=False) if named else []
    if "tests" in wanted:
        tests = cpu_environment(session).relative_to(ROOT)
        pythons += ["--python", f"tests={program(tests, 'python')}"]
        # One of its parts installs the frameworks with pip.
        sources = package_sources(cpu_index(session))
        variables |= {name: value for name, value in sources.items() if name.startswith("PIP_")}
    # What it runs may need a minute to end, and it waits for that.
    session.run(
        *module, *pythons, *session.posargs, env=variables, external=True,
        interrupt_timeout=180, terminate_timeout=60,
    )  # fmt: skip


@nox.session(python=False)
def dev(session: nox.Session) -> None:
    """Make or update `.venv`, which holds everything for development on the CPU."""
    environment = ROOT / ".venv"
    install(session, environment, FRAMEWORKS, ["test", "lint"])
    session.log(f"Activate it with: source {program(environment, 'activate')}")


@nox.session(python=False)
def clean(session: nox.Session) -> None:
    """List what environments, caches and results take; clear what is named after `--`.

    A name is a path of the list, a folder that holds some, or `data`, the cache of data sets: `-- .nox data`.
    What git tracks stays.
    """
    listed = clearable(ROOT, data_folder())
    unknown = [name for name in session.posargs if not named(name, listed)]
    if unknown:
        session.error(f"Nothing was cleared: {', '.join(unknown)} is not in the list of `nox -s clean`")
    chosen = {path for name in session.posargs for path in named(name, listed)}
    total = 0
    for name, path in listed.items():
        size = size_of(path)
        total += size
        print(f"{size / 2**20:10,.1f} MiB  {'cleared  ' if path in chosen else ''}{name}")
        if path in chosen:
            clear(path)
    print(f"{total / 2**20:10,.1f} MiB  in all{'' if session.posargs else '; name after -- what to clear'}")


def data_folder() -> Path:
    """Return the folder in which the program keeps data sets."""
    if given := os.environ.get("BENCH_DATA"):
        return Path(given).expanduser()
    import platformdirs  # nox needs it too

    return platformdirs.user_cache_path("samework", appauthor=False) / "data"


def clearable(root: Path, data: Path) -> dict[str, Path]:
    """Return by name what may be cleared: it can be made again, or is a result, and git tracks none of it."""
    running = Path(sys.prefix).resolve()
    patterns = (
        ".nox/*/", ".venv", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache", ".benchmarks",
        "results/run-*", "results/ab-*", "results/selftest-[0-9]*", "trainings/*", "pictures",
    )  # fmt: skip
    found = {
        path.relative_to(root).as_posix(): path for pattern in patterns for path in sorted(root.glob(pattern))
    }
    # What runs nox cannot be cleared by it.
    found = {name: path for name, path in found.items() if path.resolve() not in (running, *running.parents)}
    tracked = tracked_files(root, found)
    kept = {
        name: path
        for name, path in found.items()
        if not any(file == name or file.startswith(f"{name}/") for file in tracked)
    }
    # A folder of data that somebody keeps in the repository, or around it, is no cache.
    if data.is_dir() and root not in data.resolve().parents and data.resolve() not in (root, *root.parents):
        kept["data"] = data
    return kept


def tracked_files(root: Path, names: Sequence[str] | Mapping[str, Path]) -> list[str]:
    """Return the files below these paths that git tracks; none where the folder is no repository."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--", *names]
    # A git hook sets variables, such as GIT_DIR, that would lead git to another repository.
    leading = {name for name in os.environ if name.startswith("GIT_") and not name.startswith("GIT_CONFIG")}
    variables = {name: value for name, value in os.environ.items() if name not in leading}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    except (OSError, subprocess.CalledProcessError) as error:
        if (root / ".git").exists():
            said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
            raise SystemExit(f"Nothing was cleared, as git does not tell what it tracks:\n{said}") from error
        return []
    return done.stdout.split("\0")[:-1]


def named(name: str, listed: Mapping[str, Path]) -> list[Path]:
    """Return what a name stands for: a path of the list, or all of them in the folder of that name."""
    wanted = name.rstrip("/").removeprefix("./")
    return [path for known, path in listed.items() if known == wanted or known.startswith(f"{wanted}/")]


def size_of(path: Path) -> int:
    """Return the bytes on disk; a file with several names, as uv makes them, counts once here."""
    files = {}
    for found in [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())]:
        status = found.lstat()
        files[status.st_dev, status.st_ino] = getattr(status, "st_blocks", 0) * 512 or status.st_size
    return sum(files.values())


def clear(path: Path) -> None:
    """Remove a file, a link or a folder with all below; what a link leads to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def cpu_environment(session: nox.Session) -> Path:
    """Return the environment that holds the three frameworks, on the CPU, and the tests' tools."""
    # To compile every module of three frameworks takes longer than to unpack them, and a few are imported.
    return prepare(session, "cpu", extras=FRAMEWORKS, groups=["test"], compiled=False)


class Interpreter(NamedTuple):
    """A Python that can make environments: its path, and its `sys.version`."""

    path: str
    version: str

    @property
    def minor(self) -> str:
        """The version without its last part, such as `3.12`."""
        return ".".join(self.version.split(".")[:2])


@functools.cache
def find_interpreter(session: nox.Session) -> Interpreter:
    """Return the Python of all environments: the one that nox was told to use, its own, or one that fits."""
    builds = f"the pinned frameworks have builds for Python {', '.join(PYTHONS[:-1])} and {PYTHONS[-1]}"
    if session.python:
        forced = ask_interpreter(Path(session.bin) / "python")
        if forced is None or forced.minor not in PYTHONS:
            session.error(f"Python {session.python} does not fit: {builds}.")
        return forced
    own = Interpreter(sys.executable, sys.version)
    if own.minor in PYTHONS:
        return own
    found = next(filter(None, map(ask_interpreter, interpreter_paths())), None)
    if found is None:
        session.error(
            f"Nox runs on Python {own.minor}; {builds}. None of these is on the path or under pyenv. Install "
            f"one (uv python install {PYTHONS[0]}, or pyenv install {PYTHONS[0]}) and run the command again."
        )
    session.log(
        f"Nox runs on Python {own.minor}; {builds}. "
        f"The environments use {found.path}, Python {found.version.split()[0]}."
    )
    return found


def interpreter_paths() -> Iterator[Path]:
    """Yield where a Python that fits may lie: on the path and under pyenv, the preferred version first."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for version in PYTHONS:
        name = f"python{version}"
        yield from (folder / name for folder in folders if (folder / name).is_file())
        yield from sorted(pyenv.glob(f"{version}.*/bin/{name}"), reverse=True)


def ask_interpreter(path: Path) -> Interpreter | None:
    """Return the interpreter at a path; None if it does not run, or cannot make environments.

    One of pyenv's stand-ins fails unless its version is chosen. Debian's Python may lack ensurepip.
    """
    script = "import ensurepip, sys, venv; print(sys.version)"
    try:
        done = subprocess.run(
            [str(path), "-c", script], check=True, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return Interpreter(str(path), done.stdout.strip())


def wanted_backends(arguments: Sequence[str], *, gpu: bool) -> list[str]:
    """Return the backends that need an environment: those named by `--backend`, or the three frameworks."""
    named = set(values_of("--backend", arguments))
    known = [*FRAMEWORKS, *([] if gpu else ON_REQUEST)]
    return [name for name in known if name in named] if named & set(known) else list(FRAMEWORKS)


def values_of(option: str, arguments: Sequence[str]) -> list[str]:
    """Return the values of an option, given as `--option value` or as `--option=value`."""
    pairs = [argument.partition("=") for argument in arguments]
    joined = [value for name, equals, value in pairs if name == option and equals]
    return joined + [value for name, value in itertools.pairwise(arguments) if name == option]


def framework_pythons(session: nox.Session, names: Sequence[str], *, gpu: bool) -> list[str]:
    """Return options for `bench run`: the interpreter of each framework that could be installed."""
    if gpu:
        doctor = (program(ROOT / ".nox" / "harness", "bench"), "doctor", "--before-install")
        gpus = [f"--gpu={number}" for number in values_of("--gpu", session.posargs)]
        session.run(*doctor, *(f"--backend={name}" for name in names), *gpus, external=True)
    options = []
    kind, advice = ("gpu", " BENCH_GPU=0 takes the CPU instead.") if gpu else ("cpu", "")
    for framework in names:
        extras = [f"{framework}-gpu" if gpu else framework]
        if framework in ON_REQUEST:
            extras = framework.split("-")
        try:
            environment = prepare(session, f"{kind}-{framework}", extras=extras)
        except nox.command.CommandFailed:
            session.warn(f"{framework} could not be installed for the {kind.upper()}, see above: going on.")
        else:
            # Relative, as records keep the command, and where the clone lies is nobody's business.
            options += ["--python", f"{framework}={program(environment.relative_to(ROOT), 'python')}"]
    if not options:
        session.error(f"No framework could be installed for the {kind.upper()}.{advice}")
    return options


def gpu_wanted(session: nox.Session) -> bool:
    """Whether to use the GPU: as BENCH_GPU says, else whether there is an NVIDIA driver."""
    wish = os.environ.get("BENCH_GPU", "")
    if wish not in {"", "0", "1"}:
        session.error(f"BENCH_GPU is {wish!r}; it may be 1 (GPU), 0 (CPU) or unset (look for a driver).")
    if wish:
        return wish == "1"
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def prepare(
    session: nox.Session,
    name: str,
    *,
    extras: Sequence[str] = (),
    groups: Sequence[str] = (),
    compiled: bool = True,
) -> Path:
    """Return an environment under `.nox/` that holds what is asked; at once, where it does already.

    Unless `compiled`, a module is compiled to bytecode when it is first imported.
    """
    environment = ROOT / ".nox" / name
    python = find_interpreter(session)
    stamp = environment / "installed.sha256"
    # The folder counts because an editable installation points to it.
    parts = [
        python.version, str(ROOT), PYPROJECT.read_text(), CONSTRAINTS.read_text(),
        *requirements(extras, groups), str(compiled),
    ]  # fmt: skip
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        session.log(f"{environment} is up to date.")
    else:
        stamp.unlink(missing_ok=True)  # so that an installation cut short is not taken for a whole one
        install(session, environment, extras, groups, compiled=compiled)
        stamp.write_text(digest)
    return environment


def install(
    session: nox.Session,
    environment: Path,
    extras: Sequence[str],
    groups: Sequence[str],
    *,
    compiled: bool = True,
) -> None:
    """Make the environment where it is not there yet, and install into it, with uv where there is uv."""
    session.log(f"Installing into {environment}; the first time can take minutes.")
    python = find_interpreter(session)
    # venv would keep the old interpreter, beside a folder of packages for the new one.
    clear = ["--clear"] if holds_another_python(environment, python) else []
    session.run(python.path, "-m", "venv", *clear, str(environment), external=True)
    own = program(environment, "python")
    wanted = requirements(extras, groups)
    variables = package_sources(cpu_index(session) if "torch" in extras else None)
    if nox.virtualenv.HAS_UV:
        options = ["--compile-bytecode"] if compiled else []
        command = [nox.virtualenv.UV, "pip", "install", "--python", own, *options]
    else:
        command = [own, "-m", "pip", "install", *([] if compiled else ["--no-compile"])]
    session.run(*command, *wanted, env=variables, external=True)
    if {"torch", "torch-gpu"} & set(extras):
        leave_out_torchvision(session, own)


def holds_another_python(environment: Path, python: Interpreter) -> bool:
    """Whether the environment is there and was made with another minor version of Python."""
    config = environment / "pyvenv.cfg"
    version = rf"^version = {re.escape(python.minor)}\."
    return config.is_file() and not re.search(version, config.read_text(), re.MULTILINE)


def leave_out_torchvision(session: nox.Session, python: str) -> None:
    """Uninstall torchvision where it cannot be imported, and say so; mode tutorial then does its operations.

    The package registry has it for CUDA alone, and some versions do not load beside a PyTorch without CUDA.
    """
    if reason := import_error(python, "torchvision"):
        session.run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision", external=True)
        session.log(
            f"torchvision is left out, as its build does not fit the installed PyTorch ({reason}): "
            "mode tutorial does the same operations without it."
        )


def import_error(python: str, module: str) -> str | None:
    """Return why an interpreter cannot import a module, in one line; None if it can."""
    done = subprocess.run([python, "-c", f"import {module}"], check=False, capture_output=True, text=True)
    return last_line(done.stderr) if done.returncode else None


def last_line(text: str) -> str:
    """Return the last line that is not empty: of a traceback, the error."""
    return (text.strip().splitlines() or ["no message"])[-1]


@functools.cache
def cpu_index(session: nox.Session) -> str | None:
    """Return the address of PyTorch's builds without CUDA; None, and a printed line, if it does not answer.

    Also None where the package registry's builds need no CUDA, and where pip is configured to use no index.
    """
    if sys.platform != "linux" or "no-index" in pip_settings():
        return None
    if reason := why_unreachable(f"{CPU_INDEX}/torch/"):
        session.log(
            f"{CPU_INDEX} cannot be reached ({reason}): PyTorch comes from where pip is configured to look, "
            "which may be a build with 4 GB of CUDA libraries."
        )
        return None
    return CPU_INDEX


def why_unreachable(address: str) -> str | None:
    """Return why an address does not answer in time; None if it does. The certificate and proxy are pip's."""
    settings = pip_settings()
    variables = {"SSL_CERT_FILE": settings.get("cert"), "https_proxy": settings.get("proxy")}
    given = {name: value[-1] for name, value in variables.items() if value}
    try:
        # A process of its own, as looking up a name has no time limit.
        done = subprocess.run(
            [sys.executable, "-c", OPEN, address], check=False, capture_output=True, text=True,
            env=os.environ | given, timeout=CPU_INDEX_LIMIT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer within {CPU_INDEX_LIMIT_S} s"
    return last_line(done.stderr) if done.returncode else None


def package_sources(index: str | None = None) -> dict[str, str]:
    """Return variables with which pip and uv take packages from where pip is configured to, and from `index`.

    uv does not read pip's settings. Without these variables it would, for example, pass over a folder of
    wheels for machines without a GPU, and fetch some gigabytes of CUDA libraries.
    """
    settings = pip_settings()
    if index is None:
        return uv_variables(settings, os.environ)
    # Of two builds of one version, `2.14.1+cpu` counts as newer than `2.14.1`.
    indexes = [*settings.get("extra-index-url", []), index]
    variables = uv_variables(settings | {"extra-index-url": indexes}, os.environ)
    if own := os.environ.get("UV_INDEX"):
        strategy = os.environ.get("UV_INDEX_STRATEGY", "unsafe-best-match")
        variables |= {"UV_INDEX": f"{own} {index}", "UV_INDEX_STRATEGY": strategy}
    return variables | {"PIP_EXTRA_INDEX_URL": " ".join(indexes)}


@functools.cache
def pip_settings() -> dict[str, list[str]]:
    """Return the values of each of pip's settings."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return parse_settings(done.stdout.splitlines() if done.returncode == 0 else [])


def parse_settings(lines: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of each setting from the lines of `pip config list`.

    Of a setting that stands in several sections the last counts: all commands, `pip install`, then variables.
    """
    sections: dict[str, dict[str, list[str]]] = {"global": {}, "install": {}, ":env:": {}}
    for line in lines:
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if section in sections:
            sections[section][option.removeprefix("default-")] = str(ast.literal_eval(value)).split()
    return sections["global"] | sections["install"] | sections[":env:"]


def uv_variables(settings: Mapping[str, Sequence[str]], environment: Mapping[str, str]) -> dict[str, str]:
    """Return uv's variables for pip's settings, less those that the user has set for uv."""
    found = {
        name: separator.join(settings[option])
        for option, (name, separator) in UV_VARIABLES.items()
        if settings.get(option)
    }
    if "UV_INDEX" in found:
        # As pip does: the newest of all indexes, not what the first that knows the package has.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in found.items() if not environment.get(name)}


def requirements(extras: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Return what pip or uv is to install: this project with those extras, and dependency groups."""
    project = f".[{','.join(extras)}]" if extras else "."
    return ["-c", str(CONSTRAINTS), "-e", project, *nox.project.dependency_groups(PROJECT, *groups)]


def program(environment: Path, name: str) -> str:
    """Return the path of a program of the environment."""
    return str(environment / ("Scripts" if os.name == "nt" else "bin") / name)
