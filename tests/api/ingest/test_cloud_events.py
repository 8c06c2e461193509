"""CloudEvents in their three modes, attribute by attribute."""

import json
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.api.ingest.cloud_events import key_of
from tests.api.ingest.forms import CLOUD_BATCH, CLOUD_EVENT, FORMS, binary, cloud_event
from tests.metering.market import Market

pytestmark = pytest.mark.anyio

CLOUDY = ("structured", "batched", "binary")

# What is sent, and the code and a word of the message; None where it is accepted.
EVENTS: dict[str, tuple[dict[str, Any], tuple[str, str] | None]] = {
    "good": ({}, None),
    "without a time": ({"time": None}, None),
    "without data": ({"data": None, "type": "calls"}, ("UNKNOWN_METER", "calls")),
    "by its key": ({"subject": None, "apikey": "sk_live_1"}, ("KEY_UNKNOWN", "apiKey")),
    "with what others add": ({"traceparent": "00-ab-cd-01", "dataschema": "/x"}, None),
    "no version": ({"specversion": None}, ("MISSING_FIELD", "specversion")),
    "old version": ({"specversion": "0.3"}, ("BAD_VALUE", "specversion must be 1.0")),
    "no id": ({"id": None}, ("MISSING_FIELD", "id is")),
    "no source": ({"source": None}, ("MISSING_FIELD", "source is")),
    "no type": ({"type": None}, ("MISSING_FIELD", "type is")),
    "nobody's": ({"subject": None}, ("MISSING_FIELD", "subject")),
    "empty id": ({"id": ""}, ("BAD_VALUE", "id must have")),
    "source with a space": ({"source": "/a b"}, ("BAD_VALUE", "source")),
    "id with a line end": ({"id": "a\nb"}, ("BAD_VALUE", "id must not")),
    "long id": ({"id": "x" * 4_000}, None),
    "longer id": ({"id": "x" * 8_193}, ("BAD_VALUE", "id must have")),
    "long type": ({"type": "x" * 129}, ("BAD_VALUE", "type")),
    "no time": ({"time": "yesterday"}, ("BAD_VALUE", "occurredAt")),
    "long ago": ({"time": "2025-11-20T10:00:00Z"}, ("TIMESTAMP_TOO_OLD", "90 days")),
    "data of text": ({"data": "ten"}, ("BAD_VALUE", "properties must be an object")),
    "a stranger's": ({"subject": "nobody"}, ("UNKNOWN_CUSTOMER", "nobody")),
    "no number": ({"data": {"tokens": "NaN"}}, ("BAD_VALUE", "tokens")),
}

# Only where attributes are members of JSON.
MEMBERS: dict[str, tuple[dict[str, Any], tuple[str, str] | None]] = {
    "JSON by name": ({"datacontenttype": "application/json"}, None),
    "JSON by another name": ({"datacontenttype": "Text/JSON; charset=utf-8"}, None),
    "JSON of a kind": ({"datacontenttype": "application/vnd.acme+json"}, None),
    "XML": ({"datacontenttype": "application/xml"}, ("BAD_VALUE", "datacontenttype")),
    "no type at all": ({"datacontenttype": 7}, ("BAD_VALUE", "datacontenttype")),
    "binary": ({"data": None, "data_base64": "AAA="}, ("BAD_VALUE", "data_base64")),
    "number as id": ({"id": 7}, ("BAD_VALUE", "id must be a string")),
    "object as source": ({"source": {}}, ("BAD_VALUE", "source must be a string")),
    "number as version": ({"specversion": 1}, ("BAD_VALUE", "specversion")),
    "number as subject": ({"subject": 7}, ("BAD_VALUE", "customer must be a string")),
}


async def answered(client: httpx2.AsyncClient, form: str, event: dict[str, Any]) -> dict[str, Any]:
    [(body, headers)] = FORMS[form]([event])
    response = await client.post("/v1/events", content=body, headers=headers)
    assert response.status_code == 202, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.parametrize("form", CLOUDY)
async def test_every_attribute_is_looked_at(
    client: httpx2.AsyncClient, market: Market, form: str
) -> None:
    events = EVENTS if form == "binary" else EVENTS | MEMBERS
    for number, (name, (change, expected)) in enumerate(events.items()):
        event = cloud_event(**{"id": f"{number}", **change})
        answer = await answered(client, form, event)
        said = [(one["code"], one["message"]) for one in answer["verdicts"]]
        if expected is None:
            assert (answer["accepted"], said) == (1, []), name
        else:
            [(code, message)] = said
            assert code == expected[0], name
            assert expected[1] in message, name


async def test_an_attribute_that_is_null_is_not_there(
    client: httpx2.AsyncClient, market: Market
) -> None:
    unset = {"time": None, "apikey": None, "datacontenttype": None, "data_base64": None}
    body = json.dumps([cloud_event() | unset, cloud_event(id="2") | {"type": None}])
    response = await client.post("/v1/events", content=body, headers=CLOUD_BATCH)
    answer = response.json()
    assert (answer["accepted"], answer["verdicts"][0]["code"]) == (1, "MISSING_FIELD")


async def test_a_cloud_event_becomes_an_event_with_its_number_to_the_last_digit(
    client: httpx2.AsyncClient, market: Market
) -> None:
    body = json.dumps(cloud_event(data={"tokens": 0, "model": "m1"}))
    body = body.replace('"tokens": 0', '"tokens": 123456789012345.123456789012')
    taken = await client.post("/v1/events", content=body, headers=CLOUD_EVENT)
    assert taken.json()["accepted"] == 1
    [kept] = await market.waiting()
    assert kept.idempotency_key == "/gateway 1"
    assert kept.type == "llm.request"
    assert kept.customer_id == market.customers["acme"]
    assert kept.occurred_at.isoformat() == "2026-11-20T10:00:00+00:00"
    assert kept.properties == '{"model":"m1","tokens":123456789012345.123456789012}'


async def test_the_same_id_of_another_source_is_another_event(
    client: httpx2.AsyncClient, market: Market
) -> None:
    for source, accepted, duplicates in (("/a", 1, 0), ("/b", 1, 0), ("/a", 0, 1)):
        answer = await answered(client, "structured", cloud_event(source=source))
        assert (answer["accepted"], answer["duplicates"]) == (accepted, duplicates)


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=300)
SOURCES = TEXTS.map(lambda text: "".join(text.split()) or "/")


@given(SOURCES, TEXTS, SOURCES, TEXTS)
def test_two_events_have_one_key_only_if_they_are_one(a: str, b: str, c: str, d: str) -> None:
    assert (key_of(a, b) == key_of(c, d)) == ((a, b) == (c, d))
    assert len(key_of(a, b)) <= 255


def test_what_a_space_is_cannot_move_from_id_to_source() -> None:
    assert key_of("/a", "b c") == "/a b c"
    assert key_of("/a", "x" * 252) == "/a " + "x" * 252
    assert key_of("/a", "x" * 253).startswith("sha256:")
    assert key_of("/a", "x" * 253) != key_of("/a", "x" * 254)


async def test_a_structured_event_stays_one_with_headers_beside_it(
    client: httpx2.AsyncClient, market: Market
) -> None:
    [(_, headers)] = binary([cloud_event(id="of the header")])
    response = await client.post(
        "/v1/events", content=json.dumps(cloud_event()), headers=headers | CLOUD_EVENT
    )
    assert response.json()["accepted"] == 1
    [kept] = await market.waiting()
    assert kept.idempotency_key == "/gateway 1"


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"[]", CLOUD_EVENT, "cloudevents-batch+json"),
        (b"7", CLOUD_EVENT, "JSON object"),
        (b"{", CLOUD_EVENT, "JSON"),
        (b"{}", CLOUD_BATCH, "array of CloudEvents"),
        (b"[{]", CLOUD_BATCH, "JSON"),
        (b"{", binary([cloud_event()])[0][1], "JSON"),
    ],
)
async def test_a_body_that_is_no_cloud_event_is_a_400(
    client: httpx2.AsyncClient, body: bytes, headers: dict[str, str], said: str
) -> None:
    response = await client.post("/v1/events", content=body, headers=headers)
    assert (response.status_code, said in response.text) == (400, True)


# How an attribute may be written in a header, and how it is read; None where it cannot be.
WRITTEN = [
    ("acme", "acme"),
    ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
    ("%61cme", "acme"),
    ('"an acme"', "an acme"),
    (r'"an \"acme\""', 'an "acme"'),
    ('"an%20acme"', "an acme"),
    ('an "acme"', 'an "acme"'),
    ("%C0%A0", None),
    ("%zz", None),
    ("100%", None),
    ("acmé", None),
    ("%00", None),
]


@pytest.mark.parametrize(("written", "read"), WRITTEN)
async def test_a_header_is_read_as_the_binding_says(
    client: httpx2.AsyncClient, market: Market, written: str, read: str | None
) -> None:
    [(body, headers)] = binary([cloud_event()])
    raw = {name.encode(): value.encode() for name, value in headers.items()}
    response = await client.post(
        "/v1/events", content=body, headers=raw | {b"ce-subject": written.encode("latin-1")}
    )
    assert response.status_code == 202
    kept = await market.rows("quarantined_event")
    if read is None:
        assert response.json()["verdicts"][0]["code"] == "BAD_VALUE"
        assert kept == []
    elif read == "acme":
        assert response.json()["accepted"] == 1
    else:
        assert kept[0]["body"]["customer"] == read


async def test_a_header_that_cannot_be_is_said_with_the_events_key(
    client: httpx2.AsyncClient, market: Market
) -> None:
    [(body, headers)] = binary([cloud_event()])
    twice = [*headers.items(), ("ce-id", "2")]
    typed = [*headers.items(), ("ce-datacontenttype", "application/json")]
    for sent, said in ((twice, "more than once"), (typed, "Content-Type")):
        response = await client.post("/v1/events", content=body, headers=sent)
        [verdict] = response.json()["verdicts"]
        assert (verdict["code"], said in verdict["message"]) == ("BAD_VALUE", True)
    assert verdict["idempotencyKey"] == "/gateway 1"
    smuggled = await client.post(
        "/v1/events", content=b"", headers=headers | {"ce-data": "{}", "ce-id": "3"}
    )
    assert smuggled.json()["accepted"] == 1
    [kept] = await market.waiting()
    assert kept.properties == "{}"


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "text/json", "application/x+json"]
)
async def test_data_in_binary_mode_is_json_of_any_kind(
    client: httpx2.AsyncClient, market: Market, content_type: str
) -> None:
    [(body, headers)] = binary([cloud_event()])
    response = await client.post(
        "/v1/events", content=body, headers=headers | {"Content-Type": content_type}
    )
    assert response.json()["accepted"] == 1


async def test_data_of_another_kind_is_a_415(client: httpx2.AsyncClient) -> None:
    [(body, headers)] = binary([cloud_event()])
    for content_type in ("text/plain", "application/avro", "application/json;charset=utf-16"):
        response = await client.post(
            "/v1/events", content=body, headers=headers | {"Content-Type": content_type}
        )
        assert response.status_code == 415
        assert "application/x-ndjson" in response.headers["accept"]
