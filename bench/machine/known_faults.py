"""Versions of frameworks that are known to compute wrong values, with links to the reports."""

from collections.abc import Mapping

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from bench.workloads.specs import Device


class KnownFault(msgspec.Struct, frozen=True, kw_only=True):
    """Wrong values that some versions of a distribution compute on one device."""

    distribution: str
    versions: str
    """In pip's syntax, such as `>=0.11,<0.11.2`."""
    device: Device
    what: str
    link: str
    remedy: str

    def concerns(self, version: str, device: Device) -> bool:
        """Whether an installed version has this fault on a device. False for an invalid version."""
        try:
            parsed = Version(version)
        except InvalidVersion:
            return False
        return device == self.device and SpecifierSet(self.versions).contains(parsed, prereleases=True)


KNOWN_FAULTS = (
    KnownFault(
        distribution="jaxlib",
        versions="==0.10.2",
        device="cpu",
        what="a jitted reduction over many rows returns wrong values",
        link="https://github.com/jax-ml/jax/issues/39103",
        remedy="install jax 0.10.1 or, on Python 3.12 and newer, a current version",
    ),
    KnownFault(
        distribution="jaxlib",
        versions=">=0.11,<0.11.2",
        device="gpu",
        what="single operations were reported to return wrong values on an RTX A6000",
        link="https://github.com/jax-ml/jax/issues/40633",
        remedy="install a current version",
    ),
)
"""Confirmed by the developers or reproduced. A fault stays after its fix, as old versions stay in use."""


def known_faults(versions: Mapping[str, str], device: Device) -> list[str]:
    """Return a warning for every installed distribution that is known to compute wrong values on the device.

    `versions` gives the version of each installed distribution by its name.
    """
    return [
        f"{fault.distribution} {versions[fault.distribution]} is known to compute wrong values: {fault.what} "
        f"({fault.link}); {fault.remedy}."
        for fault in KNOWN_FAULTS
        if fault.distribution in versions and fault.concerns(versions[fault.distribution], device)
    ]
