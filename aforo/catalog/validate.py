"""What codes, names, filters and amounts of the catalogue must look like."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from aforo.catalog.models import Aggregation, DiscountKind, EntitlementKind
from aforo.sdk import (
    Invalid,
    UnknownCurrency,
    currency_exponent,
    parse_quantity,
    parse_rate,
    round_half_up,
)

NAME_LENGTH_MAX = 200
UNIT_LENGTH_MAX = 40
EVENT_TYPE_LENGTH_MAX = 128
PROPERTY_LENGTH_MAX = 128
FILTERS_MAX = 20
DIMENSIONS_MAX = 4
FILTER_VALUES_MAX = 100
FILTER_VALUE_LENGTH_MAX = 500

_CODE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_UNSTORABLE = {"Cc", "Cs", "Zl", "Zp"}  # Control characters, half a character, line ends.


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on an event: the property's text is one of the values."""

    property: str
    values: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        return {"property": self.property, "values": list(self.values)}


def check_code(code: str, *, field: str = "code") -> str:
    """A name for machines; raises `Invalid` unless it is 1 to 64 of `a-z 0-9 _ . -`."""
    if not _CODE.fullmatch(code):
        raise Invalid(
            f"{_shown(code)} is no code: use 1 to 64 lower-case letters, digits, '_', '.' and '-', "
            "starting with a letter or a digit, such as 'input_tokens'",
            field=field,
        )
    return code


def check_text(
    text: str, *, field: str, length_max: int = NAME_LENGTH_MAX, may_be_blank: bool = False
) -> str:
    """A text that people read or that is compared exactly; raises `Invalid` unless it can be
    stored and, but for `may_be_blank`, seen: no control characters, at most `length_max` others."""
    if not may_be_blank and not text.strip():
        raise Invalid(f"{field} is blank, give 1 to {length_max} characters", field=field)
    if len(text) > length_max:
        raise Invalid(f"{field} has {len(text)} characters, give at most {length_max}", field=field)
    if any(unicodedata.category(character) in _UNSTORABLE for character in text):
        raise Invalid(f"{field} has a control character, leave it out", field=field)
    return text


def check_currency(currency: str, *, field: str = "currency") -> str:
    """An active ISO 4217 code; raises `UnknownCurrency` with `field`."""
    try:
        currency_exponent(currency)
    except UnknownCurrency as error:
        raise UnknownCurrency(error.message, field=field) from error
    return currency


def check_unique(values: Iterable[object], *, field: str) -> None:
    """Raise `Invalid` at the first value that was there before; `{}` in `field` is its index."""
    seen: set[object] = set()
    for index, value in enumerate(values):
        if value in seen:
            raise Invalid("this is given twice, give it once", field=field.format(index))
        seen.add(value)


def check_counting(
    *, aggregation: Aggregation, property_name: str | None, allows_negative: bool
) -> None:
    """Whether a meter's aggregation and the property that it counts fit together."""
    if aggregation is Aggregation.COUNT:
        if property_name is not None:
            raise Invalid(
                "COUNT counts events and takes no property: leave it out, "
                "or choose SUM, MAX, UNIQUE or LATEST",
                field="property",
            )
    elif property_name is None:
        raise Invalid(f"{aggregation} needs the property that it counts", field="property")
    else:
        check_text(property_name, field="property", length_max=PROPERTY_LENGTH_MAX)
    if allows_negative and aggregation is not Aggregation.SUM:
        raise Invalid(
            f"only SUM can be corrected downwards, not {aggregation}", field="allowsNegative"
        )


def check_filters(filters: Sequence[Filter]) -> None:
    """At most 20 conditions of at most 100 different values each."""
    if len(filters) > FILTERS_MAX:
        raise Invalid(
            f"{len(filters)} filters are too many, give at most {FILTERS_MAX}", field="filters"
        )
    for index, each in enumerate(filters):
        path = f"filters.{index}"
        check_text(each.property, field=f"{path}.property", length_max=PROPERTY_LENGTH_MAX)
        if not 1 <= len(each.values) <= FILTER_VALUES_MAX:
            raise Invalid(
                f"a filter has 1 to {FILTER_VALUES_MAX} values, not {len(each.values)}",
                field=f"{path}.values",
            )
        for position, value in enumerate(each.values):
            check_text(
                value,
                field=f"{path}.values.{position}",
                length_max=FILTER_VALUE_LENGTH_MAX,
                may_be_blank=True,
            )
        check_unique(each.values, field=f"{path}.values.{{}}")


def check_dimensions(dimensions: Sequence[str]) -> None:
    """At most 4 different properties."""
    if len(dimensions) > DIMENSIONS_MAX:
        raise Invalid(
            f"{len(dimensions)} dimensions are too many, give at most {DIMENSIONS_MAX}",
            field="dimensions",
        )
    for index, name in enumerate(dimensions):
        check_text(name, field=f"dimensions.{index}", length_max=PROPERTY_LENGTH_MAX)
    check_unique(dimensions, field="dimensions.{}")


def check_grant(*, kind: EntitlementKind, has_meter: bool, quota: Decimal | None) -> Decimal | None:
    """The quota of an entitlement, checked: a QUOTA has a meter and a quota, a BOOLEAN neither."""
    if kind is EntitlementKind.BOOLEAN:
        if has_meter:
            raise Invalid("a BOOLEAN entitlement takes no meter, leave it out", field="meterId")
        if quota is not None:
            raise Invalid("a BOOLEAN entitlement takes no quota, leave it out", field="quota")
        return None
    if not has_meter:
        raise Invalid("a QUOTA entitlement needs the meter that it limits", field="meterId")
    if quota is None:
        raise Invalid("a QUOTA entitlement needs its units", field="quota")
    return parse_quantity(quota, field="quota")


def check_reduction(
    *, kind: DiscountKind, rate: Decimal | None, amount: Decimal | None, currency: str | None
) -> Mapping[str, Any]:
    """The columns of a discount, checked: a share alone, or an amount in a currency."""
    given = {"rate": rate, "amount": amount, "currency": currency}
    wanted = {"rate"} if kind is DiscountKind.PERCENTAGE else {"amount", "currency"}
    for name, value in given.items():
        if value is None and name in wanted:
            raise Invalid(f"a {kind} discount needs its {name}", field=name)
        if value is not None and name not in wanted:
            raise Invalid(f"a {kind} discount takes no {name}, leave it out", field=name)
    if rate is not None:
        return {"rate": _share(rate)}
    assert amount is not None
    assert currency is not None
    return {"amount": _amount(amount, check_currency(currency)), "currency": currency}


def _share(given: Decimal) -> Decimal:
    rate = parse_rate(given, field="rate")
    if not 0 < rate <= 1:
        raise Invalid(f"{rate:f} is no share: 0.1 is ten percent, 1 is everything", field="rate")
    return rate


def _amount(given: Decimal, currency: str) -> Decimal:
    amount = parse_rate(given, field="amount")
    exponent = currency_exponent(currency)
    if amount <= 0:
        raise Invalid("the amount of a discount is above 0", field="amount")
    if amount != round_half_up(amount, exponent):
        raise Invalid(
            f"{amount:f} {currency} cannot be invoiced: {currency} has {exponent} decimals",
            field="amount",
        )
    return amount


def _shown(text: str) -> str:
    return repr(text) if len(text) <= 70 else f"{text[:70]!r}…"
