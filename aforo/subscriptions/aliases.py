"""Other ids that stand for a customer: registered, for one customer each, and ended."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.sdk import Conflict, Invalid, NotFound
from aforo.stages.commands import ask_for_release
from aforo.storage.rows import add_unique
from aforo.storage.scope import Scope
from aforo.subscriptions import queries
from aforo.subscriptions.models import CustomerAlias
from aforo.subscriptions.validate import check_external_id, check_near

ALIASES_MAX = 1_000
"""Of one customer."""


async def register_alias(
    scope: Scope,
    *,
    customer_id: UUID,
    external_id: str,
    valid_from: datetime | None = None,
    valid_to: datetime | None = None,
) -> CustomerAlias:
    """Let events name a customer by another id too, if they occurred in `[valid_from, valid_to)`;
    from now on, and without end, unless stated.

    Raises: `Invalid`, `NotFound` for the customer, or `Conflict` for an id that a customer has, or
    that was ever registered.
    """
    check_external_id(external_id)
    valid_from = check_near(valid_from or scope.now, now=scope.now, field="validFrom")
    if valid_to is not None and valid_to <= valid_from:
        raise Invalid("validTo is not after validFrom, give a later moment", field="validTo")
    if customer_id not in await queries.customers_by_id(scope, [customer_id]):
        raise NotFound("there is no customer with this id", field="customerId")
    if await queries.ALIASES_BY_CUSTOMER.counts(scope, [customer_id]) == {customer_id: ALIASES_MAX}:
        raise Conflict(
            f"the customer has {ALIASES_MAX} aliases already, and can have no more",
            code="TOO_MANY_ALIASES",
            field="customerId",
        )
    await lock_name(scope, external_id)
    if await queries.customer_by_external_id(scope, external_id) is not None:
        raise Conflict(
            f"there is a customer with the external id {external_id!r}, choose another",
            code="CUSTOMER_EXTERNAL_ID_TAKEN",
            field="externalId",
        )
    row = CustomerAlias(
        customer_id=customer_id, external_id=external_id, valid_from=valid_from, valid_to=valid_to
    )
    await add_unique(scope, row, taken=_taken(external_id))
    await ask_for_release(scope, "UNKNOWN_CUSTOMER", names=[external_id])
    return row


async def end_alias(
    scope: Scope, *, customer_alias_id: UUID, ends_at: datetime | None = None
) -> CustomerAlias:
    """End an alias, now unless stated: events that occurred before that may name it for ever.

    Raises: `Invalid`, `NotFound`, or `Conflict` if it ends before that moment.
    """
    row = await scope.db.scalar(
        sa.select(CustomerAlias).where(col(CustomerAlias.id) == customer_alias_id).with_for_update()
    )
    if row is None:
        raise NotFound("there is no alias with this id", field="customerAliasId")
    ends_at = check_near(ends_at or scope.now, now=scope.now, field="endsAt")
    if ends_at <= row.valid_from:
        raise Invalid(
            f"the alias is good from {row.valid_from.isoformat()} on, end it after that",
            field="endsAt",
        )
    if row.valid_to is not None and row.valid_to < ends_at:
        raise Conflict(
            f"the alias ends at {row.valid_to.isoformat()} already; it may be moved to an earlier "
            "moment, not to a later one",
            code="ALIAS_ENDED",
            field="customerAliasId",
        )
    row.valid_to = ends_at
    await scope.db.flush()
    return row


async def check_free(scope: Scope, external_id: str) -> None:
    """Refuse to a new customer an id that has ever stood for another one.

    Raises: `Conflict`.
    """
    await lock_name(scope, external_id)
    if external_id in await queries.aliases(scope, [external_id]):
        raise _taken(external_id)


async def lock_name(scope: Scope, external_id: str) -> None:
    """Let those who want the same id for a customer and for an alias wait for each other: no
    constraint of the database goes across two tables."""
    await scope.db.execute(
        _LOCK_NAME, {"tenant_id": str(scope.tenant_id), "external_id": external_id}
    )


def _taken(external_id: str) -> Conflict:
    return Conflict(
        f"{external_id!r} is, or was, an alias of a customer; an id leads to one customer for all "
        "its life",
        code="CUSTOMER_ALIAS_TAKEN",
        field="externalId",
    )


_LOCK_NAME = sa.text(
    "SELECT pg_advisory_xact_lock("
    "hashtextextended('aforo.customer.' || :tenant_id || ' ' || :external_id, 0))"
)
