"""The GPU of that number or UUID is chosen, and nothing else is shown to this process and its workers."""

import os
import sys
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_nvml import Nvml

from bench.errors import BenchError, UnavailableError, UsageError
from bench.machine.visible_gpus import are_hidden, choose_gpu, list_gpus, short_uuid, show_one_gpu

A, B = "GPU-8932f937-d72c", "GPU-9fb42d6f-7d6b"
SLICES: dict[int, list[str | None]] = {0: ["MIG-1111-a", None, "MIG-2222-b"]}


@pytest.fixture(autouse=True)
def _own_variables() -> Iterator[None]:
    """Give the test variables of its own, as choosing a GPU sets one."""
    with mock.patch.dict(os.environ):
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        os.environ.pop("CUDA_DEVICE_ORDER", None)
        yield


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    module = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


@pytest.mark.parametrize(
    ("visible", "wanted", "uuid"),
    [
        (None, None, A), (None, 0, A), (None, 1, B), (None, B, B),
        ("1", None, B), ("1", 0, B), ("1,0", 1, A), (" 1 , 0 ", 1, A),
        (B, None, B), ("GPU-9fb,GPU-89", 1, A), (f"{B},{A}", 1, A), (f"{B},{A}", A, A),
    ],
)  # fmt: skip
def test_a_gpu_is_chosen_among_those_that_are_visible(
    visible: str | None, wanted: int | str | None, uuid: str, nvml: Nvml
) -> None:
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    show_one_gpu(wanted)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == uuid
    show_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == uuid, "to choose again changes nothing"
    assert nvml.initialised == nvml.shut_down == 2


@pytest.mark.parametrize(
    ("visible", "wanted", "error", "words"),
    [
        (None, 2, UsageError, "--gpu 2: there is no such GPU; these are visible: 0 H100 (GPU-8932f937), 1"),
        ("1", 1, UsageError, "--gpu 1: there is no such GPU; these are visible: 0 H100 (GPU-9fb42d6f)."),
        ("0,9,1", 1, UsageError, "--gpu 1: there is no such GPU"),
        ("1", A, UnavailableError, f"GPU {A} is not visible here; these are: 0 H100 (GPU-9fb42d6f)."),
        ("", None, UnavailableError, "CUDA_VISIBLE_DEVICES='' shows none of the GPUs here"),
        ("7", None, UnavailableError, "CUDA_VISIBLE_DEVICES='7' shows none of the GPUs here"),
    ],
)  # fmt: skip
def test_a_gpu_that_is_not_visible_is_refused(
    visible: str | None, wanted: int | str | None, error: type[BenchError], words: str, nvml: Nvml
) -> None:
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    with pytest.raises(error) as refused:
        show_one_gpu(wanted)
    assert words in str(refused.value)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible
    assert nvml.initialised == nvml.shut_down == 1


@pytest.mark.parametrize(
    ("variables", "wanted", "uuid"),
    [
        ({}, 1, B),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, None, A),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1,0"}, None, B),
        ({"CUDA_VISIBLE_DEVICES": f"{B},{A}"}, None, B),
        ({}, None, "there are different GPUs here: 0 T4, 1 H100. Choose one with --gpu N."),
        ({"CUDA_VISIBLE_DEVICES": "1"}, None, "CUDA_VISIBLE_DEVICES=1 is ambiguous"),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, 1, "Set CUDA_DEVICE_ORDER=PCI_BUS_ID to count as above"),
        ({"CUDA_DEVICE_ORDER": "FASTEST_FIRST", "CUDA_VISIBLE_DEVICES": "0"}, 0, "fastest first"),
    ],
)  # fmt: skip
def test_among_gpus_of_two_kinds_no_number_is_guessed(
    variables: dict[str, str], wanted: int | None, uuid: str, nvml: Nvml
) -> None:
    nvml.names = ["T4", "H100"]
    if uuid.startswith("GPU-"):
        assert choose_gpu(nvml, variables, wanted).uuid == uuid
    else:
        with pytest.raises(UsageError, match=uuid):
            choose_gpu(nvml, variables, wanted)


@pytest.mark.parametrize(
    ("visible", "wanted", "uuid"),
    [
        (None, None, "MIG-1111-a"), (None, 1, "MIG-2222-b"), (None, 2, B), ("0", 1, "MIG-2222-b"),
        (A, 0, "MIG-1111-a"), ("1", 0, B), ("MIG-2222-b", None, "MIG-2222-b"),
        ("MIG-2222", None, "MIG-2222-b"), (None, "MIG-2222-b", "MIG-2222-b"),
        ("MIG-GPU-8932f937/2/0", None, "MIG-GPU-8932f937/2/0"),
    ],
)  # fmt: skip
def test_a_gpu_in_mig_mode_is_its_slices(
    visible: str | None, wanted: int | str | None, uuid: str, nvml: Nvml
) -> None:
    nvml.slices = SLICES
    variables = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = choose_gpu(nvml, variables, wanted)
    assert found.uuid == uuid
    assert found.parent == (None if uuid == B else "device 0")


@pytest.mark.parametrize("visible", [None, "0", A])
def test_mig_without_a_slice_is_an_error_that_says_what_to_do(visible: str | None, nvml: Nvml) -> None:
    nvml.names, nvml.slices = ["A100"], {0: [None] * 7}
    variables = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    with pytest.raises(UnavailableError) as refused:
        choose_gpu(nvml, variables)
    for word in (
        "MIG is enabled on A100 (GPU-8932f937)",
        "no slice is visible",
        "nvidia-smi mig -cgi",
        "-mig 0",
    ):
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("visible", "wanted", "shown"),
    [
        (None, None, "0"), (None, 3, "3"), ("2,5", None, "2"), ("2, 5", 1, "5"), ("GPU-1,MIG-2", 1, "MIG-2"),
        (None, "GPU-1", "GPU-1"), ("", None, None), ("2", 1, None), ("0,-1", 1, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("missing", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_without_nvml_an_entry_is_taken_as_it_is_written(
    visible: str | None, wanted: int | str | None, shown: str | None, missing: str, nvml: Nvml
) -> None:
    nvml.missing = {missing}
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    if shown is None:
        with pytest.raises(UsageError, match="has no entry number"):
            show_one_gpu(wanted)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
    else:
        show_one_gpu(wanted)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == shown


def test_a_gpu_without_a_uuid_is_shown_by_its_number(nvml: Nvml) -> None:
    nvml.missing = {"nvmlDeviceGetUUID"}
    show_one_gpu(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"


@pytest.mark.parametrize(
    ("visible", "hidden"),
    [
        (None, False), ("0", False), (" 1,0", False), (A, False), ("MIG-1", False),
        ("", True), ("-1", True), ("NoDevFiles", True), ("none", True),
    ],
)  # fmt: skip
def test_variables_that_hide_every_gpu(visible: str | None, hidden: bool) -> None:
    assert are_hidden({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}) is hidden


def test_the_list_is_in_the_order_of_the_option(nvml: Nvml) -> None:
    nvml.slices = SLICES
    assert list_gpus() == ["H100 slice, MIG-1111-a", "H100 slice, MIG-2222-b", f"H100, {B}"]
    nvml.missing = {"nvmlInit"}
    assert list_gpus() == []


@pytest.mark.parametrize(
    ("uuid", "short"),
    [
        (A, "GPU-8932f937"),
        ("MIG-1111-a", "MIG-1111"),
        ("MIG-GPU-8932f937-d72c/1/0", "MIG-GPU-8932f937"),
        ("", ""),
    ],
)
def test_a_short_uuid(uuid: str, short: str) -> None:
    assert short_uuid(uuid) == short


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.none() | st.integers(0, 3) | st.text(),
)
def test_every_text_is_chosen_from_or_refused(visible: str, wanted: int | str | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pynvml", Nvml())
        patch.setenv("CUDA_VISIBLE_DEVICES", visible)
        try:
            show_one_gpu(wanted)
        except (UsageError, UnavailableError):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
        else:
            assert os.environ["CUDA_VISIBLE_DEVICES"] in (A, B) or visible.strip().startswith("MIG-GPU-")
