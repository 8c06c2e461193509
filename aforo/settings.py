"""The environment, read once into one frozen object."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from aforo.sdk.errors import AforoError

PREFIX = "AFORO_"
PORT_MAX = 65_535
SECRET_CHARACTERS_MIN = 32
RATE_MAX = 10_000_000
PROXIES_MAX = 10
CORS_ORIGINS_MAX = 100
_RATES = {
    "points_per_second": RATE_MAX,
    "events_per_second": RATE_MAX,
    "tenant_rate_factor": 1_000,
    "disk_percent_max": 100,
}
"""From 1 on, at most so much."""
_ALIKE = 0.85
_ORIGIN = re.compile(
    r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-fA-F:]+\](:[0-9]{1,5})?"
)
_SWITCH = {"0": False, "false": False, "1": True, "true": True}
_BROKER = re.compile(r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}")
_TOPIC = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]{1,249}")
KAFKA_MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")
"""All mean the last one."""
SCHEMES = {
    "database_url": POSTGRES_SCHEMES,
    "owner_database_url": POSTGRES_SCHEMES,
    "redis_url": ("redis", "rediss", "unix"),
    "clickhouse_url": ("http", "https"),
    "public_url": ("https", "http"),
    "otlp_endpoint": ("http", "https"),
}


class SettingsError(AforoError):
    """The environment says something that Aforo cannot run with."""

    code = "SETTINGS"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process is told from outside. Every field is the variable `AFORO_<FIELD>`."""

    database_url: str = field(repr=False)
    """PostgreSQL as the application's login role, which owns nothing."""
    redis_url: str = field(repr=False)
    clickhouse_url: str = field(repr=False)
    key_pepper: str = field(repr=False)
    """Secret of the HMAC under which API keys are stored; at least 32 characters."""
    master_key: str = field(default="", repr=False)
    """Wraps the keys under which secrets are stored; at least 32 characters. Without it one is
    derived from the pepper."""
    owner_database_url: str | None = field(default=None, repr=False)
    """PostgreSQL as the schema's owner; only `aforo migrate` needs it."""
    data_dir: Path = Path(".aforo")
    """Where sealed segments are archived, and the embedded engines keep their files."""
    host: str = "127.0.0.1"
    port: int = 8080
    public_url: str = ""
    """The origin under which browsers reach the API; without it, that of each request."""
    cors_origins: tuple[str, ...] = ()
    """The other origins whose pages may call the API with a token; `*` for all."""
    proxies: int = 0
    """How many proxies stand in front, each of which adds to `X-Forwarded-For`."""
    production: bool = False
    """Hides introspection and the query page, and calls others by https only."""
    allow_loopback_calls: bool = False
    """Lets webhooks and other calls outside reach this machine: for development."""
    points_per_second: int = 2_000
    """What the operations of one API key may cost per second, and ten times that at once."""
    events_per_second: int = 20_000
    """How many events one API key may send per second, and ten times that at once."""
    tenant_rate_factor: int = 10
    """All callers of a tenant together may send so many times what one API key may."""
    disk_percent_max: int = 80
    """So full may the disk of the archive become; then no events are taken."""
    kafka_brokers: tuple[str, ...] = ()
    """Where a Kafka or Redpanda cluster is, as host:port. With it events go through a topic."""
    kafka_topic: str = "aforo-events"
    kafka_tls: bool = False
    kafka_ca_file: Path | None = None
    """The certificates that the brokers' are held against; without it, the system's."""
    kafka_username: str | None = None
    """Signs in by SASL, where it is set."""
    kafka_password: str | None = field(default=None, repr=False)
    kafka_mechanism: str = "SCRAM-SHA-512"
    log_requests: bool = False
    """Writes a line for every request, not only for those that failed or took long."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    """Where Prometheus reads the metrics of this process; a port of its own for each."""
    otlp_endpoint: str | None = None
    """Origin of an OpenTelemetry collector that takes traces over HTTP."""

    def __post_init__(self) -> None:
        if faults := list(_beyond_limits(asdict(self))):
            raise SettingsError(_worded(faults))


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings, or say in words of every variable that is missing or wrong.

    Raises: `SettingsError`.
    """
    values: dict[str, Any] = {}
    faults = [*_missing(environment), *_misspelt(environment)]
    for name, kind in get_type_hints(Settings).items():
        if text := environment.get(_variable(name)):
            try:
                values[name] = _parsed(name, kind, text)
            except SettingsError as error:
                faults.append(error.message)
    faults += _beyond_limits(values)
    if faults:
        raise SettingsError(_worded(faults))
    return Settings(**values)


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _missing(environment: Mapping[str, str]) -> Iterator[str]:
    required = [item.name for item in fields(Settings) if item.default is MISSING]
    missing = [_variable(name) for name in required if not environment.get(_variable(name))]
    if missing:
        yield (
            f"{', '.join(missing)} must be set; "
            "for everything on embedded engines in one process run `aforo demo`"
        )


def _misspelt(environment: Mapping[str, str]) -> Iterator[str]:
    """A variable of a wrong name would do nothing, and nobody would know."""
    known = [_variable(item.name) for item in fields(Settings)]
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known and environment[name]:
            meant = get_close_matches(name, known, n=1, cutoff=_ALIKE)
            if meant and not environment.get(meant[0]):
                yield f"{name} is no setting: {meant[0]} is"


def _beyond_limits(values: Mapping[str, Any]) -> Iterator[str]:
    if (proxies := values.get("proxies")) is not None and proxies > PROXIES_MAX:
        yield f"AFORO_PROXIES must be at most {PROXIES_MAX}, not {proxies}"
    yield from _wrong_origins(values.get("cors_origins", ()))
    public_url = values.get("public_url")
    if public_url and not _ORIGIN.fullmatch(public_url):
        yield "AFORO_PUBLIC_URL must be an origin without a path, such as https://aforo.example"
    for name in ("key_pepper", "master_key"):
        if (secret := values.get(name)) and len(secret) < SECRET_CHARACTERS_MIN:
            yield f"{_variable(name)} must have at least {SECRET_CHARACTERS_MIN} characters"
    for name in ("port", "metrics_port"):
        port = values.get(name)
        if port is not None and not 0 <= port <= PORT_MAX:
            yield f"{_variable(name)} must be a port number, not {port}"
    for name, most in _RATES.items():
        if not 1 <= values.get(name, 1) <= most:
            yield f"{_variable(name)} must be 1 to {most:,}, not {values[name]}"
    yield from _wrong_kafka(values)
    if values.get("production") and values.get("allow_loopback_calls"):
        yield "AFORO_ALLOW_LOOPBACK_CALLS is for development: it must be false in production"


def _wrong_kafka(values: Mapping[str, Any]) -> Iterator[str]:
    for broker in values.get("kafka_brokers", ()):
        if not _BROKER.fullmatch(broker):
            yield (
                "AFORO_KAFKA_BROKERS must be host:port, with commas between them, such as "
                f"kafka-1.example:9092,kafka-2.example:9092; {broker!r} is none"
            )
    if (topic := values.get("kafka_topic")) is not None and not _TOPIC.fullmatch(topic):
        yield f"AFORO_KAFKA_TOPIC must be the name of a topic, not {topic!r}"
    mechanism = values.get("kafka_mechanism", KAFKA_MECHANISMS[0])
    if mechanism not in KAFKA_MECHANISMS:
        yield f"AFORO_KAFKA_MECHANISM must be one of {', '.join(KAFKA_MECHANISMS)}"
    if bool(values.get("kafka_username")) != bool(values.get("kafka_password")):
        yield "AFORO_KAFKA_USERNAME and AFORO_KAFKA_PASSWORD go together: set both or none"
    if values.get("kafka_password") and values.get("production") and not values.get("kafka_tls"):
        yield "AFORO_KAFKA_PASSWORD would travel unencrypted: set AFORO_KAFKA_TLS"


def _wrong_origins(origins: Sequence[str]) -> Iterator[str]:
    """What no browser would ever send as `Origin` would do nothing, and nobody would know."""
    if len(origins) > CORS_ORIGINS_MAX:
        yield f"AFORO_CORS_ORIGINS takes at most {CORS_ORIGINS_MAX} origins, not {len(origins)}"
    if "*" in origins:
        if len(origins) > 1:
            yield "AFORO_CORS_ORIGINS is `*` or origins, not both"
        return
    for origin in origins:
        default = ":443" if origin.startswith("https:") else ":80"
        if not _ORIGIN.fullmatch(origin) or origin != origin.lower() or origin.endswith(default):
            yield (
                "AFORO_CORS_ORIGINS must be origins as browsers write them, such as "
                f"https://app.example.com, with commas between them, or *; {origin!r} is none"
            )


def _worded(faults: Sequence[str]) -> str:
    if len(faults) == 1:
        return faults[0]
    listed = "".join(f"\n  - {fault}" for fault in faults)
    return f"{len(faults)} settings are missing or wrong:{listed}"


def _parsed(name: str, kind: object, text: str) -> str | int | bool | Path | tuple[str, ...]:
    if name in SCHEMES:
        return _address(name, text)
    if kind is bool:
        if text.lower() not in _SWITCH:
            raise SettingsError(f"{_variable(name)} must be true or false, not {text!r}")
        return _SWITCH[text.lower()]
    if kind in {int, int | None}:
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise SettingsError(f"{_variable(name)} must be a whole number, not {text!r}")
        return int(text)
    if kind == tuple[str, ...]:
        return tuple(each.strip() for each in text.split(","))
    return Path(text) if kind in {Path, Path | None} else text


def _address(name: str, text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in SCHEMES[name]:
        # Not the address itself: there may be a password in it.
        raise SettingsError(f"{_variable(name)} must begin with {SCHEMES[name][0]}://")
    if scheme in POSTGRES_SCHEMES:
        scheme = POSTGRES_SCHEMES[-1]
    return f"{scheme}://{rest}"
