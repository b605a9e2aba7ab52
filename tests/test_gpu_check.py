"""`scripts/gpu_check.sh` with a stand-in for the interpreter, so that nothing is measured.

Where TensorFlow's operations ran, the last part, is asked of TensorFlow itself.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import INFOS, in_process

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "gpu_check.sh"
STAND_IN = """#!/usr/bin/env bash
# Records what it is asked, answers each part as the variables say, and makes backends findable in earnest.
case "$*" in
    *make_findable*) exec PYTHON "$@" ;;
    *placement*) name=placement ;;
    "-P -m bench "*) name=$4 ;;
    *) exit 0 ;;
esac
echo "$*" >>"$ASKED"
[[ $name != doctor ]] || PYTHON -S -c 'from importlib import metadata
for one in metadata.entry_points(group="bench.backends"): print(one.name)'
[[ $name != doctor ]] || printf '%s' "${LISTED:-}"
[[ $name != "${SILENT:-}" ]] || exit 1
echo "said by $name"
[[ $name != "${HANGS:-}" ]] || exec sleep 100
status=STATUS_$name
exit "${!status:-0}"
"""
PARTS = [
    "facts", "doctor", "run",
    "verify-fp32-tensorflow", "verify-fp32-torch", "verify-fp32-jax",
    "verify-tf32-tensorflow", "verify-tf32-torch", "verify-tf32-jax",
    "verify-bf16-tensorflow", "verify-bf16-torch", "verify-bf16-jax",
    "tensorflow-placement",
]  # fmt: skip

pytestmark = pytest.mark.skipif(shutil.which("timeout") is None, reason="there is no timeout(1) here")


class Checked(NamedTuple):
    status: int
    out: str
    err: str
    folder: Path
    asked: list[str]

    @property
    def parts(self) -> dict[str, str]:
        """The summary's words for each part."""
        lines = (self.folder / "summary.txt").read_text().splitlines()
        assert "\n".join(lines) in self.out, "what is written is printed too"
        found = (re.fullmatch(r"(\S+) +(\S.*?) +\d+ s", line) for line in lines)
        return {line[1]: line[2] for line in found if line}


Check = Callable[..., Checked]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Return a function that runs the script with options and variables for the stand-in."""
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN.replace("PYTHON", sys.executable))
    stand_in.chmod(0o755)
    asked, folder = tmp_path / "asked", tmp_path / "out"

    def run(*options: str, harness: Path = stand_in, **variables: str) -> Checked:
        done = subprocess.run(
            [str(SCRIPT), "--harness", str(harness), *options, str(folder)],
            check=False, capture_output=True, text=True, timeout=300, cwd=tmp_path,
            env={**os.environ, "ASKED": str(asked), **variables},
        )  # fmt: skip
        lines = asked.read_text().splitlines() if asked.exists() else []
        return Checked(done.returncode, done.stdout, done.stderr, folder, lines)

    return run


def test_the_parts_come_in_order_and_get_what_was_asked(check: Check, tmp_path: Path) -> None:
    python = f"torch={tmp_path / 'python'}"
    found = check("--python", python)
    assert found.status == 0, found
    assert list(found.parts.items()) == [(name, "ok") for name in PARTS]
    doctor, run, *proofs, placement = found.asked
    assert doctor == f"-P -m bench doctor --python {python}"
    for option in (
        "--sample", "--mode default", "--device gpu", f"--results {found.folder}/results", "--budget 351s",
        "--workload mnist-softmax --workload mnist-mlp --workload mnist-cnn", f"--python {python}",
    ):  # fmt: skip
        assert option in run
    assert "--backend" not in run, "what is not installed is named by the run, and is no reason to stop it"
    for name, proof in zip(PARTS[3:-1], proofs, strict=True):
        _, precision, backend = name.split("-")
        assert f"--precision {precision} --backend {backend} --python {python}" in proof
        assert "verify --json --mode all" in proof
        assert (found.folder / f"{name}.jsonl").read_text() == "said by verify\n"
    assert placement.endswith(
        f"tensorflow_placement.py --device gpu --json {found.folder}/tensorflow-placement.json"
    )
    assert re.search(r"\[\d:\d\d left\] run: begins, and has \d+ s", found.out)
    assert found.out.endswith(f"All parts ran.\nBring back: {found.folder}\n")
    # Backends are found though nothing is installed: the stand-in lists them without its own site-packages.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert all("--gpu" not in line for line in found.asked)
    listed = set((found.folder / "doctor.txt").read_text().split()) - {"said", "by", "doctor"}
    assert listed == set(project["entry-points"]["bench.backends"])


def test_on_a_cpu_only_what_is_there_is_asked(check: Check) -> None:
    found = check("--device", "cpu", "--backend", "jax")
    assert found.status == 0
    assert list(found.parts) == ["facts", "doctor", "run", "verify-fp32-jax", "verify-bf16-jax"]
    assert "verify-tf32: left out" in found.out
    assert all("--device cpu" in line and "--backend jax" in line for line in found.asked[1:])


TWO = "GPU 0     H100, GPU-1\nGPU 1     H100, GPU-2\n"


def test_on_several_gpus_the_doctor_is_asked_of_another_one_too(check: Check) -> None:
    found = check("--backend", "jax", LISTED=TWO)
    assert found.status == 0, found
    assert list(found.parts)[:4] == ["facts", "doctor", "doctor-gpu-1", "run"]
    assert set(found.parts.values()) == {"ok"}
    assert found.asked[:2] == ["-P -m bench doctor", "-P -m bench doctor --gpu 1"]
    assert all("--gpu" not in line for line in found.asked[2:])


def test_on_one_gpu_there_is_no_other(check: Check) -> None:
    assert "doctor-gpu-1" not in check("--backend", "jax", LISTED=TWO.splitlines()[0] + "\n").parts


def test_every_part_checks_the_gpu_that_was_chosen(check: Check) -> None:
    found = check("--gpu", "1", LISTED=TWO)
    assert found.status == 0, found
    assert list(found.parts) == PARTS
    assert len(found.asked) == len(PARTS) - 1
    assert all("--gpu 1" in line for line in found.asked)


OF_TENSORFLOW = [name for name in PARTS if "torch" not in name and "jax" not in name]
FAILED = "FAILED, see its output"


@pytest.mark.parametrize(
    ("variables", "status", "said"),
    [
        (
            {"STATUS_doctor": "3", "STATUS_run": "3", "STATUS_placement": "3"},
            3,
            {
                "doctor": "incomplete, status 3", "run": "incomplete, status 3",
                "tensorflow-placement": "incomplete, status 3",
            },
        ),
        ({"STATUS_placement": "1"}, 1, {"tensorflow-placement": FAILED}),
        ({"STATUS_doctor": "70", "STATUS_run": "1"}, 1, {"doctor": "incomplete, status 70", "run": FAILED}),
        (
            {"STATUS_verify": "1"},
            1,
            {f"verify-{precision}-tensorflow": FAILED for precision in ("fp32", "tf32", "bf16")},
        ),
        ({"SILENT": "run"}, 3, {"run": "incomplete, status 1"}),  # as of an interpreter that does not start
    ],
)  # fmt: skip
def test_a_part_that_fails_stops_no_other(
    check: Check, variables: dict[str, str], status: int, said: dict[str, str]
) -> None:
    found = check("--backend", "tensorflow", **variables)
    assert found.status == status, found
    assert found.parts == dict.fromkeys(OF_TENSORFLOW, "ok") | said


def test_a_part_that_hangs_is_stopped_at_its_limit(check: Check) -> None:
    found = check("--minutes", "0.25", "--backend", "tensorflow", HANGS="doctor")
    assert found.status == 3
    assert found.parts == dict.fromkeys(OF_TENSORFLOW, "ok") | {"doctor": "stopped after its 3 s"}


def test_what_does_not_fit_the_time_left_is_skipped_and_named(check: Check) -> None:
    found = check("--minutes", "0.1", HANGS="run")
    assert found.status == 3
    assert found.parts["run"].startswith("stopped after its")
    assert {found.parts[name] for name in PARTS[3:]} == {"skipped, no time left"}
    assert "verify-tf32-jax: skipped, no time left" in found.out
    assert len(found.asked) == 2


_WITH_CTRL_C = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Tests that run in the background of a shell inherit that SIGINT is ignored, and no shell can undo that."""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_what_is_done(check: Check, tmp_path: Path, sent: signal.Signals) -> None:
    check("--help")  # makes the stand-in
    script = subprocess.Popen(
        [
            sys.executable, "-c", _WITH_CTRL_C, str(SCRIPT), "--harness", str(tmp_path / "python"),
            str(tmp_path / "out"),
        ],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "ASKED": str(tmp_path / "asked"), "HANGS": "run"},
    )  # fmt: skip
    assert script.stdout is not None
    while "run: begins" not in script.stdout.readline():
        assert script.poll() is None
    os.killpg(script.pid, sent)  # as a terminal does
    out, _ = script.communicate(timeout=300)
    assert script.returncode == 130
    assert "Interrupted" in out
    assert re.search(r"doctor +ok", (tmp_path / "out" / "summary.txt").read_text())


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--bakend", "jax"], "there is no option '--bakend'"),
        (["--device", "tpu"], "not 'tpu'"),
        (["--gpu", "GPU-1"], "--gpu is the number of a GPU, not 'GPU-1'"),
        (["--gpu", "1", "--device", "cpu"], "goes with --device gpu"),
        (["--minutes", "ten"], "not 'ten'"),
        (["--python", "torch"], "'torch' is no BACKEND=PATH"),
        (["--python", "torch=/nowhere/python"], "'torch=/nowhere/python' is no BACKEND=PATH"),
        (["--harness", "/nowhere/python"], "no interpreter '/nowhere/python'"),
        (["one"], "one FOLDER is enough"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(check: Check, options: list[str], word: str) -> None:
    found = check(*options)
    assert found.status == 2
    assert word in found.err
    assert len(found.err.splitlines()) == 1
    assert not found.folder.exists()


def test_a_folder_that_holds_something_is_refused(check: Check, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.txt").touch()
    found = check()
    assert found.status == 2
    assert "is not empty" in found.err


def test_help_names_every_option(check: Check) -> None:
    found = check("--help")
    assert found.status == 0
    for option in (
        "--python",
        "--backend",
        "--device",
        "--gpu",
        "--minutes",
        "--harness",
        "FOLDER",
        "Exit status",
    ):
        assert option in found.out


def test_a_harness_that_lacks_packages_is_told_which(check: Check, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    found = check(harness=bare)
    assert found.status == 3
    assert len(found.err.splitlines()) == 1
    assert list(found.folder.iterdir()) == [], "no part begins"
    assert {"click", "msgspec", "rich", "nvidia-ml-py"} <= set(re.findall(r"[\w-]+", found.err))


@pytest.mark.parametrize(
    ("mode", "device", "host", "expected"),
    [
        ("graph", "gpu", {"operations": {"Unpack": 1}}, True),
        ("graph", "gpu", {"operations": {}, "housekeeping": {"SyncDevice": 1}}, False),
        ("graph", "cpu", {"operations": {"Unpack": 1}}, False),
        ("tf-data-batches", "gpu", {"operations": {"GatherV2": 2}}, False),
        ("tutorial", "gpu", {"operations": {"BatchDatasetV2": 1}}, False),
    ],
)
def test_computing_on_the_cpu_of_a_gpu_box_fails_unless_a_pipeline_does(
    monkeypatch: pytest.MonkeyPatch, mode: str, device: str, host: dict[str, Any], expected: bool
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from tensorflow_placement import misplaced

    look = {"mode": mode, "devices": {"CPU:0": host, "GPU:0": {"operations": {"MatMul": 3}}}}
    assert misplaced(look, device) is expected
    assert not misplaced({"mode": mode, "error": "no GPU"}, device)


def look(_: None) -> dict[str, list[dict[str, Any]]]:
    """Return where each mode runs on one device, and then two of them with a second CPU as the device."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import tensorflow as tf
    import tensorflow_placement

    import backends.tensorflow_backend as module

    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    first = [tensorflow_placement.placed(*mode, "cpu") for mode in tensorflow_placement.LOOKED_AT]
    module.find_device = lambda _: "/CPU:1"
    second = [tensorflow_placement.placed("mnist-cnn", mode, "gpu") for mode in ("graph", "tf-data-batches")]
    return {"first": first, "second": second}


@pytest.fixture(scope="module")
def looks() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = in_process(INFOS["tensorflow"], "test_gpu_check:look", None)
    return found


@pytest.mark.framework("tensorflow")
@pytest.mark.long
def test_the_operations_of_every_mode_are_found_on_the_cpu(looks: dict[str, list[dict[str, Any]]]) -> None:
    found = looks["first"]
    modes = [mode.name for mode in INFOS["tensorflow"].modes if not mode.distributed]
    assert [one["mode"] for one in found] == [*modes, "graph"]
    for one in found:
        idle = one["devices"].pop("CPU:1")
        assert idle == {"housekeeping": {"SyncDevice": 1}}
        assert list(one["devices"]) == ["CPU:0"], one
        kinds = one["devices"]["CPU:0"]
        assert kinds["housekeeping"]["SyncDevice"] == 1, (
            "an operation that an earlier mode ran is counted again"
        )
        compiled = one["mode"].startswith("xla")
        counts = kinds["of XLA"] if compiled else kinds["operations"]
        for operation in ("dot", "convolution") if compiled else ("MatMul", "Conv2D"):
            # oneDNN gives them other names, such as _MklMatMul and _MklNativeFusedConv2D.
            assert sum(count for name, count in counts.items() if operation in name) > 0, one
    augmented = found[-1]["devices"]["CPU:0"]["operations"]
    assert sum(augmented.values()) > 2 * sum(found[0]["devices"]["CPU:0"]["operations"].values())


@pytest.mark.framework("tensorflow")
@pytest.mark.long
def test_what_stays_on_the_host_is_told_from_what_the_device_runs(
    looks: dict[str, list[dict[str, Any]]],
) -> None:
    """A second CPU plays the GPU. A pipeline gets its order on the first; its data set is not looked into."""
    graph, pipeline = looks["second"]
    host = {"operations": {}, **graph["devices"].get("CPU:0", {})}
    assert not host["operations"], json.dumps(host)
    assert pipeline["devices"]["CPU:0"]["operations"]["AssignVariableOp"] == 1
    assert pipeline["devices"]["CPU:1"]["operations"]["IteratorGetNext"] == 1
    assert "GatherV2" not in pipeline["devices"]["CPU:1"]["operations"]
