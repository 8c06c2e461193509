"""Settings that a tenant chose for a component: judged before they are saved, and read back."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from aforo.plugins.guard import FAILURES, bounded, told
from aforo.sdk import Component, Invalid, PluginError, configure

C = TypeVar("C", bound=Component)
_SAID_CHARACTERS_MAX = 200


def to_store(kind: type[Component], settings: Mapping[str, Any], *, what: str) -> dict[str, Any]:
    """The settings, complete and under their outside names, as values for JSON.

    `what` names the component: "the tax engine 'manual'". Raises: `Invalid` with the path of the
    setting that it refuses; code `PLUGIN_ERROR` where the component itself is at fault.
    """
    try:
        component = bounded(configure, kind, settings, what=what)
        stored: dict[str, Any] = json.loads(
            json.dumps(component.model_dump(mode="json", by_alias=True), allow_nan=False)
        )
        comes_back = configure(kind, stored) == component
    except Invalid:
        raise
    except FAILURES as error:  # A plugin's code may raise anything at all.
        raise _broken(what, told(error)) from error
    if not comes_back:
        raise _broken(what, "its settings do not come back from JSON as they went in")
    if "\\u0000" in json.dumps(stored):
        raise Invalid("a setting holds a NUL character, which cannot be stored", field="settings")
    return stored


def restored(kind: type[C] | None, settings: Mapping[str, Any], *, what: str) -> C:
    """The component with the settings that were saved for it.

    Raises: `PluginError` where no plugin brings it any more, or it refuses what was saved.
    """
    if kind is None:
        raise PluginError(f"no installed plugin brings {what}; install it again")
    try:
        component: C = bounded(configure, kind, settings, what=what)
    except FAILURES as error:  # They fitted when they were saved; the plugin has changed since.
        field = f"{error.field}: " if isinstance(error, Invalid) else ""
        raise PluginError(
            f"{what} refuses the settings that were saved for it: {field}{told(error)}"
        ) from error
    return component


def _broken(what: str, said: str) -> Invalid:
    return Invalid(
        f"{what} failed on these settings: {said[:_SAID_CHARACTERS_MAX]}; report it to the "
        "plugin's maker, or choose another",
        code="PLUGIN_ERROR",
        field="settings",
    )
