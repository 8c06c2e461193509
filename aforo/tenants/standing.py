"""Whether whoever hands on rights has them still: looked at in the transaction that hands on.

A request was authenticated before its transaction began. Without a second look a key that is
revoked in between would leave another key, or a portal token, behind it.
"""

import sqlalchemy as sa
from sqlmodel import col

from aforo.sdk.errors import Forbidden
from aforo.storage.scope import Scope
from aforo.tenants.grants import Granter
from aforo.tenants.models import ApiKey, Member, MemberState
from aforo.tenants.permissions import Permission, permissions_of
from aforo.tenants.queries import Caller, CallerKind

# One lock for all of a tenant's grants. Locks of rows would be taken in any order: two who end
# each other would wait for each other.
_LOCK = "hashtextextended('aforo.grants.' || :tenant_id, 0)"
_TOGETHER = sa.text(f"SELECT pg_advisory_xact_lock_shared({_LOCK})")
_ALONE = sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})")


async def standing(scope: Scope, caller: Caller) -> Granter:
    """What a caller may hand on by now. Nobody ends him, or takes some of it away, until the
    transaction is over.

    Raises: `Forbidden` where he was ended since the request came in.
    """
    await scope.db.execute(_TOGETHER, {"tenant_id": str(scope.tenant_id)})
    if caller.kind is CallerKind.MEMBER:
        of_member = sa.select(col(Member.role)).where(
            col(Member.id) == caller.id, col(Member.state) == MemberState.ACTIVE
        )
        if (role := await scope.db.scalar(of_member)) is not None:
            return Granter(permissions_of(role), role)
    elif caller.kind is CallerKind.API_KEY:
        of_key = sa.select(col(ApiKey.scopes)).where(
            col(ApiKey.id) == caller.id,
            col(ApiKey.revoked_at).is_(None),
            sa.or_(col(ApiKey.expires_at).is_(None), col(ApiKey.expires_at) > scope.now),
        )
        if (scopes := await scope.db.scalar(of_key)) is not None:
            return Granter(frozenset(Permission(each) for each in scopes))
    raise Forbidden("you were let go meanwhile, and hand nothing on any more")


async def alone_with_grants(scope: Scope) -> None:
    """Wait until nobody else hands rights on, and let nobody begin until the transaction is over:
    for ending those who do. Before any row is locked."""
    await scope.db.execute(_ALONE, {"tenant_id": str(scope.tenant_id)})
