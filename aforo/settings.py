"""The environment, read once into one frozen object."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from aforo.sdk.errors import AforoError

PREFIX = "AFORO_"
POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")
"""All mean the last one."""
SCHEMES = {
    "database_url": POSTGRES_SCHEMES,
    "owner_database_url": POSTGRES_SCHEMES,
    "redis_url": ("redis", "rediss", "unix"),
    "clickhouse_url": ("http", "https"),
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
    owner_database_url: str | None = field(default=None, repr=False)
    """PostgreSQL as the schema's owner; only `aforo migrate` needs it."""
    data_dir: Path = Path(".aforo")
    """Where sealed segments are archived, and the embedded engines keep their files."""
    host: str = "127.0.0.1"
    port: int = 8080
    production: bool = False
    """Hides introspection and the query page."""

    def __post_init__(self) -> None:
        if len(self.key_pepper) < 32:
            raise SettingsError("AFORO_KEY_PEPPER must have at least 32 characters")
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"AFORO_PORT must be a port number, not {self.port}")


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings, or say in one sentence which variable is missing or wrong.

    Raises: `SettingsError`.
    """
    given = {
        item.name: environment[PREFIX + item.name.upper()]
        for item in fields(Settings)
        if environment.get(PREFIX + item.name.upper())
    }
    required = ("database_url", "redis_url", "clickhouse_url", "key_pepper")
    missing = [PREFIX + name.upper() for name in required if name not in given]
    if missing:
        raise SettingsError(
            f"{', '.join(missing)} must be set; "
            "for everything on embedded engines in one process run `aforo demo`"
        )
    return Settings(**{name: _parsed(name, text) for name, text in given.items()})  # type: ignore[arg-type]


def _parsed(name: str, text: str) -> str | int | bool | Path:
    match name:
        case "port":
            if not text.isdecimal():
                raise SettingsError(f"AFORO_PORT must be a port number, not {text!r}")
            return int(text)
        case "production":
            if text.lower() not in {"0", "1", "true", "false"}:
                raise SettingsError(f"AFORO_PRODUCTION must be true or false, not {text!r}")
            return text.lower() in {"1", "true"}
        case "data_dir":
            return Path(text)
        case _ if name in SCHEMES:
            return _address(name, text)
        case _:
            return text


def _address(name: str, text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in SCHEMES[name]:
        # Not the address itself: there may be a password in it.
        raise SettingsError(f"{PREFIX}{name.upper()} must begin with {SCHEMES[name][0]}://")
    if scheme in POSTGRES_SCHEMES:
        scheme = POSTGRES_SCHEMES[-1]
    return f"{scheme}://{rest}"
