"""What every component promises: settings that can be stored, shown and trusted."""

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from aforo.sdk.component import Component, configure, settings_form
from aforo.sdk.errors import Invalid
from aforo.sdk.testing.contract import Case, check, demand, is_text

SUMMARY_CHARACTERS_MAX = 200


@check(Component)
def it_says_in_one_line_what_it_does(case: Case) -> None:
    demand(
        is_text(case.component.summary, length_max=SUMMARY_CHARACTERS_MAX),
        f"its summary is one line of at most {SUMMARY_CHARACTERS_MAX} characters",
    )


@check(Component)
def it_can_be_tried_out_with_an_example(case: Case) -> None:
    fields = case.component.model_fields.items()
    needed = [field.alias or name for name, field in fields if field.is_required()]
    demand(
        case.component.examples or not needed,
        f"it needs {', '.join(needed)} and gives no example: set `examples = ({{…}},)`",
    )
    case.configured()


@check(Component)
def its_settings_come_back_from_json_as_they_went_in(case: Case) -> None:
    component = case.configured()
    stored = json.dumps(component.model_dump(mode="json", by_alias=True), allow_nan=False)
    demand(
        configure(case.component, json.loads(stored)) == component,
        f"its settings do not come back from JSON: {stored[:200]}",
    )


@check(Component)
def its_settings_cannot_be_changed(case: Case) -> None:
    component = case.configured()
    for name in case.component.model_fields:
        try:
            setattr(component, name, getattr(component, name))
        except (AttributeError, TypeError, ValidationError):
            continue
        demand(False, f"`{name}` can be changed: leave the model frozen")  # noqa: FBT003


@check(Component)
def a_setting_that_it_does_not_know_is_refused(case: Case) -> None:
    demand(
        _refuses(case, {"noSuchSetting": 1}),
        "it takes a setting that it does not know: a misspelt one would be lost in silence",
    )


@check(Component)
def a_float_is_refused_where_a_decimal_belongs(case: Case) -> None:
    component = case.configured()
    for name, field in case.component.model_fields.items():
        if isinstance(getattr(component, name), Decimal):
            outside = field.alias or name
            demand(
                _refuses(case, {outside: 0.5}, without=(name, outside)),
                f"`{outside}` takes the float 0.5, which is not exact: give it one of the types "
                "Quantity, Rate, SignedRate and Amount",
            )


@check(Component)
def its_form_is_a_json_schema_of_its_settings(case: Case) -> None:
    form = settings_form(case.component)
    json.dumps(form, allow_nan=False)
    demand(form.get("type") == "object", "its form is no JSON schema of an object")
    properties: Mapping[str, Any] = form.get("properties", {})
    unknown = set(case.settings) - set(properties) - set(case.component.model_fields)
    demand(not unknown, f"its example sets {', '.join(sorted(unknown))}, not part of its form")
    for reference in _references(form):
        demand(
            reference.startswith("#/$defs/") and reference[8:] in form.get("$defs", {}),
            f"its form refers to {reference}, which is not in it",
        )


def _refuses(case: Case, more: Mapping[str, Any], *, without: tuple[str, ...] = ()) -> bool:
    kept = {name: value for name, value in case.settings.items() if name not in without}
    try:
        configure(case.component, kept | dict(more))
    except Invalid:
        return True
    return False


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if isinstance(reference := schema.get("$ref"), str):
            yield reference
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)
