"""What a plugin brings: a frozen class whose fields are its settings."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic.alias_generators import to_camel

from aforo.sdk.errors import Invalid
from aforo.sdk.money import (
    INTEGER_DIGITS_MAX,
    QUANTITY_DECIMALS_MAX,
    RATE_DECIMALS_MAX,
    parse_quantity,
    parse_rate,
)


class Settings(BaseModel):
    """A group of settings: frozen, camelCase outside, unknown names and floats refused.

    A validator may raise `Invalid` with the dotted path of the setting as its `field`.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        field_title_generator=lambda name, _: name.replace("_", " ").capitalize(),
        validate_by_name=True,
        validate_by_alias=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_floats(cls, value: object, info: ValidationInfo) -> object:
        wanted = cls.model_fields[info.field_name or ""].annotation
        values = value if isinstance(value, list | tuple) else [value]
        if wanted is not float and any(isinstance(each, float) for each in values):
            raise ValueError("a float is not exact: give the number as text, such as '0.029'")
        return value


class Component(Settings):
    """The base of every kind of component. Fields are settings, methods the behaviour."""

    key: ClassVar[str]
    """The name by which it is chosen; a partner's starts with its own prefix: `acme.blocks`."""
    summary: ClassVar[str]
    """One line that says what it does, for the one who chooses."""
    examples: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """Settings to begin with, as they are written outside. The contract suites run with each:
    a component that cannot do without settings must give one."""


C = TypeVar("C", bound=Settings)


def configure(component: type[C], settings: Mapping[str, Any], *, field: str = "settings") -> C:
    """A component, or a group of settings, with these; raises `Invalid` with the path of the first
    wrong one.

    `field` is the path at which the settings stand in the caller's input.
    """
    try:
        return component.model_validate(settings)
    except Invalid as error:
        path = ".".join(part for part in (field, error.field) if part)
        raise Invalid(error.message, code=error.code, field=path) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(str(part) for part in (field, *first["loc"]) if part != "")
        raise Invalid(first["msg"].removeprefix("Value error, "), field=path) from error


def settings_form(component: type[Component]) -> dict[str, Any]:
    """The JSON schema of the settings, from which a form can be built."""
    form = component.model_json_schema(by_alias=True, mode="validation")
    return form | {"examples": list(component.examples)} if component.examples else form


def _quantity(value: Any) -> Decimal:
    return _read(parse_quantity, value)


def _rate(value: Any) -> Decimal:
    return _read(parse_rate, value)


def _signed_rate(value: Any) -> Decimal:
    return _read(partial(parse_rate, negative=True), value)


def _read(parse: Callable[[Any], Decimal], value: Any) -> Decimal:
    try:
        return parse(value)
    except Invalid as error:
        raise ValueError(error.message) from error  # Lets pydantic add the path.


def _schema(decimals: int, *, sign: str = "") -> WithJsonSchema:
    pattern = rf"^{sign}[0-9]{{1,{INTEGER_DIGITS_MAX}}}(\.[0-9]{{1,{decimals}}})?$"
    return WithJsonSchema({"type": "string", "pattern": pattern})


# pydantic writes 0.00000003 as 3E-8, which no setting accepts back.
_PLAIN = PlainSerializer(lambda value: f"{value:f}", return_type=str, when_used="json")

Quantity = Annotated[Decimal, BeforeValidator(_quantity), _schema(QUANTITY_DECIMALS_MAX), _PLAIN]
"""Billable units as a setting: not negative, at most 15 integer digits and 12 decimals."""

Rate = Annotated[Decimal, BeforeValidator(_rate), _schema(RATE_DECIMALS_MAX), _PLAIN]
"""A price per unit or a share: not negative, at most 15 integer digits and 18 decimals."""

SignedRate = Annotated[
    Decimal, BeforeValidator(_signed_rate), _schema(RATE_DECIMALS_MAX, sign="-?"), _PLAIN
]
"""A share that may be below 0, such as the limit of a margin; bounds as `Rate`."""

Amount = Annotated[Decimal, BeforeValidator(_rate), _schema(RATE_DECIMALS_MAX), _PLAIN]
"""An amount of money in the plan's currency: not negative, bounds as `Rate`."""
