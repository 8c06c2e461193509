"""Calls outside, against names that lie, servers that misbehave, and certificates of others.

Nothing here leaves the machine: every address, also a public one, leads to a server on loopback.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from typing import Any
from uuid import UUID

import httpcore2
import pytest
import trustme

from aforo.sdk.ids import TenantId
from aforo.storage.addresses import UrlNotAllowed, Walls
from aforo.storage.egress import Answer, CallFailed, Egress
from tests.receivers import Heard, Receiver, answers, receiving, reply

pytestmark = pytest.mark.anyio

PUBLIC = "93.184.216.34"
ALSO_PUBLIC = "2606:4700::1"
METADATA = "169.254.169.254"
TENANT = TenantId(UUID(int=1))


class Internet(httpcore2.AnyIOBackend):
    """Leads every address to one server on loopback, and notes who was meant."""

    def __init__(self, *receivers: Receiver, deaf: Iterable[str] = ()) -> None:
        self.ports = {each.scheme: each.port for each in receivers}
        self.called: list[tuple[str, int]] = []
        self.deaf = set(deaf)

    async def connect_tcp(self, host: str, port: int, *rest: Any, **options: Any) -> Any:
        self.called.append((host, port))
        if host in self.deaf:
            raise httpcore2.ConnectError("refused")
        there = self.ports["https" if port == 443 else "http"]
        return await super().connect_tcp("127.0.0.1", there, *rest, **options)


class Names:
    """A name server that says another thing each time, as its owner likes."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): given for name, given in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, tenant_id: TenantId, host: str, _port: int) -> list[str]:
        assert tenant_id == TENANT, "whoever calls looks up"
        self.asked.append(host)
        given = self.answers.get(host)
        if given is None:
            raise OSError("no such host")
        return given.pop(0) if len(given) > 1 else given[0]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


def egress(internet: Internet, names: Names, **options: Any) -> Egress:
    tls = options.pop("tls", None)
    return Egress(Walls(**options), resolve=names, backend=internet, tls=tls)


async def test_a_call_goes_to_the_address_that_was_looked_at_under_its_own_name(
    receiver: Receiver,
) -> None:
    internet, names = Internet(receiver), Names(hooks_example_com=[[PUBLIC]])
    outside = egress(internet, names)
    answer = await outside.call(
        "POST",
        "http://hooks.example.com/in?x=1",
        tenant_id=TENANT,
        headers={"X-Own": "yes"},
        body=b"{}",
    )
    assert answer == Answer(
        200,
        {"content-length": "2", "connection": "close"},
        b"ok",
        is_whole=True,
        url="http://hooks.example.com/in?x=1",
    )
    assert (names.asked, internet.called) == (["hooks.example.com"], [(PUBLIC, 80)])
    [heard] = receiver.heard
    assert (heard.method, heard.target, heard.body) == ("POST", "/in?x=1", b"{}")
    assert heard.headers == {
        "host": "hooks.example.com",
        "x-own": "yes",
        "user-agent": "Aforo",
        "accept-encoding": "identity",
        "connection": "close",
        "content-length": "2",
    }


async def test_a_name_that_turns_private_between_two_calls_is_refused_at_the_second(
    receiver: Receiver,
) -> None:
    internet, names = Internet(receiver), Names(rebinding_example=[[PUBLIC], [METADATA]])
    outside = egress(internet, names)
    await outside.call("GET", "http://rebinding.example/", tenant_id=TENANT)
    with pytest.raises(UrlNotAllowed):
        await outside.call("GET", "http://rebinding.example/", tenant_id=TENANT)
    assert internet.called == [(PUBLIC, 80)]
    assert names.asked == ["rebinding.example"] * 2, "each call looks once, and only once"


@pytest.mark.parametrize(
    "addresses",
    [
        *([METADATA], ["127.0.0.1"], ["::1"], ["10.0.0.1"], ["::ffff:169.254.169.254"]),
        *(["64:ff9b::a9fe:a9fe"], ["2002:a9fe:a9fe::"], ["fe80::1%eth0"], ["168.63.129.16"]),
        *([PUBLIC, "10.0.0.1"], [PUBLIC, ALSO_PUBLIC, "::1"], [], ["1.1.1.1"] * 17),
    ],
    ids=str,
)
async def test_a_name_with_one_address_that_is_not_public_is_refused_unconnected(
    receiver: Receiver, addresses: list[str]
) -> None:
    internet, names = Internet(receiver), Names(evil_example=[addresses])
    with pytest.raises(UrlNotAllowed) as told:
        await egress(internet, names).call(
            "POST", "http://evil.example/", tenant_id=TENANT, body=b"{}"
        )
    assert not any(address in str(told.value) for address in addresses), "it tells of no network"
    with pytest.raises(UrlNotAllowed) as unknown:
        await egress(internet, names).call(
            "POST", "http://nobody.example/", tenant_id=TENANT, body=b"{}"
        )
    assert str(unknown.value) == str(told.value).replace("evil", "nobody")
    assert (internet.called, receiver.heard) == ([], [])


@pytest.mark.parametrize(
    "location",
    [
        *(f"http://{METADATA}/latest/meta-data", "http://127.0.0.1/", "http://[::1]/"),
        *("http://2852039166/", "//inner.example/", "http://inner.example/", "file:///etc/passwd"),
        *("http://user:pass@outer.example/", "http://outer.example:22/", "http://nobody.example/"),
    ],
)
async def test_a_redirect_is_checked_like_the_first_address(
    receiver: Receiver, location: str
) -> None:
    receiver.answer = answers(302, Location=location)
    internet = Internet(receiver)
    names = Names(outer_example=[[PUBLIC]], inner_example=[["10.0.0.7"]])
    outside = egress(internet, names)
    with pytest.raises(UrlNotAllowed):
        await outside.call("GET", "http://outer.example/", tenant_id=TENANT, redirects_max=3)
    assert internet.called == [(PUBLIC, 80)]
    answer = await outside.call("GET", "http://outer.example/", tenant_id=TENANT)
    assert (answer.status, answer.headers["location"]) == (302, location)


async def test_redirects_are_followed_three_times_and_credentials_stay_with_their_origin(
    receiver: Receiver,
) -> None:
    async def onwards(heard: Heard, writer: asyncio.StreamWriter) -> None:
        step = int(heard.target.removeprefix("/"))
        host = "" if step == 1 else "http://second.example"
        writer.write(reply(302, Location=f"{host}/{step + 1}"))

    receiver.answer = onwards
    names = Names(first_example=[[PUBLIC]], second_example=[["1.1.1.1"]])
    answer = await egress(Internet(receiver), names).call(
        "GET",
        "http://first.example/1",
        tenant_id=TENANT,
        headers={"Authorization": "secret", "Accept": "text/html"},
        redirects_max=3,
    )
    assert (answer.status, answer.url) == (302, "http://second.example/4")
    told = [
        (heard.headers["host"], heard.target, heard.headers.get("authorization"))
        for heard in receiver.heard
    ]
    assert told == [
        ("first.example", "/1", "secret"),
        ("first.example", "/2", "secret"),
        ("second.example", "/3", None),
        ("second.example", "/4", None),
    ]
    assert {heard.headers["accept"] for heard in receiver.heard} == {"text/html"}


async def test_nothing_is_taken_from_the_environment(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    internet = Internet(receiver)
    await egress(internet, Names(a_example=[[PUBLIC]])).call(
        "GET", "http://a.example/", tenant_id=TENANT
    )
    assert internet.called == [(PUBLIC, 80)]
    assert set(receiver.heard[0].headers) == {"host", "user-agent", "accept-encoding", "connection"}


async def test_the_next_address_is_tried_where_one_takes_no_connection(receiver: Receiver) -> None:
    names = Names(a_example=[[ALSO_PUBLIC, PUBLIC]])
    internet = Internet(receiver, deaf=[ALSO_PUBLIC])
    answer = await egress(internet, names).call("GET", "http://a.example/", tenant_id=TENANT)
    assert (answer.status, internet.called) == (200, [(ALSO_PUBLIC, 80), (PUBLIC, 80)])
    deaf = Internet(receiver, deaf=[ALSO_PUBLIC, PUBLIC])
    with pytest.raises(CallFailed, match="takes no connection"):
        await egress(deaf, names).call("GET", "http://a.example/", tenant_id=TENANT)


# Bodies and time.


async def test_a_huge_body_is_read_no_further_than_the_limit(receiver: Receiver) -> None:
    written = 0

    async def endless(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n")
        while True:
            writer.write(bytes(65_536))
            written += 65_536
            await writer.drain()

    receiver.answer = endless
    outside = egress(Internet(receiver), Names(a_example=[[PUBLIC]]))
    with pytest.raises(CallFailed, match="more than 100,000 bytes"):
        await outside.call("GET", "http://a.example/", tenant_id=TENANT, bytes_max=100_000)
    answer = await outside.call(
        "GET", "http://a.example/", tenant_id=TENANT, bytes_max=1_024, cuts=True
    )
    assert (answer.body, answer.is_whole) == (bytes(1_024), False)
    assert written < 50_000_000, "what nobody reads is not sent"


async def test_a_slow_body_ends_with_the_time_of_the_whole_call(receiver: Receiver) -> None:
    gone = asyncio.Event()

    async def trickle(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        try:
            while True:
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    receiver.answer = trickle
    outside = egress(Internet(receiver), Names(a_example=[[PUBLIC]]))
    with pytest.raises(CallFailed, match=r"took longer than 0\.2 s"):
        await outside.call("GET", "http://a.example/", tenant_id=TENANT, seconds=0.2)
    async with asyncio.timeout(60):
        await gone.wait()


async def test_a_name_server_that_does_not_answer_ends_with_the_time_of_the_call() -> None:
    async def silent(_tenant_id: TenantId, _host: str, _port: int) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    outside = Egress(Walls(), resolve=silent)
    with pytest.raises(CallFailed, match=r"took longer than 0\.05 s"):
        await outside.call("GET", "http://a.example/", tenant_id=TENANT, seconds=0.05)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"this is no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\nwhat",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    ],
    ids=["nothing", "half", "noise", "packed", "endless header", "two lengths"],
)
async def test_an_answer_that_is_none_fails_the_call(receiver: Receiver, said: bytes) -> None:
    async def answer(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    receiver.answer = answer
    with pytest.raises(CallFailed, match=r"a\.example"):
        await egress(Internet(receiver), Names(a_example=[[PUBLIC]])).call(
            "GET", "http://a.example/", tenant_id=TENANT
        )


# TLS.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def test_tls_is_spoken_to_the_name_at_the_address(authority: trustme.CA) -> None:
    async with receiving(tls=server_side(authority, "hooks.example.com")) as receiver:
        internet = Internet(receiver)
        names = Names(hooks_example_com=[[PUBLIC]], other_example_com=[[PUBLIC]])
        outside = egress(internet, names, production=True, tls=client_side(authority))
        answer = await outside.call(
            "POST", "https://hooks.example.com/", tenant_id=TENANT, body=b"{}"
        )
        assert (answer.status, internet.called) == (200, [(PUBLIC, 443)])
        [heard] = receiver.heard
        assert (heard.server_name, heard.headers["host"]) == ("hooks.example.com",) * 2
        with pytest.raises(CallFailed, match=r"certificate of other\.example\.com is not valid"):
            await outside.call("POST", "https://other.example.com/", tenant_id=TENANT, body=b"{}")
        assert len(receiver.heard) == 1, "nothing was said to a stranger"


async def test_a_certificate_of_an_unknown_authority_is_refused(authority: trustme.CA) -> None:
    async with receiving(tls=server_side(authority, "a.example")) as receiver:
        outside = egress(Internet(receiver), Names(a_example=[[PUBLIC]]))
        with pytest.raises(CallFailed, match=r"certificate of a\.example is not valid"):
            await outside.call("GET", "https://a.example/", tenant_id=TENANT)
        assert receiver.heard == []


async def test_a_redirect_never_leads_from_https_to_http(authority: trustme.CA) -> None:
    async with receiving(tls=server_side(authority, "a.example")) as receiver:
        receiver.answer = answers(301, Location="http://a.example/")
        outside = egress(
            Internet(receiver), Names(a_example=[[PUBLIC]]), tls=client_side(authority)
        )
        with pytest.raises(UrlNotAllowed, match="from https to http"):
            await outside.call("GET", "https://a.example/", tenant_id=TENANT, redirects_max=1)


async def test_a_server_that_speaks_no_tls_fails_the_call(receiver: Receiver) -> None:
    internet = Internet(receiver)
    internet.ports["https"] = receiver.port
    receiver.answer = answers()
    with pytest.raises(CallFailed, match=r"a\.example"):
        await egress(internet, Names(a_example=[[PUBLIC]])).call(
            "GET", "https://a.example/", tenant_id=TENANT, seconds=1
        )


# This machine, with the development switch.


async def test_the_real_resolver_and_sockets_reach_loopback_with_the_switch_alone(
    receiver: Receiver,
) -> None:
    answer = await Egress(Walls(allow_loopback=True)).call(
        "GET", receiver.url("/x", "localhost"), tenant_id=TENANT
    )
    assert (answer.status, answer.body) == (200, b"ok")
    for url in (receiver.url(), "http://localhost/", "http://127.0.0.1/"):
        with pytest.raises(UrlNotAllowed):
            await Egress(Walls()).call("GET", url, tenant_id=TENANT)
    assert len(receiver.heard) == 1


def server_side(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def client_side(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
