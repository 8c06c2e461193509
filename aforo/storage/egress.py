"""The one way out: calls to addresses that others chose, behind walls against misuse.

A host is resolved once per call, refused if any of its addresses is not allowed, and connected
to at the very address that was looked at, under its own name in TLS and in `Host`. Nothing is
taken from the environment: no proxy, no header, no cookie.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from urllib.parse import urljoin

import httpcore2

from aforo.sdk.errors import AforoError
from aforo.sdk.ids import TenantId
from aforo.storage.addresses import Address, Target, UrlNotAllowed, Walls
from aforo.storage.lookups import Lookups

BYTES_MAX = 2_000_000
SECONDS_MAX = 10.0
CONNECT_SECONDS_MAX = 5.0
ADDRESSES_MAX = 16
"""A host with more of them is refused: each is looked at."""
ADDRESSES_TRIED_MAX = 3
REDIRECTS_MAX = 3
USER_AGENT = "Aforo"

Resolve = Callable[[TenantId, str, int], Awaitable[list[str]]]
"""The addresses of a host that a tenant chose, as text."""

_SAFE = {"GET", "HEAD"}
_REDIRECTS = {301, 302, 303, 307, 308}
_FOR_ONE_ORIGIN = {"authorization", "cookie", "proxy-authorization"}


class CallFailed(AforoError):
    """A call that was allowed brought no answer that can be used; it may succeed later."""

    code = "CALL_FAILED"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case; of several of one name the first."""
    body: bytes
    is_whole: bool
    """Whether this is the whole body, or its beginning."""
    url: str
    """Who answered, after redirects."""


class Egress:
    """The process's client of the outside world; it keeps no connection and no state."""

    def __init__(
        self,
        walls: Walls,
        *,
        resolve: Resolve | None = None,
        backend: httpcore2.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.walls = walls
        self._resolve = resolve or Lookups()
        self._backend = backend or httpcore2.AnyIOBackend()
        self._tls = tls

    async def call(
        self,
        method: str,
        url: str,
        *,
        tenant_id: TenantId,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        seconds: float = SECONDS_MAX,
        bytes_max: int = BYTES_MAX,
        cuts: bool = False,
        redirects_max: int = 0,
    ) -> Answer:
        """Call a URL for a tenant, and read at most `bytes_max` of the answer within `seconds`.

        A longer body fails the call, unless `cuts`: then the rest is not read. Redirects are
        answers like others, unless `redirects_max` (at most 3) says how many to follow; each is
        checked like the first URL, keeps to https, and takes no credential to another origin.

        Raises: `UrlNotAllowed`; `CallFailed` for whatever goes wrong on the way.
        """
        assert 0 <= redirects_max <= REDIRECTS_MAX, "redirects are bounded"
        assert not redirects_max or method in _SAFE, "only what changes nothing is sent on"
        target = self.walls.target(url)
        named = {name.lower(): value for name, value in (headers or {}).items()}
        asked = _Asked(tenant_id, method, named, body, bytes_max, cuts)
        try:
            async with asyncio.timeout(seconds):
                for left in range(redirects_max, -1, -1):
                    answer = await self._once(target, asked)
                    if answer.status not in _REDIRECTS or not left:
                        return answer
                    found = self._next(answer, target)
                    if found.authority != target.authority or found.scheme != target.scheme:
                        asked = asked.elsewhere()
                    target = found
        except TimeoutError as error:
            raise CallFailed(f"{target.host} took longer than {seconds:g} s") from error
        raise AssertionError("the last round returns")

    async def _once(self, target: Target, asked: "_Asked") -> Answer:
        addresses = await self._addresses(target, asked.tenant_id)
        failure: CallFailed | None = None
        for address in addresses[:ADDRESSES_TRIED_MAX]:
            try:
                async with self._connected(target, address) as connection:
                    return await _exchange(connection, target, asked)
            except _NoConnectionError as error:
                failure = CallFailed(str(error))
        assert failure is not None, "there is at least one address"
        raise failure

    async def _addresses(self, target: Target, tenant_id: TenantId) -> list[Address]:
        if (literal := target.literal) is not None:
            found = [literal]
        else:
            try:
                texts = await self._resolve(tenant_id, target.host, target.port)
                found = [ip_address(text) for text in texts]
            except (OSError, UnicodeError) as error:
                # The same words as for a private address, which a stranger is not to learn of.
                raise self.walls.refusal(target) from error
        if not 0 < len(found) <= ADDRESSES_MAX:
            raise self.walls.refusal(target)
        if not all(self.walls.allows(address, target.port) for address in found):
            raise self.walls.refusal(target)
        return found

    @asynccontextmanager
    async def _connected(
        self, target: Target, address: Address
    ) -> AsyncIterator[httpcore2.AsyncHTTPConnection]:
        origin = httpcore2.Origin(target.scheme.encode(), target.host.encode(), target.port)
        pinned = _Pinned(self._backend, address)
        connection = httpcore2.AsyncHTTPConnection(
            origin=origin,
            ssl_context=self._tls_context() if target.scheme == "https" else None,
            network_backend=pinned,
        )
        try:
            yield connection
        finally:
            await asyncio.shield(connection.aclose())
            await asyncio.shield(pinned.aclose())

    def _next(self, answer: Answer, target: Target) -> Target:
        location = answer.headers.get("location", "")
        if not location:
            raise CallFailed(f"{target.host} sent us elsewhere without saying where")
        found = self.walls.target(urljoin(target.url, location).partition("#")[0])
        if target.scheme == "https" and found.scheme != "https":
            raise UrlNotAllowed(f"{target.host} sent us on from https to http")
        return found

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = httpcore2.default_ssl_context()
        return self._tls


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is sent, and how much of the answer is read."""

    tenant_id: TenantId
    """For whom."""
    method: str
    headers: Mapping[str, str]
    body: bytes
    bytes_max: int
    cuts: bool

    def elsewhere(self) -> "_Asked":
        """The same, to another origin."""
        kept = {name: self.headers[name] for name in self.headers if name not in _FOR_ONE_ORIGIN}
        return replace(self, headers=kept)

    def all_headers(self, target: Target) -> list[tuple[str, str]]:
        """Those of the caller, and ours."""
        ours = {
            "user-agent": USER_AGENT,
            "accept-encoding": "identity",  # What is unpacked is of any size.
            "connection": "close",
        }
        if self.body or self.method not in _SAFE:
            ours["content-length"] = str(len(self.body))
        return list((ours | dict(self.headers) | {"host": target.authority}).items())


class _NoConnectionError(Exception):
    """Nothing was sent yet: another address may do."""


class _Pinned(httpcore2.AsyncNetworkBackend):
    """Connects to one address, whatever name the connection bears."""

    def __init__(self, backend: httpcore2.AsyncNetworkBackend, address: Address) -> None:
        self._backend = backend
        self._address = str(address)
        self._stream: httpcore2.AsyncNetworkStream | None = None

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 (the name is for TLS and the header)
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (the interface of httpcore2)
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        self._stream = await self._backend.connect_tcp(
            self._address, port, timeout, local_address, socket_options
        )
        return self._stream

    async def aclose(self) -> None:
        """Close the socket: a handshake that is cut off leaves it open, and nobody's."""
        if self._stream is not None:
            await self._stream.aclose()


async def _exchange(
    connection: httpcore2.AsyncHTTPConnection, target: Target, asked: _Asked
) -> Answer:
    url = httpcore2.URL(
        scheme=target.scheme, host=target.host, port=target.port, target=target.path
    )
    try:
        async with connection.stream(
            asked.method,
            url,
            headers=asked.all_headers(target),
            content=asked.body or None,
            extensions={"timeout": {"connect": CONNECT_SECONDS_MAX}},
        ) as response:
            found = _headers(response.headers)
            if not asked.cuts and found.get("content-encoding", "identity") != "identity":
                raise CallFailed(f"{target.host} answered in an encoding that we did not ask for")
            read, is_whole = await _read(response, target, asked)
            return Answer(response.status, found, read, is_whole, target.url)
    except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
        raise _NoConnectionError(_why_not(target, error)) from error
    except (
        httpcore2.NetworkError,
        httpcore2.ProtocolError,
        httpcore2.TimeoutException,
        ssl.SSLError,
    ) as error:
        raise CallFailed(f"{target.host} broke off: {error or type(error).__name__}") from error


async def _read(response: httpcore2.Response, target: Target, asked: _Asked) -> tuple[bytes, bool]:
    read = bytearray()
    async for chunk in response.aiter_stream():
        read += chunk
        if len(read) > asked.bytes_max:
            if asked.cuts:
                return bytes(read[: asked.bytes_max]), False
            raise CallFailed(f"{target.host} answered with more than {asked.bytes_max:,} bytes")
    return bytes(read), True


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in raw:
        found.setdefault(name.decode("latin-1").lower(), value.decode("latin-1").strip())
    return found


def _why_not(target: Target, error: Exception) -> str:
    fault: BaseException | None = error
    while fault is not None:
        if isinstance(fault, ssl.SSLCertVerificationError):
            return f"the certificate of {target.host} is not valid: {fault.verify_message}"
        if isinstance(fault, ssl.SSLError):
            return f"{target.host} speaks no TLS that we accept: {fault.reason or 'broken off'}"
        fault = fault.__cause__
    if isinstance(error, httpcore2.ConnectTimeout):
        return f"{target.host} let us wait for a connection for {CONNECT_SECONDS_MAX:g} s"
    return f"{target.host} takes no connection"
