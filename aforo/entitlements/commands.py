"""Writes the restraints that customers are under."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.catalog.validate import check_text
from aforo.entitlements.models import Restraint, RestraintKind
from aforo.entitlements.queries import usual_rates
from aforo.sdk import Invalid, NotFound
from aforo.storage.scope import Scope
from aforo.subscriptions.models import Customer

REASON_LENGTH_MAX = 500
PERCENT_DEFAULT = 50


async def set_throttle(
    scope: Scope,
    *,
    customer_id: UUID,
    reason: str,
    percent: int = PERCENT_DEFAULT,
    until: datetime | None = None,
) -> Restraint:
    """Lower the rates of a customer to a share of the usual ones, in place of an earlier throttle.

    The usual rate of a quota is its `ratePerSecond`; where it has none, and of other meters, that
    of the peak minute of the last seven days, as it is now. Raises `Invalid`, or `NotFound`.
    """
    if not 1 <= percent <= 100:
        raise Invalid(f"percent is 1 to 100, not {percent}; to stop it, block", field="percent")
    await _check(scope, customer_id, reason, until)
    rates = await usual_rates(scope, customer_id)
    given = {"reason": reason, "until": until, "percent": percent, "rates": rates}
    return await _set(scope, customer_id, RestraintKind.THROTTLE, given)


async def set_block(
    scope: Scope, *, customer_id: UUID, reason: str, until: datetime | None = None
) -> Restraint:
    """Have every entitlement check about a customer say no, in place of an earlier block.

    Events are taken and billed as before. Raises `Invalid`, or `NotFound` for the customer.
    """
    await _check(scope, customer_id, reason, until)
    return await _set(scope, customer_id, RestraintKind.BLOCK, {"reason": reason, "until": until})


async def release_customer(scope: Scope, *, customer_id: UUID, kind: RestraintKind) -> Restraint:
    """Take a restraint back; what it was. Raises `NotFound` where there is none."""
    row = await _held(scope, customer_id, kind)
    if row is None:
        raise NotFound(f"the customer is under no {kind}", field="customerId")
    await scope.db.delete(row)
    await scope.db.flush()
    await scope.tell_gates(customer_id)
    return row


async def _check(scope: Scope, customer_id: UUID, reason: str, until: datetime | None) -> None:
    check_text(reason, field="reason", length_max=REASON_LENGTH_MAX)
    if until is not None and until <= scope.now:
        raise Invalid(f"until is {until.isoformat()}, which is not after now", field="until")
    # Locked, so that of two who restrain it at once the later finds what the earlier wrote.
    customer = await scope.db.scalar(
        sa.select(Customer).where(col(Customer.id) == customer_id).with_for_update(key_share=True)
    )
    if customer is None:
        raise NotFound("there is no customer with this id", field="customerId")


async def _set(
    scope: Scope, customer_id: UUID, kind: RestraintKind, given: dict[str, Any]
) -> Restraint:
    row = await _held(scope, customer_id, kind)
    if row is None:
        row = Restraint(customer_id=customer_id, kind=kind, **given)
        scope.db.add(row)
    else:
        for name, value in given.items():
            setattr(row, name, value)
    await scope.db.flush()
    await scope.tell_gates(customer_id)
    return row


async def _held(scope: Scope, customer_id: UUID, kind: RestraintKind) -> Restraint | None:
    row: Restraint | None = await scope.db.scalar(
        sa.select(Restraint)
        .where(col(Restraint.customer_id) == customer_id, col(Restraint.kind) == kind)
        .with_for_update()
    )
    return row
