"""Asks a detector for its verdict inside a guard, and says whether the verdict is news."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from aforo.plugins import FAILURES, Registry, bounded, is_printable, told
from aforo.sdk import (
    Detection,
    Detector,
    Invalid,
    Level,
    PluginError,
    configure,
    exact,
    round_half_up,
)

NAME_CHARACTERS_MAX = 64
EXPLANATION_CHARACTERS_MAX = 2_000
NUMBERS_MAX = 50
DIGITS_MAX = 120
DECIMALS_MAX = 12
"""Of the numbers that a signal carries."""


@dataclass(frozen=True, slots=True)
class Fired:
    """A threshold that has fired in the period."""

    threshold: str
    level: Level


def detector_kind(registry: Registry, key: str) -> type[Detector[Any]]:
    """The detector's class; raises `PluginError` where no installed plugin brings it."""
    kind = registry.detectors.get(key)
    if kind is None:
        known = ", ".join(sorted(registry.detectors))
        raise PluginError(f"no installed plugin brings the detector {key!r}; there are: {known}")
    return kind


def configured(registry: Registry, key: str, *levels: Mapping[str, Any]) -> Detector[Any]:
    """The detector `key` with its defaults, overridden by each level of settings in turn, so
    that the most specific, which comes last, wins setting by setting.

    Raises: `Invalid` where the settings do not fit the detector or each other; `PluginError`
    where no plugin brings it, or where it breaks on them.
    """
    merged: dict[str, Any] = {}
    for level in levels:
        merged |= level
    kind = detector_kind(registry, key)
    try:
        return configure(kind, merged)
    except Invalid:
        raise
    except FAILURES as error:  # A plugin's code may raise anything at all.
        raise _broken(registry, key, "on its settings", error) from error


def snapshot(registry: Registry, detector: Detector[Any]) -> dict[str, Any]:
    """All settings of a detector as JSON values, under their outside names.

    Raises: `PluginError` where they cannot be written as such.
    """
    try:
        return detector.model_dump(mode="json", by_alias=True)
    except FAILURES as error:  # A plugin's code may raise anything at all.
        raise _broken(registry, detector.key, "on its settings", error) from error


def outside_names(kind: type[Detector[Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings under their outside names: `loss_floor` becomes `lossFloor`, and so meets
    the same setting of another level."""
    aliases = {name: field.alias or name for name, field in kind.model_fields.items()}
    return {aliases.get(name, name): value for name, value in settings.items()}


def ask(registry: Registry, detector: Detector[Any], evidence: object) -> Detection | None:
    """What the detector finds in the evidence: checked, because a plugin may answer anything.

    Raises: `PluginError`, which names the detector and its distribution.
    """
    try:
        with exact():
            what = named(registry, detector.key)
            detection = bounded(detector.detect, evidence, what=what)
    except FAILURES as error:  # A plugin's code may raise anything at all.
        raise _broken(registry, detector.key, "on its evidence", error) from error
    if detection is not None and (fault := _fault(detection)):
        raise PluginError(f"{named(registry, detector.key)} answered {fault}")
    return detection


def named(registry: Registry, key: str) -> str:
    """A detector with where it comes from, as a log or an error names it."""
    kind = registry.detectors.get(key)
    source = registry.sources.get(kind) if kind is not None else None
    if source is None:
        return f"the detector {key!r}"
    origin = f"{source.distribution} {source.version}" if source.distribution else source.module
    return f"the detector {key!r} of {origin}"


def is_news(detection: Detection, fired: Iterable[Fired]) -> bool:
    """Whether this breach goes deeper than what has fired in the period, or is another one at
    the same depth.

    A deeper signal includes the milder ones: a margin that climbs back from L1 through L2 and
    L3 crosses nothing anew. And a threshold fires once per period, however often the value
    swings around it.
    """
    fired = list(fired)
    if any(one.threshold == detection.threshold for one in fired):
        return False
    return detection.level >= max((one.level for one in fired), default=detection.level)


def as_numbers(detection: Detection) -> dict[str, str | None]:
    """The detection's numbers as decimal strings in plain notation, null where undefined."""
    return {
        name: None if value is None else f"{settled(value):f}"
        for name, value in detection.numbers.items()
    }


def settled(value: Decimal) -> Decimal:
    """A number as a signal shows it: at most 12 decimals, halves away from zero, and none of the
    zeros at its end. A quotient has 60 digits, which nobody reads."""
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int), "a number that was checked is finite"
    text = f"{round_half_up(value, min(-exponent, DECIMALS_MAX)) if exponent < 0 else value:f}"
    return Decimal(text.rstrip("0").rstrip(".") if "." in text else text)


def _broken(registry: Registry, key: str, on: str, error: BaseException) -> PluginError:
    return PluginError(f"{named(registry, key)} failed {on}: {told(error)}")


def _fault(detection: object) -> str:
    if not isinstance(detection, Detection):
        return f"a {type(detection).__name__} instead of a Detection or None"
    if not isinstance(detection.level, Level):
        return f"the level {detection.level!r}, which is no rung of the ladder"
    if not _is_name(detection.threshold):
        return f"a threshold that is no name of 1 to {NAME_CHARACTERS_MAX} characters"
    if not is_printable(detection.explanation, length_max=EXPLANATION_CHARACTERS_MAX):
        return (
            f"an explanation that is no text of 1 to {EXPLANATION_CHARACTERS_MAX} printable "
            "characters"
        )
    if (
        not isinstance(detection.numbers, Mapping)
        or len(detection.numbers) > NUMBERS_MAX
        or not all(map(_is_name, detection.numbers))
    ):
        return f"numbers that are no mapping of at most {NUMBERS_MAX} by name"
    values = {"value": detection.value, "limit": detection.limit, **detection.numbers}
    wrong = [name for name, value in values.items() if not _is_number(value)]
    return (
        f"{wrong[0]!r} that is neither None nor a finite Decimal of ordinary size" if wrong else ""
    )


def _is_name(text: object) -> bool:
    return is_printable(text, length_max=NAME_CHARACTERS_MAX)


def _is_number(value: object) -> bool:
    # 1E+1000000 is finite too, and a million digits in plain notation.
    return value is None or (
        isinstance(value, Decimal)
        and value.is_finite()
        and abs(value.adjusted()) <= DIGITS_MAX
        and len(value.as_tuple().digits) <= DIGITS_MAX
    )
