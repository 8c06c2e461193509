"""E-mail addresses: the one form that an address is compared and stored in."""

import re

from aforo.sdk.errors import Invalid

CHARACTERS_MAX = 254
"""What SMTP carries (RFC 5321, 4.5.3.1.3)."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}", re.ASCII)
_LOCAL_PART = re.compile(r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}", re.ASCII)


def email_of(text: str, *, field: str = "email") -> str:
    """The address in its one form: in small letters, without blanks around it.

    The local part too: no provider of today tells `Ann` from `ann`, and people do not either.
    ASCII alone: letters that only look alike would let one person pass for another.
    Raises `Invalid`.
    """
    if len(text) <= 2 * CHARACTERS_MAX:
        plain = text.strip().lower()
        local_part, separator, domain = plain.rpartition("@")
        if (
            separator
            and len(plain) <= CHARACTERS_MAX
            and _LOCAL_PART.fullmatch(local_part)
            and _DOMAIN.fullmatch(domain)
        ):
            return plain
    raise Invalid(
        "an e-mail address looks like ann@example.com, a domain with other letters like xn--…",
        field=field,
    )


def domain_of(text: str, *, field: str) -> str:
    """A domain in small letters, without a dot at its end. Raises `Invalid`."""
    plain = text.strip().lower().removesuffix(".")
    if len(plain) > CHARACTERS_MAX or not _DOMAIN.fullmatch(plain):
        raise Invalid("a domain looks like example.com", field=field)
    return plain
