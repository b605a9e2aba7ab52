"""One number for all the parameters of a backend, by which the ranks of a job are compared."""

from hashlib import sha256

from bench.workloads.parameters import Params


def digest(params: Params) -> str:
    """Return the SHA-256 of parameters: their names in order, each with the bytes of its values."""
    found = sha256()
    for name in sorted(params):
        found.update(f"{name} {params[name].dtype.str} {params[name].shape}\n".encode())
        found.update(params[name].tobytes())
    return found.hexdigest()
