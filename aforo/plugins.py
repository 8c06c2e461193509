"""Finds the installed plugins, checks what they bring, and freezes it into a registry."""

import asyncio
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, cast

import pluggy
from pydantic.errors import PydanticUserError

from aforo.sdk import (
    Component,
    Detector,
    PluginError,
    PricingModel,
    TaxEngine,
    hooks,
    settings_form,
)

ENTRY_POINT_GROUP = "aforo"
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_KEY_CHARACTERS_MAX = 64
_TOLD_CHARACTERS_MAX = 500
# Control characters, line ends and halves of a surrogate pair: PostgreSQL stores not all of them.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

FAILURES = (Exception, SystemExit, GeneratorExit, asyncio.CancelledError)
"""All that a plugin's code can raise where nothing is awaited: none of them may end a worker."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a component comes from."""

    distribution: str | None
    """The installed distribution's name; None for a plugin that the caller handed over."""
    version: str | None
    module: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """All components by kind and key: built once at start-up, read-only after."""

    pricing_models: Mapping[str, type[PricingModel]]
    tax_engines: Mapping[str, type[TaxEngine]]
    detectors: Mapping[str, type[Detector[Any]]]
    sources: Mapping[type[Component], Source]


@dataclass(frozen=True, slots=True)
class _Plugin:
    name: str
    distribution: str | None
    version: str | None
    implementation: object


def load_registry(*, extra: Sequence[object] = ()) -> Registry:
    """Load every plugin of the entry-point group `aforo`, then `extra`, and check them all.

    Calls each hook once; nothing after start-up goes through pluggy again. Raises `PluginError`,
    which names the plugin and its distribution, for the first thing that is wrong.
    """
    manager = pluggy.PluginManager("aforo")
    manager.add_hookspecs(hooks)
    plugins: dict[str, _Plugin] = {}
    for plugin in (*_installed(), *_handed_over(extra)):
        _register(manager, plugin)
        plugins[plugin.name] = plugin

    sources: dict[type[Component], Source] = {}
    collect = _Collector(plugins=plugins, sources=sources)
    return Registry(
        pricing_models=collect.by_key(PricingModel, manager.hook.register_pricing_models),
        tax_engines=collect.by_key(TaxEngine, manager.hook.register_tax_engines),
        detectors=collect.by_key(Detector, manager.hook.register_detectors),
        sources=MappingProxyType(sources),
    )


def told(error: BaseException) -> str:
    """The kind of an error and what it says: one line that can be stored, of bounded length."""
    try:
        said = str(error)[:_TOLD_CHARACTERS_MAX]
    except Exception:  # noqa: BLE001 (a plugin's error may fail even at this)
        said = ""
    said = _UNPRINTABLE.sub(" ", said).strip()
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def is_printable(text: object, *, length_max: int) -> bool:
    """Whether it is text of 1 to `length_max` characters that can be stored and seen."""
    return isinstance(text, str) and 0 < len(text) <= length_max and not _UNPRINTABLE.search(text)


def _installed() -> Iterator[_Plugin]:
    found = [(point.dist, point) for point in entry_points(group=ENTRY_POINT_GROUP)]
    # In a fixed order, so that a clash is reported the same way on every machine.
    found.sort(key=lambda pair: (pair[0].name if pair[0] else "", pair[1].name))
    for dist, entry_point in found:
        distribution, version = (dist.name, dist.version) if dist else (None, None)
        name = f"plugin {entry_point.name!r} of {distribution} {version}"
        try:
            implementation = entry_point.load()
        except Exception as error:  # A plugin's import may raise anything at all.
            raise PluginError(
                f"{name} cannot be imported ({entry_point.value}): {told(error)}; "
                f"fix or uninstall {distribution}"
            ) from error
        yield _Plugin(name, distribution, version, implementation)


def _handed_over(extra: Sequence[object]) -> Iterator[_Plugin]:
    for implementation in extra:
        called = getattr(implementation, "__name__", type(implementation).__name__)
        yield _Plugin(f"plugin {called!r}", None, None, implementation)


def _register(manager: pluggy.PluginManager, plugin: _Plugin) -> None:
    try:
        manager.register(plugin.implementation, name=plugin.name)
    except pluggy.PluginValidationError as error:
        reason = str(error).splitlines()[-1]  # Before it pluggy shows the definition.
        raise PluginError(f"{plugin.name} has a hook that does not fit: {reason}") from error
    except ValueError as error:
        raise PluginError(f"{plugin.name} is registered twice") from error
    callers = manager.get_hookcallers(plugin.implementation) or []
    if not callers:
        raise PluginError(f"{plugin.name} registers nothing: mark its functions with @hookimpl")
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        misspelt = next(caller.name for caller in callers if not caller.has_spec())
        known = [name for name in dir(hooks) if name.startswith("register_")]
        meant = get_close_matches(misspelt, known, n=1)
        advice = f"did you mean {meant[0]!r}?" if meant else f"there are {', '.join(known)}"
        raise PluginError(f"{plugin.name} has no such hook: {misspelt!r}; {advice}") from error


@dataclass(frozen=True, slots=True)
class _Collector:
    plugins: Mapping[str, _Plugin]
    sources: dict[type[Component], Source]

    def by_key(self, base: type[Component], hook: pluggy.HookCaller) -> Mapping[str, type[Any]]:
        found: dict[str, type[Component]] = {}
        for implementation in hook.get_hookimpls():
            plugin = self.plugins[implementation.plugin_name]
            for candidate in _returned(plugin, implementation):
                component = _checked(plugin, candidate, base)
                if component.key in found:
                    rival = self.sources[found[component.key]]
                    raise PluginError(
                        f"{plugin.name}: the key {component.key!r} of {component.__qualname__} is "
                        f"taken by {found[component.key].__qualname__} of "
                        f"{rival.distribution or rival.module}; give it another key"
                    )
                found[component.key] = component
                self.sources[component] = Source(
                    plugin.distribution, plugin.version, component.__module__
                )
        return MappingProxyType(found)


def _returned(plugin: _Plugin, implementation: pluggy.HookImpl) -> list[object]:
    hook = implementation.function.__name__
    try:
        return list(cast("Iterable[object]", implementation.function()))
    except Exception as error:  # A plugin's code may raise anything at all.
        raise PluginError(f"{plugin.name}: {hook} failed: {told(error)}") from error


def _checked(plugin: _Plugin, candidate: object, base: type[Component]) -> type[Component]:
    if not isinstance(candidate, type) or not issubclass(candidate, base):
        raise PluginError(f"{plugin.name}: {candidate!r} is no subclass of {base.__name__}")
    if inspect.isabstract(candidate):
        fault = f"is abstract: it lacks {', '.join(sorted(candidate.__abstractmethods__))}"
    else:
        fault = _fault_of_name(candidate) or _fault_of_kind(candidate)
    if fault:
        raise PluginError(f"{plugin.name}: {candidate.__qualname__} {fault}")
    return candidate


def _fault_of_name(component: type[Component]) -> str:
    key = getattr(component, "key", None)
    if key is None:
        return "has no key: give it one, such as `key = 'acme.blocks'`"
    if not isinstance(key, str) or len(key) > _KEY_CHARACTERS_MAX or not _KEY.fullmatch(key):
        return (
            f"has the key {key!r}: a key is at most {_KEY_CHARACTERS_MAX} letters, digits, "
            "underscores and dots, such as 'acme.blocks'"
        )
    if not isinstance(getattr(component, "summary", None), str):
        return "has no summary: say in one line what it does"
    return ""


def _fault_of_kind(component: type[Component]) -> str:
    if issubclass(component, Detector) and not isinstance(
        getattr(component, "evidence", None), type
    ):
        return "does not say which evidence it wants: set `evidence = MarginEvidence`"
    if issubclass(component, TaxEngine) and not inspect.iscoroutinefunction(component.quote):
        return "has a `quote` that is not `async def`"
    try:
        settings_form(component)
    except PydanticUserError as error:
        return f"has settings without a JSON schema: {told(error)}"
    return ""
