"""A digest of this program's own source code, which tells two installations apart without a checkout."""

from hashlib import sha256
from pathlib import Path

_PROJECT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("backends", "bench", "samework")


def source_digest(project: Path = _PROJECT) -> str:
    """Return the SHA-256 of all modules of this program, each with its path: 64 hexadecimal digits.

    Installations of one version share it, whichever way they were installed; a changed file changes it.
    """
    digest = sha256()
    for package in PACKAGES:
        for path in sorted((project / package).rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(project).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()
