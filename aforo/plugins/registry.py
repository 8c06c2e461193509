"""Finds the installed plugins, checks what they bring, and freezes it into a registry."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pluggy
from pydantic.errors import PydanticUserError

from aforo.plugins.door import check_version, examine
from aforo.plugins.files import load_file
from aforo.plugins.guard import UNPRINTABLE, told
from aforo.sdk import (
    AiFeature,
    Component,
    Detector,
    Notifier,
    PaymentGateway,
    PluginError,
    PricingModel,
    TaxEngine,
    hooks,
    settings_form,
)
from aforo.sdk.kinds import KINDS, Kind, kind_of
from aforo.sdk.version import STATEMENT

ENTRY_POINT_GROUP = "aforo"
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_KEY_CHARACTERS_MAX = 64


@dataclass(frozen=True, slots=True)
class Source:
    """Where a component comes from."""

    distribution: str | None
    """The installed distribution's name; None for a file, or what the caller handed over."""
    version: str | None
    module: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """All components by kind and key: built once at start-up, read-only after."""

    pricing_models: Mapping[str, type[PricingModel]] = field(default_factory=dict)
    tax_engines: Mapping[str, type[TaxEngine]] = field(default_factory=dict)
    payment_gateways: Mapping[str, type[PaymentGateway]] = field(default_factory=dict)
    detectors: Mapping[str, type[Detector[Any]]] = field(default_factory=dict)
    notifiers: Mapping[str, type[Notifier]] = field(default_factory=dict)
    ai_features: Mapping[str, type[AiFeature[Any]]] = field(default_factory=dict)
    sources: Mapping[type[Component], Source] = field(default_factory=dict)

    def components(self, kind: Kind) -> Mapping[str, type[Component]]:
        """All of one kind, by key."""
        found: Mapping[str, type[Component]] = getattr(self, kind.collection)
        return found


@dataclass(frozen=True, slots=True)
class _Plugin:
    name: str
    distribution: str | None
    version: str | None
    implementation: object


def load_registry(*, extra: Sequence[object] = (), files: Sequence[Path] = ()) -> Registry:
    """Load every plugin of the entry-point group `aforo`, then `files` and `extra`, and check all.

    Calls each hook once; nothing after start-up goes through pluggy again. Raises `PluginError`,
    which names the plugin and its distribution, for the first thing that is wrong.
    """
    manager = pluggy.PluginManager("aforo")
    manager.add_hookspecs(hooks)
    plugins: dict[str, _Plugin] = {}
    for plugin in (*_installed(), *_of_files(files), *_handed_over(extra)):
        _register(manager, plugin)
        plugins[plugin.name] = plugin

    sources: dict[type[Component], Source] = {}
    collect = _Collector(plugins=plugins, sources=sources)
    found = {
        kind.collection: collect.by_key(kind.base, getattr(manager.hook, kind.hook))
        for kind in KINDS.values()
    }
    return Registry(**found, sources=MappingProxyType(sources))


def is_printable(text: object, *, length_max: int) -> bool:
    """Whether it is text of 1 to `length_max` characters that can be stored and seen."""
    return isinstance(text, str) and 0 < len(text) <= length_max and not UNPRINTABLE.search(text)


def _installed() -> Iterator[_Plugin]:
    found = [(point.dist, point) for point in entry_points(group=ENTRY_POINT_GROUP)]
    # In a fixed order, so that a clash is reported the same way on every machine.
    found.sort(key=lambda pair: (pair[0].name if pair[0] else "", pair[1].name))
    for dist, entry_point in found:
        distribution, version = (dist.name, dist.version) if dist else (None, None)
        name = f"plugin {entry_point.name!r} of {distribution} {version}"
        told_before = examine(name, entry_point.module)
        if told_before.is_read:
            check_version(name, distribution, told_before.wanted)
        try:
            implementation = entry_point.load()
        except Exception as error:  # A plugin's import may raise anything at all.
            raise PluginError(
                f"{name} cannot be imported ({entry_point.value}): {told(error)}; "
                f"fix or uninstall {distribution}"
            ) from error
        if not told_before.is_read:
            check_version(name, distribution, getattr(implementation, STATEMENT, None))
        yield _Plugin(name, distribution, version, implementation)


def _of_files(files: Sequence[Path]) -> Iterator[_Plugin]:
    for path in files:
        yield _Plugin(f"the plugin {path}", None, None, load_file(path))


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
    if issubclass(component, Detector) and not _has_class(component, "evidence"):
        return "does not say which evidence it wants: set `evidence = MarginEvidence`"
    if issubclass(component, AiFeature):
        if not _has_class(component, "facts"):
            return "does not say which facts it wants: set `facts = InvoiceFacts`"
        if component.tools:
            return "names tools, of which this release has none: leave `tools` out"
    for name in _AWAITED.get(kind_of(component).word, ()):
        if not inspect.iscoroutinefunction(getattr(component, name)):
            return f"has a `{name}` that is not `async def`"
    if not _are_settings(component.examples):
        return "has examples that are no sequence of settings: set `examples = ({…},)`"
    try:
        settings_form(component)
    except PydanticUserError as error:
        return f"has settings without a JSON schema: {told(error)}"
    return ""


_AWAITED = {"tax": ("quote",), "gateway": ("charge", "find")}
"""The methods of each kind that may ask a service, and so are awaited."""


def _has_class(component: type[Component], name: str) -> bool:
    return isinstance(getattr(component, name, None), type)


def _are_settings(examples: object) -> bool:
    return isinstance(examples, Sequence) and all(
        isinstance(example, Mapping) for example in examples
    )
