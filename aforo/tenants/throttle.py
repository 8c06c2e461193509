"""How often a sign-in may be tried: counted before it is, in PostgreSQL, for every process.

Where it cannot be counted nothing is tried: PostgreSQL is needed for a sign-in anyway, so that a
failure of it closes the door and opens none.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from math import ceil

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from aforo.sdk.errors import AforoError
from aforo.storage.scope import Runtime
from aforo.tenants.models import SignInCount

WINDOW = timedelta(minutes=15)
BUCKETS = 2**17
"""Counts of one kind, so that no flood of made-up addresses fills the table. Two people who share
a bucket share its tries, which takes 131,072 of them to be likely, and harms for a window."""


class Counted(StrEnum):
    """What is counted. A try gives back its count where it succeeds."""

    ACCOUNT = "account"
    """Passwords for one e-mail address, whether an account has it or not."""
    ADDRESS = "address"
    """Passwords and tokens from one network address."""
    CODE = "code"
    """One-time codes of one account."""


TRIES_MAX = {Counted.ACCOUNT: 10, Counted.ADDRESS: 100, Counted.CODE: 5}


class TooManyTries(AforoError):
    """Too many failed lately; it can be tried again after a wait."""

    code = "TOO_MANY_TRIES"

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(
            f"there were too many failed tries; wait {retry_after_seconds} s, then try again"
        )
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class Tried:
    """A try that is counted. `forgive` it once it succeeded."""

    runtime: Runtime
    _buckets: Sequence[tuple[Counted, int]]

    async def forgive(self) -> None:
        """Take it out of the counts again."""
        async with self.runtime.system("forgive a sign-in") as db:
            for kind, bucket in self._buckets:
                await db.execute(
                    sa.update(SignInCount)
                    .where(
                        col(SignInCount.kind) == kind,
                        col(SignInCount.bucket) == bucket,
                        col(SignInCount.tried) > 0,
                    )
                    .values(tried=col(SignInCount.tried) - 1)
                )


async def count_try(runtime: Runtime, **of: str) -> Tried:
    """Count a try under each of the names, such as `account="ann@example.com"`.

    Raises: `TooManyTries`, and `Unavailable` where it cannot be counted.
    """
    now = runtime.clock.now()
    # In one order everywhere, so that no two wait for each other.
    if Counted.ADDRESS in of:
        of[Counted.ADDRESS] = network_of(of[Counted.ADDRESS])
    buckets = [(kind, _bucket(kind, of[kind], runtime)) for kind in Counted if kind in of]
    waits = []
    async with runtime.system("count a sign-in") as db:
        for kind, bucket in buckets:
            row = (await db.execute(_counting(kind, bucket, now))).one()
            if row.tried > TRIES_MAX[kind]:
                waits.append(row.window_start + WINDOW - now)
    if waits:
        raise TooManyTries(max(1, ceil(max(waits).total_seconds())))
    return Tried(runtime, buckets)


def network_of(address: str) -> str:
    """What one subscriber has of addresses: one of IPv4, but of IPv6 a network of 64 bits, in which
    he could come from another address with every try."""
    try:
        found = ip_address(address)
    except ValueError:  # A socket of the file system, or what a proxy made up.
        return address
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return str(IPv6Address(int(found) >> 64 << 64))
    return str(getattr(found, "ipv4_mapped", None) or found)


def _counting(kind: Counted, bucket: int, now: datetime) -> sa.Executable:
    is_over = col(SignInCount.window_start) <= now - WINDOW
    row = insert(SignInCount).values(kind=kind.value, bucket=bucket, window_start=now, tried=1)
    return row.on_conflict_do_update(
        index_elements=["kind", "bucket"],
        set_={
            "window_start": sa.case((is_over, now), else_=col(SignInCount.window_start)),
            # It stops one above the limit: a flood makes no number too large for its column.
            "tried": sa.case(
                (is_over, 1),
                else_=sa.func.least(col(SignInCount.tried) + 1, TRIES_MAX[kind] + 1),
            ),
        },
    ).returning(col(SignInCount.tried), col(SignInCount.window_start))


def _bucket(kind: Counted, name: str, runtime: Runtime) -> int:
    # Under the pepper: nobody can work out whose bucket he shares.
    digest = hmac.digest(runtime.settings.key_pepper.encode(), f"{kind}|{name}".encode(), sha256)
    return int.from_bytes(digest[:8]) % BUCKETS
