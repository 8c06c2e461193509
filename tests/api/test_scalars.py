"""The scalars at the API's edge: exact numbers, moments with a zone, bounded JSON."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import httpx2
import pytest
from graphql import GraphQLError

from aforo.api.parts.scalars import (
    parse_decimal,
    parse_integer,
    parse_moment,
    show_decimal,
    show_integer,
    show_moment,
)


@pytest.mark.parametrize(
    ("sent", "number"),
    [
        ("12.50", "12.50"),
        ("-0.000000000000000001", "-0.000000000000000001"),
        ("999999999999999", "999999999999999"),
        (7, "7"),
        (Decimal("0.1"), "0.1"),
        ("-0", "0"),
    ],
)
def test_a_decimal_is_plain_and_exact(sent: object, number: str) -> None:
    parsed = parse_decimal(sent)
    assert parsed == Decimal(number)
    assert Decimal(show_decimal(parsed)) == parsed
    assert "E" not in show_decimal(parsed)


@pytest.mark.parametrize(
    "sent",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e5",
        "1E+999999999",
        Decimal("1E+1000000"),
        Decimal("NaN"),
        "1_000",
        "١٢",
        " 1",
        "1.",
        ".5",
        "+1",
        "0x10",
        "1" * 16,
        "0." + "1" * 19,
        10**15,
        0.5,
        True,
        None,
        [],
        {},
        "",
    ],
)
def test_what_is_no_plain_decimal_is_refused(sent: object) -> None:
    with pytest.raises(GraphQLError):
        parse_decimal(sent)


def test_a_decimal_field_never_shows_a_float_or_an_exponent() -> None:
    assert show_decimal(Decimal("1E+3")) == "1000"
    assert show_decimal(Decimal("1E-12")) == "0.000000000001"
    for wrong in (0.5, 1, "1", Decimal("NaN"), Decimal("Infinity"), None):
        with pytest.raises(TypeError):
            show_decimal(wrong)


@pytest.mark.parametrize(
    ("sent", "moment"),
    [
        ("2026-11-20T10:00:00Z", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20t10:00:00z", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20T10:00:00.123456789+05:30", datetime(2026, 11, 20, 4, 30, 0, 123456, UTC)),
        ("2026-11-20 10:00:00-08:00", datetime(2026, 11, 20, 18, tzinfo=UTC)),
    ],
)
def test_a_moment_has_a_zone_and_becomes_utc(sent: str, moment: datetime) -> None:
    assert parse_moment(sent) == moment
    assert parse_moment(sent).tzinfo is UTC
    assert parse_moment(show_moment(moment)) == moment


@pytest.mark.parametrize(
    "sent",
    [
        "2026-11-20T10:00:00",
        "2026-11-20",
        "2026-02-30T00:00:00Z",
        "2026-11-20T24:00:01Z",
        "2026-11-20T10:00:60Z",
        "0001-01-01T00:00:00+14:00",
        "1969-12-31T23:59:59Z",
        "2200-01-01T00:00:00Z",
        "2199-12-31T23:00:00-02:00",
        "9999-12-31T23:59:59-14:00",
        "2026-11-20T10:00:00 UTC",
        "2026-11-20T10:00:00Z\n",
        "٢٠٢٦-11-20T10:00:00Z",
        1_795_000_000,
        None,
    ],
)
def test_what_is_no_moment_is_refused(sent: object) -> None:
    with pytest.raises(GraphQLError):
        parse_moment(sent)


def test_a_naive_moment_is_never_shown() -> None:
    with pytest.raises(TypeError):
        show_moment(datetime(2026, 11, 20))  # noqa: DTZ001


def test_a_big_integer_has_53_bits() -> None:
    assert parse_integer(2**53 - 1) == show_integer(2**53 - 1) == 2**53 - 1
    for wrong in (2**53, -(2**53), True, 1.0, "1", Decimal(1)):
        with pytest.raises(GraphQLError):
            parse_integer(wrong)
    with pytest.raises(TypeError):
        show_integer(2**53)


SENT = {"Content-Type": "application/json"}


def _with_variable(query: str, written: str) -> str:
    """A request whose variable `v` is this JSON text, digit by digit."""
    return f'{{"query": {json.dumps(query)}, "variables": {{"v": {written}}}}}'


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("0.1", "Decimal"),
        ("1e2", "Decimal"),
        ("1", "int"),
        ("123456789012345678901234567890", "int"),
        ('"x"', "str"),
        ("null", "NoneType"),
        ("[1]", "list"),
        ("{}", "dict"),
    ],
)
async def test_json_numbers_never_become_floats(
    small_client: httpx2.AsyncClient, written: str, kind: str
) -> None:
    literal = json.dumps({"query": f"{{ kind(value: {written}) }}"})
    variable = _with_variable("query($v: JSON!) { kind(value: $v) }", written)
    bodies = [literal] if written == "null" else [variable, literal]
    for body in bodies:
        answer = (await small_client.post("/graphql", content=body, headers=SENT)).json()
        if written != "null":
            assert answer["data"] == {"kind": kind}
        else:
            assert answer["errors"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "value", ["0.1", "1.10", "0.30000000000000000001", "-5", "12345678901234567890123", "[[1.50]]"]
)
async def test_json_comes_back_digit_by_digit(small_client: httpx2.AsyncClient, value: str) -> None:
    body = _with_variable("query($v: JSON!) { echo(value: $v) }", value)
    response = await small_client.post("/graphql", content=body, headers=SENT)
    assert response.text.startswith(f'{{"data":{{"echo":{value}}},')


@pytest.mark.anyio
async def test_json_is_sixteen_levels_deep_at_most(small_client: httpx2.AsyncClient) -> None:
    async def errors(levels: int, *, literal: bool) -> list[str]:
        value = "[" * levels + "]" * levels
        query = "query($v: JSON!) { echo(value: $v) }"
        if literal:
            query = f"{{ echo(value: {value}) }}"
        body = json.dumps({"query": query, "variables": {"v": json.loads(value)}})
        answer = (await small_client.post("/graphql", content=body, headers=SENT)).json()
        return [error["extensions"]["code"] for error in answer.get("errors", [])]

    for literal in (True, False):
        assert await errors(16, literal=literal) == []
        assert await errors(17, literal=literal) != []
        assert "INTERNAL" not in await errors(200, literal=literal)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "value", ['"NaN"', '"1e5"', "1e5", "true", "[]", '"1E+1000000"', "1E+1000000", "9" * 400]
)
async def test_a_wrong_decimal_is_the_callers_mistake_wherever_it_stands(
    small_client: httpx2.AsyncClient, value: str
) -> None:
    variable = _with_variable("query($v: Decimal!) { twice(value: $v) }", value)
    literal = json.dumps({"query": f"{{ twice(value: {value}) }}"})
    for body in (variable, literal):
        answer = (await small_client.post("/graphql", content=body, headers=SENT)).json()
        codes = {error["extensions"]["code"] for error in answer["errors"]}
        assert codes <= {"BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED"}
        assert "data" not in answer


@pytest.mark.anyio
async def test_a_decimal_survives_the_way_there_and_back(
    small_client: httpx2.AsyncClient,
) -> None:
    query = "query($v: Decimal!) { twice(value: $v) }"
    for sent, twice in (("0.1", "0.2"), (0, "0"), ("123456789012345.123456789012345678", None)):
        body = json.dumps({"query": query, "variables": {"v": sent}})
        answer = (await small_client.post("/graphql", content=body, headers=SENT)).json()
        with_all_digits = twice or "246913578024690.246913578024691356"
        assert Decimal(answer["data"]["twice"]) == Decimal(with_all_digits)
