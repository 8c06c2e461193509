"""Which addresses outside Aforo may call: URLs read strictly, and a deny table of its own."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from aforo.sdk.errors import Invalid

URL_CHARACTERS_MAX = 2_048
PORTS = (80, 443)
Address = IPv4Address | IPv6Address

# Written out, because the standard library's `is_global` holds several of them to be public.
_DENIED_V4 = tuple(
    ip_network(block)
    for block in (
        "0.0.0.0/8",  # This network; 0.0.0.0 reaches the machine itself.
        "10.0.0.0/8",
        "100.64.0.0/10",  # Carriers' networks; a cloud's metadata at 100.100.100.200.
        "127.0.0.0/8",
        "168.63.129.16/32",  # A cloud's wire server, on an address that is public by the book.
        "169.254.0.0/16",  # Link-local; metadata at 169.254.169.254.
        "172.16.0.0/12",
        "192.0.0.0/24",  # Protocols; a cloud's metadata at 192.0.0.192.
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # Relays of 6to4.
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # Multicast.
        "240.0.0.0/4",  # Reserved, and the broadcast.
    )
)
# Of IPv6 only what is handed out is allowed. That leaves out all that wraps an IPv4 address
# (mapped, compatible, NAT64) and all that is local.
_ALLOWED_V6 = ip_network("2000::/3")
_DENIED_V6 = tuple(
    ip_network(block)
    for block in (
        "2001::/23",  # Protocols; Teredo wraps an IPv4 address.
        "2001:db8::/32",
        "2002::/16",  # 6to4 wraps an IPv4 address.
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
_ISATAP = {0x0000_5EFE, 0x0200_5EFE}
"""The upper half of an interface that wraps an IPv4 address."""

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_NUMBER = re.compile(r"([0-9]+|0x[0-9a-f]*)")


class UrlNotAllowed(Invalid):
    """Aforo does not call this URL."""

    code = "URL_NOT_ALLOWED"


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, taken apart."""

    scheme: str
    host: str
    """In lower case; an IPv6 address without its brackets."""
    port: int
    path: str
    """What is asked for, with the query."""

    @property
    def authority(self) -> str:
        """The header `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def literal(self) -> Address | None:
        """The address, where the host is one."""
        return _address(self.host)


@dataclass(frozen=True, slots=True)
class Walls:
    """What may be called from here."""

    production: bool = False
    """Only https."""
    allow_loopback: bool = False
    """Also this machine, on any port: for development and tests."""

    def target(self, url: str, *, field: str | None = None) -> Target:
        """Read a URL. Raises `UrlNotAllowed` for one that can never be called.

        A host name says nothing yet: its addresses are for `allows`, at every call.
        """
        found = _parsed(url, field)
        if found.scheme == "http" and self.production:
            raise UrlNotAllowed("the URL must begin with https://", field=field)
        literal = found.literal
        if literal is not None and not self.allows(literal, found.port):
            raise self.refusal(found, field=field)
        if literal is None and found.port not in PORTS and not self.allow_loopback:
            raise UrlNotAllowed(f"the port must be 80 or 443, not {found.port}", field=field)
        return found

    def allows(self, address: Address, port: int) -> bool:
        """Whether an address may be connected to on a port."""
        if self.allow_loopback and is_loopback(address):
            return True
        return port in PORTS and is_public(address)

    def refusal(self, target: Target, *, field: str | None = None) -> UrlNotAllowed:
        """The error of a target whose addresses are not allowed. It does not name them: they
        would tell a stranger about the network that we are in."""
        return UrlNotAllowed(
            f"{target.host} does not lead to public addresses alone: Aforo calls nothing else, "
            "and on the ports 80 and 443 only",
            field=field,
        )


def is_public(address: Address) -> bool:
    """Whether anybody on the internet may be behind an address, and nobody in our network."""
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _DENIED_V4)
    if address.scope_id is not None or address not in _ALLOWED_V6:
        return False
    if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return False
    return not any(address in block for block in _DENIED_V6)


def is_loopback(address: Address) -> bool:
    """Whether an address is this machine's own, as such and not wrapped into another form."""
    if isinstance(address, IPv6Address):
        return address == IPv6Address(1)
    return address in ip_network("127.0.0.0/8")


def _parsed(url: str, field: str | None) -> Target:
    if not 0 < len(url) <= URL_CHARACTERS_MAX:
        raise UrlNotAllowed(f"a URL has 1 to {URL_CHARACTERS_MAX:,} characters", field=field)
    if not url.isascii() or not url.isprintable() or set(url) & set(' \\"<>^`{|}'):
        # Parsers disagree about such characters, and an attacker lives on that.
        raise UrlNotAllowed(
            "the URL has a character that must be percent-encoded, or in a host name as xn--…",
            field=field,
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UrlNotAllowed(f"this is no URL: {error}", field=field) from error
    if parts.scheme not in {"http", "https"}:
        raise UrlNotAllowed("the URL must begin with https:// or http://", field=field)
    if "@" in parts.netloc:
        raise UrlNotAllowed("the URL must not carry a user or a password", field=field)
    if parts.fragment:
        raise UrlNotAllowed("the URL must not carry a fragment: it is never sent", field=field)
    host = parts.hostname or ""
    if not _is_host(host, bracketed="[" in parts.netloc):
        raise UrlNotAllowed(
            "the host must be a name, an IPv4 address in four decimal numbers, or an IPv6 address "
            "in brackets",
            field=field,
        )
    path = parts.path or "/"
    return Target(
        scheme=parts.scheme,
        host=host,
        port=port if port is not None else 443 if parts.scheme == "https" else 80,
        path=f"{path}?{parts.query}" if parts.query else path,
    )


def _is_host(host: str, *, bracketed: bool) -> bool:
    address = _address(host)
    if address is not None:
        return bracketed == isinstance(address, IPv6Address) and "%" not in host
    # Resolvers read 2130706433, 0177.0.0.1 and 0x7f.1 as addresses: we know only one form.
    last = host.rstrip(".").rpartition(".")[2]
    return not bracketed and bool(_HOST.fullmatch(host)) and not _NUMBER.fullmatch(last)


def _address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
