"""Runs the contract suites on every loaded component, against this release."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aforo.plugins.guard import FAILURES, bounded, told
from aforo.plugins.registry import Registry
from aforo.sdk import Component
from aforo.sdk.kinds import KINDS
from aforo.sdk.testing import ContractBroken, cases_of, checks_of

CHECK_SECONDS_MAX = 30.0
"""How long one promise of one component may take to be checked."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that a component does not keep."""

    promise: str
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a component stands to the contract of its kind."""

    kind: str
    key: str
    distribution: str | None
    version: str | None
    module: str
    checks: int
    broken: tuple[Broken, ...]

    @property
    def ok(self) -> bool:
        return not self.broken


def check_all(registry: Registry) -> list[Verdict]:
    """A verdict on every component, by kind and key."""
    return [
        _verdict(registry, kind.title, component)
        for kind in KINDS.values()
        for _, component in sorted(registry.components(kind).items())
    ]


def described(verdict: Verdict) -> dict[str, Any]:
    """A verdict as a value for JSON."""
    return {
        "kind": verdict.kind,
        "key": verdict.key,
        "distribution": verdict.distribution,
        "version": verdict.version,
        "ok": verdict.ok,
        "checks": verdict.checks,
        "broken": [{"promise": each.promise, "says": each.says} for each in verdict.broken],
    }


def verdict_lines(verdicts: list[Verdict]) -> Iterator[str]:
    """A line per component, and below it each promise that it does not keep."""
    width = max((len(each.key) for each in verdicts), default=0)
    for each in verdicts:
        origin = f"{each.distribution} {each.version}" if each.distribution else each.module
        mark = "ok    " if each.ok else "BROKEN"
        yield f"{mark}  {each.key:{width}}  {each.kind} of {origin}, {each.checks} checks"
        for one in each.broken:
            yield f"{'':8}{one.promise}"
            yield f"{'':8}→ {one.says}"


def _verdict(registry: Registry, kind: str, component: type[Component]) -> Verdict:
    source = registry.sources[component]
    broken: list[Broken] = []
    count = 0
    for case in cases_of(component):
        for check in checks_of(component):
            count += 1
            try:
                what = f"{component.key}: {check.name}"
                bounded(check.run, case, what=what, seconds=CHECK_SECONDS_MAX)
            except ContractBroken as error:
                broken.append(Broken(check.name, str(error)))
            except FAILURES as error:  # A plugin's code may raise anything at all.
                broken.append(Broken(check.name, f"it raised {told(error)}"))
    return Verdict(
        kind=kind,
        key=component.key,
        distribution=source.distribution,
        version=source.version,
        module=source.module,
        checks=count,
        broken=tuple(broken),
    )
