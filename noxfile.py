"""The project's chores: `nox -l` lists them, and `pip install nox && nox -s tests` needs nothing else.

Three frameworks take a minute and some gigabytes to install, and nox would give every session its own copy.
So `tests` and `verify` share one environment, and `bench` has one for each framework. All are kept under
`.nox/` and installed into again only after pyproject.toml or constraints.txt has changed. The project is
installed editable: source edits count at once.
"""

import hashlib
import itertools
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import nox

nox.needs_version = ">=2026"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests"]

ROOT = Path(__file__).resolve().parent
PYPROJECT = ROOT / "pyproject.toml"
CONSTRAINTS = ROOT / "constraints.txt"
PROJECT = nox.project.load_toml(PYPROJECT)
FRAMEWORKS = ("tensorflow", "torch", "jax")
ON_REQUEST = ("keras-tensorflow", "keras-torch", "keras-jax")
"""What gets an environment only where it is named after `--`."""
NEWEST_PYTHON = (3, 13)
"""The newest for which every framework that constraints.txt pins has a build."""


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """Run the tests on the CPU, all three frameworks in one environment; pytest gets what follows `--`.

    Two at a time, then so those that measure, then alone those that fill the cores. With anything after `--`,
    one by one.
    """
    environment = cpu_environment(session)
    # Here every framework is installed: a test that is skipped for want of one would hide a fault.
    env = {"SAMEWORK_REQUIRE_FRAMEWORKS": "1"}
    pytest = (program(environment, "python"), "-m", "pytest")
    if session.posargs:
        session.run(*pytest, *session.posargs, env=env, external=True)
        return
    # Modules share what takes long to make: a module stays with one process; conftest begins with long ones.
    two_at_a_time = ("-n", "2", "--dist=loadfile", "--no-loadscope-reorder")
    failed = []
    for part, options in (
        ("not measures and not alone", two_at_a_time),
        ("measures", two_at_a_time),
        ("alone", ()),
    ):
        try:
            session.run(*pytest, "-m", part, *options, env=env, external=True)
        except nox.command.CommandFailed:  # the other parts are still worth knowing
            failed.append(part)
    if failed:
        session.error(f"Tests failed among those marked: {'; '.join(failed)}.")


@nox.session(reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Check style, types and the direction of imports; needs no framework."""
    session.install(*requirements([], ["lint"]), silent=False)
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
    session.install(*nox.project.load_toml(path)["dependencies"])
    session.run("python", str(path), success_codes=[1])


@nox.session(python=False)
def benchmarks(session: nox.Session) -> None:
    """Measure each cell, each mode against a loop by hand, and this program; pytest gets what follows `--`.

    On the CPU, for two hours; nothing else may run meanwhile. `tests/benchmarks/cells.py` after
    `--` takes that file alone, which takes minutes; `-k "jax and softmax"` picks cells, and `-m ""` takes
    every mode and backend, not the taught modes alone. pytest-benchmark's options save, compare and draw:
    `--benchmark-autosave`, `--benchmark-compare --benchmark-compare-fail=mean:30%`, `--benchmark-histogram`.
    """
    environment = cpu_environment(session)
    session.run(program(environment, "bench"), "data", "fetch", "mnist", "cifar10", external=True)
    named = [argument for argument in session.posargs if argument.partition("::")[0].endswith(".py")]
    # Files stand first, as some options take what follows them; of an option said twice the last counts.
    files = () if named else [f"tests/benchmarks/{name}.py" for name in ("cells", "throughput", "harness")]
    taught = () if any("::" in argument for argument in named) else ("-m", "not on_request")
    session.run(
        program(environment, "python"), "-m", "pytest", *files, "-p", "no:randomly", "--timeout=0", *taught,
        "--benchmark-max-time=3", *session.posargs, external=True,
    )  # fmt: skip


@nox.session(python=False)
def bench(session: nox.Session) -> None:
    """Run the quick benchmark, on the GPU where there is one; `bench run` gets what follows `--`.

    Each framework gets an environment of its own, since side by side they disturb each other: TensorFlow
    imports JAX where it finds it, which makes it start later, and on a GPU their CUDA libraries collide.
    BENCH_GPU=1 takes the GPU without looking for a driver, BENCH_GPU=0 the CPU.
    """
    check_python(session)
    environment = prepare(session, "harness")
    gpu = gpu_wanted(session)
    pythons = framework_pythons(session, wanted_backends(session.posargs, gpu=gpu), gpu=gpu)
    device = "gpu" if gpu else "cpu"
    session.run(
        program(environment, "bench"), "run", "--preset", "quick", "--device", device, *pythons,
        *session.posargs, external=True,
    )  # fmt: skip


@nox.session(python=False)
def regression(session: nox.Session) -> None:
    """Compare this code with a commit, version or variable, side by side; `bench ab` gets what follows `--`.

    `--base REV` is the least to say. What needs other packages than this code gets environments of its own.
    """
    check_python(session)
    environment = prepare(session, "harness")
    gpu = gpu_wanted(session)
    pythons = framework_pythons(session, wanted_backends(session.posargs, gpu=gpu), gpu=gpu)
    session.run(
        program(environment, "bench"), "ab", "--device", "gpu" if gpu else "cpu", *pythons,
        *session.posargs, external=True,
    )  # fmt: skip


@nox.session(python=False)
def notebooks(session: nox.Session) -> None:
    """Reproduce the notebooks in every framework, for hours; `bench notebooks` gets what follows `--`."""
    check_python(session)
    environment = prepare(session, "harness")
    gpu = gpu_wanted(session)
    pythons = framework_pythons(session, FRAMEWORKS, gpu=gpu)
    device = "gpu" if gpu else "cpu"
    session.run(
        program(environment, "bench"), "notebooks", "--device", device, *pythons, *session.posargs,
        external=True,
    )  # fmt: skip


@nox.session(python=False)
def dev(session: nox.Session) -> None:
    """Make or update `.venv`, which holds everything for development on the CPU."""
    check_python(session)
    environment = ROOT / ".venv"
    install(session, environment, requirements(FRAMEWORKS, ["test", "lint"]))
    session.log(f"Activate it with: source {program(environment, 'activate')}")


def cpu_environment(session: nox.Session) -> Path:
    """Return the environment that holds the three frameworks, on the CPU, and the tests' tools."""
    check_python(session)
    # To compile every module of three frameworks takes longer than to unpack them, and a few are imported.
    return prepare(session, "cpu", extras=FRAMEWORKS, groups=["test"], options=["--no-compile"])


def check_python(session: nox.Session) -> None:
    """Stop with advice where pip would only say that there is no matching distribution."""
    if sys.version_info[:2] > NEWEST_PYTHON:
        newest = ".".join(map(str, NEWEST_PYTHON))
        session.error(
            f"Nox runs on Python {sys.version.split()[0]}, for which the pinned frameworks have no build. "
            f"Run it with Python {newest} or older: python{newest} -m pip install nox; python{newest} -m nox"
        )


def wanted_backends(arguments: Sequence[str], *, gpu: bool) -> list[str]:
    """Return the backends that need an environment: those named by `--backend`, or the three frameworks."""
    pairs = [argument.partition("=") for argument in arguments]
    named = {value for option, _, value in pairs if option == "--backend"}
    named |= {value for option, value in itertools.pairwise(arguments) if option == "--backend"}
    known = [*FRAMEWORKS, *([] if gpu else ON_REQUEST)]
    return [name for name in known if name in named] if named & set(known) else list(FRAMEWORKS)


def framework_pythons(session: nox.Session, names: Sequence[str], *, gpu: bool) -> list[str]:
    """Return options for `bench run`: the interpreter of each framework that could be installed."""
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
    options: Sequence[str] = (),
) -> Path:
    """Return an environment under `.nox/` that holds what is asked; at once, where it does already.

    `options` are for pip.
    """
    environment = ROOT / ".nox" / name
    wanted = [*options, *requirements(extras, groups)]
    stamp = environment / "installed.sha256"
    # The folder counts because an editable installation points to it.
    parts = [sys.version, str(ROOT), PYPROJECT.read_text(), CONSTRAINTS.read_text(), *wanted]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        session.log(f"{environment} is up to date.")
    else:
        stamp.unlink(missing_ok=True)  # so that an installation cut short is not taken for a whole one
        install(session, environment, wanted)
        stamp.write_text(digest)
    return environment


def install(session: nox.Session, environment: Path, wanted: Sequence[str]) -> None:
    """Make the environment where it is not there yet, and install into it."""
    session.log(f"Installing into {environment}; the first time can take minutes.")
    session.run(sys.executable, "-m", "venv", str(environment), external=True)
    session.run(program(environment, "python"), "-m", "pip", "install", *wanted, external=True)


def requirements(extras: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Return the arguments of `pip install` for this project with those extras and dependency groups."""
    project = f".[{','.join(extras)}]" if extras else "."
    return ["-c", str(CONSTRAINTS), "-e", project, *nox.project.dependency_groups(PROJECT, *groups)]


def program(environment: Path, name: str) -> str:
    """Return the path of a program of the environment."""
    return str(environment / ("Scripts" if os.name == "nt" else "bin") / name)
