"""Code for the course view is cut from real source, without importing it."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.run.report.course_code import code_lines, cut, source_of

SOURCE = '''
"""Module."""
import functools


@functools.cache
@functools.lru_cache(
    maxsize=1
)
def step(x):
    """Docstring
    of two lines."""
    # a comment

    return x + 1


class Net:
    """Network."""

    size = 3

    def forward(self, x):
        return f"""{x}

        two lines"""

    backward = forward
    again = backward
    loop = pool
    pool = loop


answer = 42
'''


def test_a_function_comes_with_its_decorators() -> None:
    found = cut(SOURCE, "step")
    assert found is not None
    assert found.startswith("@functools.cache\n@functools.lru_cache(\n")
    assert found.endswith("return x + 1")


def test_a_method_is_not_indented() -> None:
    found = cut(SOURCE, "Net.forward")
    assert found is not None
    assert found.startswith("def forward(self, x):\n    return")


def test_another_name_of_a_method_gives_the_method() -> None:
    assert cut(SOURCE, "Net.again") == cut(SOURCE, "Net.backward") == cut(SOURCE, "Net.forward")


@pytest.mark.parametrize("name", ["nothing", "Net.nothing", "answer", "Net.size", "Net.loop", "step.x", ""])
def test_what_is_no_definition_is_not_found(name: str) -> None:
    assert cut(SOURCE, name) is None


@pytest.mark.parametrize("source", ["def f(:", "\0", "def f():\n  if 1:\n x"])
def test_what_is_no_python_has_no_definition(source: str) -> None:
    assert cut(source, "f") is None
    with pytest.raises(ValueError, match="not Python"):
        code_lines(source)


def test_lines_of_code_are_counted_without_comments_blank_lines_and_docstrings() -> None:
    assert code_lines(cut(SOURCE, "step") or "") == 6
    assert code_lines(cut(SOURCE, "Net.forward") or "") == 4, "the blank line is inside a text"
    assert code_lines("") == 0


@given(st.lists(st.sampled_from(["", "# only a comment", "   "]), max_size=6))
def test_what_is_no_code_adds_no_lines(between: list[str]) -> None:
    assert code_lines("\n".join(["x = 1", *between, "y = 2"])) == 2


def test_source_is_found_without_importing_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "course_package" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "course_package" / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "leaf.py").write_text("# -*- coding: latin-1 -*-\nx = 'é'\n", encoding="latin-1")
    monkeypatch.syspath_prepend(tmp_path)
    found = source_of("course_package.inner.leaf")
    assert found is not None
    assert "é" in found
    assert "course_package" not in sys.modules


@pytest.mark.parametrize(
    "module", ["no_such_module", "json.no_such", "sys", "", "a..b", "json.decoder.deeper"]
)
def test_where_there_is_no_source_there_is_none(module: str) -> None:
    assert source_of(module) is None
