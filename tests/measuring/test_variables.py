"""A worker gets the environment variables that are allowed and declared, and no others."""

import platform
import statistics
import subprocess
import sys
from pathlib import Path

import fakes
import pytest
from conftest import INFOS

from bench.measuring import variables
from bench.measuring.variables import KEPT_MEMORY, MOST_PADDING, PADDING_VARIABLE, padding, worker_environment
from bench.workloads.specs import Device


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the variables are those of glibc's malloc")
def test_memory_that_a_step_gives_back_is_kept_for_the_next(tmp_path: Path) -> None:
    script = (
        "import resource\n"
        "for step in range(12):\n"
        "    if step == 6: before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    block = bytearray(48 << 20); del block\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    kept = worker_environment(fakes.STEADY, "cpu", tmp_path)
    given_back = {name: value for name, value in kept.items() if name not in KEPT_MEMORY}
    faults = [
        int(subprocess.check_output([sys.executable, "-c", script], env=environment, timeout=300))
        for environment in (kept, given_back)
    ]
    assert faults[0] < 0.01 * faults[1]


def test_compiled_programs_are_kept_where_they_are_told_to_be_or_in_the_scratch_folder(
    tmp_path: Path,
) -> None:
    backend = fakes.info("fake", "fakes:Steady", environment={"FAKE_CACHE": "{compiled}/programs"})
    assert worker_environment(backend, "cpu", tmp_path)["FAKE_CACHE"] == f"{tmp_path}/compiled/programs"
    found = worker_environment(backend, "cpu", tmp_path, compiled=tmp_path / "kept")
    assert found["FAKE_CACHE"] == f"{tmp_path}/kept/programs"


def test_a_framework_keeps_compiled_programs_only_where_they_are_to_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--users=own")
    caching = {"FAKE_CACHE": "{compiled}/programs", "XLA_FLAGS": "--cache={compiled}"}
    backend = fakes.info("fake", "fakes:Steady", caching_environment=caching)
    anew = worker_environment(backend, "cpu", tmp_path)
    assert "FAKE_CACHE" not in anew
    assert anew["XLA_FLAGS"] == "--users=own"
    kept = worker_environment(backend, "cpu", tmp_path, compiled=tmp_path / "kept")
    assert kept["FAKE_CACHE"] == f"{tmp_path}/kept/programs"
    assert kept["XLA_FLAGS"] == f"--users=own --cache={tmp_path}/kept"


THREADED = fakes.info("fake", "fakes:Steady", environment={}, thread_variables=("FAKE_THREADS",))


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize(("threads", "expected"), [(None, set()), (1, {"1"}), (3, {"3"})])
def test_a_worker_starts_no_more_threads_than_a_quota_grants(
    device: Device, threads: int | None, expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("OMP_NUM_THREADS", "FAKE_THREADS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(variables, "worker_threads", lambda: threads)
    environment = worker_environment(THREADED, device, tmp_path)
    assert {environment[name] for name in names if name in environment} == expected
    assert set(names) <= environment.keys() or threads is None


def test_the_users_own_number_of_threads_is_kept_under_a_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variables, "worker_threads", lambda: 1)
    frameworks = [info for info in INFOS.values() if info.thread_variables]
    assert len(frameworks) >= 2
    for info in frameworks:
        names = ("OMP_NUM_THREADS", *info.thread_variables)
        for name in names:
            monkeypatch.setenv(name, "5")
        environment = worker_environment(info, "cpu", tmp_path)
        assert {environment[name] for name in names} == {"5"}
        for name in names:
            monkeypatch.delenv(name)
        environment = worker_environment(info, "cpu", tmp_path)
        assert {environment[name] for name in names} == {"1"}


def test_a_backends_own_variables_win_over_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    backend = fakes.info("fake", "fakes:Steady", environment={"OMP_NUM_THREADS": "2"})
    assert worker_environment(backend, "cpu", tmp_path)["OMP_NUM_THREADS"] == "2"


def test_the_environment_of_what_measures_is_padded_by_a_length_that_its_hash_seed_gives(
    tmp_path: Path,
) -> None:
    lengths = [padding(seed) for seed in range(2000)]
    assert min(lengths) < 0.01 * MOST_PADDING
    assert 0.99 * MOST_PADDING < max(lengths) <= MOST_PADDING
    assert statistics.fmean(lengths) == pytest.approx(MOST_PADDING / 2, rel=0.05)
    assert len(set(lengths)) > 1000, "a length of its own for each process"
    for seed in (0, 1, 2**32 - 1):
        found = [worker_environment(fakes.STEADY, "cpu", tmp_path, hash_seed=seed) for _ in range(2)]
        assert found[0] == found[1], "a process can be repeated as it was"
        assert len(found[0][PADDING_VARIABLE]) == padding(seed)
    assert PADDING_VARIABLE not in worker_environment(fakes.STEADY, "cpu", tmp_path)


def test_a_rank_has_one_thread_and_one_gpu_whatever_the_user_has_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    environment = worker_environment(THREADED, "gpu", tmp_path, threads=1, gpu="GPU-9fb42d6f")
    names = ("OMP_NUM_THREADS", "FAKE_THREADS", "CUDA_VISIBLE_DEVICES")
    assert [environment[name] for name in names] == ["1", "1", "GPU-9fb42d6f"]
    on_cpu = worker_environment(THREADED, "cpu", tmp_path, threads=1, gpu="GPU-9fb42d6f")
    assert on_cpu["CUDA_VISIBLE_DEVICES"] == "", "a job on the CPU must not even see a GPU"
