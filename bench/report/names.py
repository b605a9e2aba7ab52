"""Names of charts: safe as the name of a file and as the fragment of an address."""

import re
from hashlib import sha256

_WORDS = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_WORD = re.compile(r"[a-z0-9]+")
_LONGEST = 40


def chart_name(question: str, *place: str) -> str:
    """Return the name of the chart that answers a question about a place, such as a workload and a device.

    No two places of as many parts share a name: a digest follows where letters had to be replaced or cut.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", " ".join(place).lower()).strip("-")[:_LONGEST].strip("-")
    first, *others = place
    plain = _WORDS.fullmatch(first) and all(_WORD.fullmatch(part) for part in others)
    if not plain or len("-".join(place)) > _LONGEST:
        digest = sha256("\0".join(place).encode(errors="surrogatepass")).hexdigest()[:8]
        slug = f"{slug}-{digest}" if slug else digest
    return f"{question}-{slug}"
