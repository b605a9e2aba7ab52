"""What a framework was built for is read from what the framework, or a plugin of it, says."""

import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType
from typing import Any

import pytest

from backends import builds


def module(**attributes: Any) -> ModuleType:
    made = ModuleType("made")
    vars(made).update(attributes)
    return made


def torch(cuda: str | None, hip: str | None) -> ModuleType:
    return module(version=module(cuda=cuda, hip=hip))


def tensorflow(**info: Any) -> ModuleType:
    return module(sysconfig=module(get_build_info=lambda: info))


@pytest.mark.parametrize(
    ("framework", "imported", "build"),
    [
        ("torch", torch(None, None), "CPU"),
        ("torch", torch("13.0", None), "CUDA 13.0"),
        ("torch", torch(None, "6.4"), "ROCm 6.4"),
        ("tensorflow", tensorflow(is_cuda_build=False, is_rocm_build=False), "CPU"),
        ("tensorflow", tensorflow(is_cuda_build=True, cuda_version="12.5.1"), "CUDA 12.5.1"),
        ("tensorflow", tensorflow(is_cuda_build=False, is_rocm_build=True), "ROCm"),
    ],
)
def test_the_build_is_what_the_framework_says(
    framework: str, imported: ModuleType, build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, framework, imported)
    assert builds.build_of(framework) == build


@pytest.mark.parametrize(
    ("plugins", "build"),
    [
        ([], "CPU"),
        (["xla_cuda13"], "CUDA 13"),
        (["other", "xla_cuda12"], "CUDA 12"),
        (["xla_rocm7"], "ROCm 7"),
    ],
)
def test_the_build_of_jax_is_that_of_its_plugin(
    plugins: list[str], build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = EntryPoints(EntryPoint(name, "module", "jax_plugins") for name in plugins)
    monkeypatch.setitem(sys.modules, "jax", module())
    monkeypatch.setattr(builds.metadata, "entry_points", lambda group: found.select(group=group))
    assert builds.build_of("jax") == build
