"""Two installations of this program have one digest if, and only if, their modules are the same."""

import shutil
from pathlib import Path

from bench.machine.source import PACKAGES, source_digest

ROOT = Path(__file__).parent.parent.parent


def test_a_copy_has_the_same_digest_until_a_module_changes(tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    digest = source_digest()
    assert digest == source_digest(tmp_path)
    assert len(digest) == 64
    (tmp_path / "bench" / "notes.txt").write_text("no module")
    assert source_digest(tmp_path) == digest
    module = tmp_path / "bench" / "text.py"
    content = module.read_bytes()
    module.write_bytes(content + b"\n")
    assert source_digest(tmp_path) != digest
    module.write_bytes(content)
    assert source_digest(tmp_path) == digest
    module.rename(module.with_name("texts.py"))
    assert source_digest(tmp_path) != digest
