"""A meter reports the energy that was drawn, also if the counter wraps around, or nothing."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_nvml import Nvml

from bench.machine import energy
from bench.machine.energy import Meter
from bench.machine.gpu import GpuMonitor

RANGE_UJ = 262_143_328_850


def zone(powercap: Path, name: str, label: str, energy_uj: int | str) -> None:
    folder = powercap / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{label}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """A board with two packages, and every zone that must not be counted with them."""
    (tmp_path / "intel-rapl").mkdir()
    zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 111)
    zone(tmp_path, "intel-rapl:0:1", "dram", 222)
    zone(tmp_path, "intel-rapl:1", "package-1", 7_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 333)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5_000_000)
    return tmp_path


def test_the_packages_of_a_board_are_added(powercap: Path) -> None:
    assert [path.name for path in energy.package_zones(powercap)] == ["intel-rapl:0", "intel-rapl:1"]
    with Meter.open("cpu", powercap) as meter:
        assert meter.method == "powercap package energy"
        before_j = meter.read_j()
        zone(powercap, "intel-rapl:0", "package-0", 6_500_000)
        zone(powercap, "intel-rapl:1", "package-1", 7_250_000)
        assert meter.since(before_j) == 1.75
        assert meter.since(None) is None


def test_a_counter_that_wraps_around(powercap: Path) -> None:
    zone(powercap, "intel-rapl:0", "package-0", RANGE_UJ - 1_000_000)
    meter = Meter.open("cpu", powercap)
    before_j = meter.read_j()
    for energy_uj in (500_000, RANGE_UJ, 500_000):
        zone(powercap, "intel-rapl:0", "package-0", energy_uj)
        now_j = meter.since(before_j)
    assert now_j == pytest.approx(1.5 + RANGE_UJ / 1e6)


@pytest.mark.parametrize("garbled", ["", "x", "-5", "²", "1.5"])
def test_without_one_package_there_is_no_sum(garbled: str, powercap: Path) -> None:
    meter = Meter.open("cpu", powercap)
    before_j = meter.read_j()
    zone(powercap, "intel-rapl:1", "package-1", garbled)
    assert meter.read_j() is None
    assert meter.since(before_j) is None
    late = Meter.open("cpu", powercap)
    assert (late.method, late.read_j()) == (None, None)
    zone(powercap, "intel-rapl:1", "package-1", 7_100_000)
    assert meter.since(before_j) == 0.1


def test_no_powercap_and_a_counter_that_only_root_may_read(powercap: Path) -> None:
    with Meter.open("cpu", powercap / "nowhere") as meter:
        assert (meter.method, meter.read_j(), meter.since(None)) == (None, None, None)
    (powercap / "intel-rapl:1/energy_uj").unlink()
    (powercap / "intel-rapl:1/energy_uj").mkdir()  # an OSError for root as well
    assert Meter.open("cpu", powercap).method is None


def test_an_unknown_range(powercap: Path) -> None:
    (powercap / "intel-rapl:0/max_energy_range_uj").unlink()
    meter = Meter.open("cpu", powercap)
    before_j = meter.read_j()
    zone(powercap, "intel-rapl:1", "package-1", 8_000_000)
    assert meter.since(before_j) == 1.0
    zone(powercap, "intel-rapl:0", "package-0", 4_000_000)
    assert meter.since(before_j) is None


@given(st.integers(0, RANGE_UJ), st.integers(0, RANGE_UJ - 1))
def test_the_drawn_energy_is_found(before: int, drawn: int) -> None:
    after = before + drawn
    assert energy.drawn_uj(before, after if after <= RANGE_UJ else after - RANGE_UJ, RANGE_UJ) == drawn


def test_a_reading_above_the_range_is_not_used() -> None:
    assert energy.drawn_uj(9, 1, 5) is None


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    found = energy.parse_uj(text)
    assert found is None or found >= 0


class Counter(GpuMonitor):
    """A GPU whose counter has these values, one after another."""

    def __init__(self, *values: int | None) -> None:
        super().__init__(None, None)
        self.values = list(values)
        self.closed = 0

    def energy_mj(self) -> int | None:
        return self.values.pop(0)

    def close(self) -> None:
        self.closed += 1


def test_the_counter_of_a_gpu(monkeypatch: pytest.MonkeyPatch, powercap: Path) -> None:
    counter = Counter(1, 1000, 3500, None)
    monkeypatch.setattr(GpuMonitor, "open", lambda: counter)
    with Meter.open("gpu", powercap) as meter:
        assert meter.method == "NVML total energy"
        before_j = meter.read_j()
        assert before_j == 1.0
        assert meter.since(before_j) == 2.5
        assert meter.read_j() is None
    assert counter.closed == 1


def test_the_counter_of_a_slice_is_that_of_its_whole_gpu(
    monkeypatch: pytest.MonkeyPatch, powercap: Path
) -> None:
    driver = Nvml()
    driver.slices = {0: [None, "MIG-1111-a"]}
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1111-a")
    with Meter.open("gpu", powercap) as meter:
        assert (meter.method, meter.read_j()) == ("NVML total energy of the whole GPU", 1.0)


def test_a_gpu_without_a_counter_is_not_measured_by_the_cpu(
    monkeypatch: pytest.MonkeyPatch, powercap: Path
) -> None:
    counter = Counter(None)
    monkeypatch.setattr(GpuMonitor, "open", lambda: counter)
    with Meter.open("gpu", powercap) as meter:
        assert (meter.method, meter.read_j()) == (None, None)
    assert counter.closed == 1
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Meter.open("gpu", powercap).method is None
