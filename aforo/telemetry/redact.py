"""The last wall before the log: what looks like a secret is not written, wherever it came from."""

import re
from typing import Any

from structlog.typing import EventDict

_HIDDEN = "[hidden]"
_SECRETS = re.compile(
    r"""(?xi)
      (?P<key> \b afo_ [a-z]+ _ [0-9a-z]+ _ ) [0-9a-z_-]+     # Our keys: who, but not the secret.
    | (?P<foreign> \b (?: sk | pk | rk | whsec ) _ ) [0-9a-z_+/=-]{8,}
    | (?P<bearer> \b bearer \s+ ) [^\s"',;]+
    | (?P<user> \b [a-z][a-z0-9+.-]* :// [^\s/:@]* : ) [^\s@/]+ (?= @ )  # A password in an address.
    | (?P<named> \b (?: password | passwd | secret | token | pepper | cookie | authorization )
        ["']? \s* [=:] \s* ["']? (?: (?: bearer | basic ) \s+ )? ) [^\s"',;&)}]+
    """
)


def redacted(_logger: object, _method: str, entry: EventDict) -> EventDict:
    """A processor of structlog: hides secrets in every value, tracebacks included."""
    for name, value in entry.items():
        if isinstance(value, str):
            entry[name] = hide(value)
        elif isinstance(value, dict | list | tuple | BaseException):
            entry[name] = _hidden_below(value)
    return entry


def hide(text: str) -> str:
    """The text without what looks like a secret in it."""
    return _SECRETS.sub(lambda found: f"{found[found.lastgroup or 0]}{_HIDDEN}", text)


def _hidden_below(value: Any) -> Any:
    hidden = hide(repr(value))
    return value if hidden == repr(value) else hidden
