"""What a contract suite is made of: checks, and the cases that each is run with."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from aforo.sdk.component import Component, configure
from aforo.sdk.errors import AforoError, Invalid
from aforo.sdk.kinds import KINDS

ANSWER_SECONDS_MAX = 10
T = TypeVar("T")


class ContractBroken(AssertionError):
    """A component breaks its contract; the sentence says how, and what to do."""


@dataclass(frozen=True, slots=True)
class Case:
    """A component with settings, as they are written outside."""

    component: type[Component]
    settings: Mapping[str, Any]

    def configured(self) -> Any:
        """The component with these settings. Raises: `ContractBroken` where it refuses them."""
        try:
            return configure(self.component, self.settings)
        except Invalid as error:
            raise ContractBroken(
                f"it refuses its own example: {error.field}: {error.message}"
            ) from error

    def __str__(self) -> str:
        return self.component.key


@dataclass(frozen=True, slots=True)
class Check:
    """One promise that every component of a kind keeps."""

    base: type[Component]
    name: str
    """A sentence."""
    run: Callable[[Case], None]

    def __str__(self) -> str:
        return self.name


_checks: list[Check] = []


def check(base: type[Component]) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Add a function to the suite of a kind; its name is the sentence."""

    def register(function: Callable[[Case], None]) -> Callable[[Case], None]:
        _checks.append(Check(base, function.__name__.replace("_", " "), function))
        return function

    return register


def checks_of(component: type[Component]) -> list[Check]:
    """The suite of a component: what every component promises, then what its kind does."""
    return [each for each in _checks if issubclass(component, each.base)]


def cases_of(component: type[Component]) -> list[Case]:
    """A case per example; without examples, one of no settings at all."""
    return [Case(component, settings) for settings in component.examples or ({},)]


def components_of(plugin: object) -> list[type[Component]]:
    """All that a plugin's hooks register, in the order of the kinds."""
    hooks = [getattr(plugin, kind.hook, None) for kind in KINDS.values()]
    return [component for hook in hooks if callable(hook) for component in hook()]


def demand(holds: object, fault: str) -> None:
    """Raise `ContractBroken` with the sentence unless it holds."""
    if not holds:
        raise ContractBroken(fault)


def answer_of(work: Coroutine[Any, Any, T], *, down: type[AforoError]) -> T | None:
    """What a component's coroutine answers; None where it says that its service is down.

    Raises: `ContractBroken` where it takes too long.
    """

    async def wait() -> T:
        return await asyncio.wait_for(work, ANSWER_SECONDS_MAX)

    try:
        return asyncio.run(wait())
    except down:
        return None
    except TimeoutError as error:
        raise ContractBroken(
            f"it took more than {ANSWER_SECONDS_MAX} s: set a time limit of its own, and raise "
            f"{down.__name__}"
        ) from error


def is_text(value: object, *, length_max: int) -> bool:
    """Whether it is text of 1 to `length_max` printable characters, on one line."""
    return isinstance(value, str) and 0 < len(value) <= length_max and value.isprintable()
