"""The version of the SDK, apart from that of Aforo: what a plugin is written for.

Semantic: a third number mends, a second one adds, a first one takes away or changes. So a plugin
that is written for 1.2 works with 1.2, 1.3 and every later 1, and with no 2.
"""

import re
from dataclasses import dataclass

__version__ = "1.1.0"

STATEMENT = "aforo_sdk"
"""The constant by which a plugin's module says what it is written for: `aforo_sdk = "1.0"`."""

_WANTED = re.compile(r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class Edition:
    """One version of the SDK: which release of Aforo brought it, and what came with it."""

    version: str
    release: str
    brought: str


EDITIONS = (
    Edition(
        "1.0.0",
        "0.1.0",
        "pricing models, tax engines, payment gateways, detectors, notifiers, AI features, and "
        "the contract suites",
    ),
    Edition(
        "1.1.0",
        "0.1.0",
        "`PricingModel.entitlement_code` and `Usage.included`: a model may take what it includes "
        "from an entitlement",
    ),
)
"""Every version there has been, the oldest first; the last is this one."""


def is_wanted_version(wanted: object) -> bool:
    """Whether it is a version that a plugin can be written for: two numbers, such as `1.0`."""
    return isinstance(wanted, str) and _WANTED.fullmatch(wanted) is not None


def fits(wanted: str, present: str = __version__) -> bool:
    """Whether a plugin that is written for `wanted` works with the SDK `present`."""
    major, minor = _numbers(wanted)
    present_major, present_minor = _numbers(present)
    return major == present_major and minor <= present_minor


def is_ahead(wanted: str, present: str = __version__) -> bool:
    """Whether `wanted` is later than `present`, so that Aforo is what has to be upgraded."""
    return _numbers(wanted) > _numbers(present)


def _numbers(version: str) -> tuple[int, int]:
    major, minor, *_ = version.split(".")
    return int(major), int(minor)
