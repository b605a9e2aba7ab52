"""What all exports share: the registry, names made safe, and how files get to disk."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from exported import (
    HOSTILE,
    acts_on_a_terminal,
    full_run,
    hostile_run,
    plain_file_names,
    texts_in,
    with_commit,
)
from hypothesis import given
from hypothesis import strategies as st
from synthetic import make_cell, make_header, make_run, simple_run

from bench.errors import RecordError, UsageError
from bench.exports import formats, names
from bench.exports.formats import EXPORTS, Export, as_text, find_export, inside, write
from bench.exports.names import LONGEST, dump, part, plain, shown

TORCH = make_cell()
TEXTS = [name for name, export in EXPORTS.items() if export.payload == "text"]
FOLDERS = [name for name, export in EXPORTS.items() if export.payload == "folder"]


# ---- the registry


def test_each_format_is_listed_under_its_name_with_a_line() -> None:
    assert list(EXPORTS) == [
        "pytest-benchmark", "asv", "github-bigger", "github-smaller", "csv", "parquet"
    ]  # fmt: skip
    for name, export in EXPORTS.items():
        assert export.name == name
        assert 20 < len(export.summary) < 100
        assert export.summary.isprintable()


def test_the_registry_loads_no_format_and_nothing_heavy() -> None:
    code = (
        "import sys; import bench.exports.formats;"
        "heavy = {'numpy', 'scipy', 'pyarrow', 'rich', 'matplotlib', 'bench.analysis.summary', "
        "'bench.exports.asv'};"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split() == []


def test_only_parquet_needs_pyarrow() -> None:
    """PyArrow is an extra, and may be missing."""
    code = "import sys; sys.modules['pyarrow'] = None;"
    for export in EXPORTS.values():
        module, _, function = export.maker.partition(":")
        code += f"from {module} import {function};"
    code += (
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r});"
        "from exported import full_run; print(len(to_csv(full_run())))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=300)
    assert int(done.stdout) > 1000


# ---- names


@given(st.text())
def test_shown_and_plain_text_is_one_line_that_acts_on_nothing(raw: str) -> None:
    assert shown(raw)
    for made in (shown(raw), plain(raw)):
        assert acts_on_a_terminal(made) == []
        assert "\n" not in made
    assert not set(plain(raw)) & set("<>&\"'`")


@given(st.text(), st.booleans())
def test_a_part_is_safe_in_a_path_a_page_and_a_table(name: str, dots: bool) -> None:
    made = part(name, dots=dots)
    assert 1 <= len(made) <= LONGEST
    assert made.isascii()
    assert made[0] not in "-.+@"
    assert not set(made) & set("/\\<>&\"'`|,;:*?$ \n")
    assert dots or "." not in made
    assert str(inside(made)) == made


@given(st.lists(st.text(), min_size=2, max_size=2, unique=True))
def test_two_names_stay_two(names: list[str]) -> None:
    for make in (shown, part):
        assert len({make(name) for name in names}) == 2


@pytest.mark.parametrize(
    "name", ["mnist-cnn", "mnist-cnn@256", "torch", "graph-loop", "keras-tensorflow", "float64"]
)
def test_our_own_names_come_through_unchanged(name: str) -> None:
    assert shown(name) == part(name) == part(name, dots=True) == plain(name) == name


def test_a_host_keeps_its_dots_if_asked() -> None:
    assert part("box.example.org", dots=True) == "box.example.org"
    assert part("box.example.org").startswith("box-example-org-")
    assert ".." not in part("..", dots=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_an_error_and_no_json(value: float) -> None:
    with pytest.raises(RecordError, match="not finite"):
        dump({"value": value})


# ---- every format


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_names_act_on_nothing_in_a_text(name: str) -> None:
    made = as_text(find_export(name), hostile_run())
    assert acts_on_a_terminal(made) == []
    if name != "csv":  # whose reader gets cleaned text, of whatever letters
        assert made.isascii()
        # The tool may print what it has read.
        assert acts_on_a_terminal("".join(texts_in(json.loads(made)))) == []


@pytest.mark.parametrize("name", FOLDERS)
def test_hostile_names_lead_nowhere(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "out"
    write(find_export(name), hostile_run(), folder)
    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert written
    assert all(path.is_relative_to(folder) for path in written)
    assert plain_file_names(folder)
    for path in written:
        content = path.read_bytes().decode("ascii")
        assert acts_on_a_terminal(content) == []


@pytest.mark.parametrize("name", [name for name in EXPORTS if name not in ("csv", "parquet")])
@pytest.mark.parametrize("cells", [[], [TORCH]], ids=["empty", "planned only"])
def test_a_run_without_values_is_refused_and_writes_nothing(name: str, cells: list, tmp_path: Path) -> None:
    run = with_commit(make_run(make_header(cells)))
    with pytest.raises(UsageError, match="there is nothing to export: 2026-05-01-quick has no "):
        write(find_export(name), run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", EXPORTS)
def test_the_same_run_makes_the_same_bytes(name: str, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write(find_export(name), full_run(), tmp_path / folder)
        write(find_export(name), full_run(), tmp_path / folder)  # and again over what is there
    assert contents(tmp_path / "one") == contents(tmp_path / "two") != {}


def contents(path: Path) -> dict[str, bytes]:
    paths = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return {str(one.relative_to(path)): one.read_bytes() for one in paths}


# ---- writing


@pytest.mark.parametrize("name", EXPORTS)
def test_a_place_that_cannot_be_written_is_a_record_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    in_the_way = tmp_path / "file" if name in FOLDERS else tmp_path
    for output in (tmp_path / "file" / "below", Path("/proc/no/such/place"), in_the_way):
        with pytest.raises(RecordError, match=rf"^cannot (write|add to) {output}.*: .*--output\.$"):
            write(find_export(name), full_run(), output)


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "", ".", "a\\..\\x", "a\0b"])
def test_a_path_that_leaves_the_folder_would_be_seen(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "import_module", lambda _: type("M", (), {"f": lambda *_: {path: b"x"}}))
    broken = Export(name="x", summary="x", payload="folder", maker="m:f")
    with pytest.raises(ValueError, match="is not a path inside a folder"):
        write(broken, simple_run({TORCH: [1000]}), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_hostile_names_are_hostile() -> None:
    """The broken twin: without `bench.exports.names` each check above would fail."""
    assert acts_on_a_terminal(HOSTILE)
    with pytest.raises(ValueError, match="not a path"):
        inside(HOSTILE)
    assert not HOSTILE.isascii()
    twin = HOSTILE.replace("\x1b", "\x07")
    assert names.clean(HOSTILE) == names.clean(twin), "cleaning alone makes two names one"
