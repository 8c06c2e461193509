"""Members and invitations: who is there, who is asked in, and who leaves."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.sdk.errors import Conflict, Invalid, NotFound
from aforo.storage.listing import AgeOrder, Listing, equal
from aforo.storage.rows import rows_by_id
from aforo.storage.scope import Scope
from aforo.tenants.addresses import email_of
from aforo.tenants.grants import Granter
from aforo.tenants.models import ExternalLogin, Invitation, Member, MemberState
from aforo.tenants.permissions import EVERY_PERMISSION, Role
from aforo.tenants.queries import Caller
from aforo.tenants.sessions import end_sessions_of_member
from aforo.tenants.standing import alone_with_grants, standing
from aforo.tenants.tokens import PersonalToken, Purpose

INVITATION_LIFE = timedelta(days=7)
OPEN_INVITATIONS_MAX = 200
NAME_CHARACTERS_MAX = 200
OPERATOR = Granter(EVERY_PERMISSION, Role.OWNER)
"""Whoever runs this installation, at its command line."""


@dataclass(frozen=True, slots=True)
class IssuedInvitation:
    """A new invitation. The token is in nobody's hands but the caller's: it is shown once."""

    row: Invitation
    token: str = field(repr=False)


def members(
    *, role: Role | None = None, order: AgeOrder = AgeOrder.OLDEST_FIRST
) -> Listing[Member]:
    """The tenant's members, or those of a role."""
    where = equal(Member.state, MemberState.ACTIVE) + equal(Member.role, role)
    return Listing(Member, where, order)


async def members_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Member]:
    """Members, also those that were removed."""
    return await rows_by_id(scope, Member, ids)


def invitations(*, order: AgeOrder = AgeOrder.OLDEST_FIRST) -> Listing[Invitation]:
    """The tenant's invitations, also those that are over."""
    return Listing(Invitation, order=order)


async def invitations_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Invitation]:
    return await rows_by_id(scope, Invitation, ids)


async def granter_of(scope: Scope, caller: Caller) -> Granter:
    """What a caller may give to others, who may be ended by it. Raises `Forbidden` where he was
    ended himself since the request came in."""
    await alone_with_grants(scope)
    return await standing(scope, caller)


async def invite(
    scope: Scope, *, granter: Granter, email: str, role: Role, pepper: str
) -> IssuedInvitation:
    """Ask somebody in; an open invitation to the same address is revoked.

    Raises: `Invalid`, `Conflict` where a member has the address.
    """
    address = email_of(email)
    granter.check_may_give(role)
    member = await _member_of_email(scope, address)
    if member is not None and member.state is MemberState.ACTIVE:
        raise Conflict("a member has this address already", code="MEMBER_EXISTS", field="email")
    earlier = sa.select(Invitation).where(col(Invitation.email) == address, *_is_open(scope))
    for row in await scope.db.scalars(earlier.with_for_update()):
        # Else who may not take an invitation back would do so by a lesser one.
        granter.check_may_change(row.role, field="email")
        row.revoked_at = scope.now
    count = sa.select(sa.func.count()).select_from(Invitation).where(*_is_open(scope))
    if (await scope.db.scalar(count) or 0) >= OPEN_INVITATIONS_MAX:
        raise Conflict(
            f"{OPEN_INVITATIONS_MAX} invitations are open, the most there may be: revoke some",
            code="TOO_MANY_INVITATIONS",
        )
    token = PersonalToken.new(Purpose.INVITATION, scope.tenant_id)
    row = Invitation(
        email=address,
        role=role,
        token_hash=token.hashed(pepper),
        expires_at=scope.now + INVITATION_LIFE,
    )
    scope.db.add(row)
    await scope.db.flush()
    return IssuedInvitation(row, str(token))


async def revoke_invitation(scope: Scope, *, granter: Granter, invitation_id: UUID) -> Invitation:
    """Take an invitation back; one that is revoked already stays as it is.

    Raises: `NotFound`, `Invalid`, `Conflict` where it was accepted.
    """
    row = await scope.db.scalar(
        sa.select(Invitation).where(col(Invitation.id) == invitation_id).with_for_update()
    )
    if row is None:
        raise NotFound("there is no such invitation", field="invitationId")
    granter.check_may_change(row.role, field="invitationId")
    if row.accepted_at is not None:
        raise Conflict(
            "the invitation was accepted: remove the member instead",
            code="INVITATION_ACCEPTED",
            field="invitationId",
        )
    if row.revoked_at is None:
        row.revoked_at = scope.now
        await scope.db.flush()
    return row


async def change_role(scope: Scope, *, granter: Granter, member_id: UUID, role: Role) -> Member:
    """Give a member another role. Its sessions end: a new role begins with a new sign-in.

    Raises: `NotFound`, `Invalid`, `Conflict` for the last owner.
    """
    member = await _to_change(scope, granter, member_id)
    granter.check_may_give(role)
    if member.role is not role:
        if member.role is Role.OWNER:
            await _check_not_last_owner(scope, member)
        member.role = role
        await end_sessions_of_member(scope, member.id)
        await scope.db.flush()
    return member


async def remove_member(scope: Scope, *, granter: Granter, member_id: UUID) -> Member:
    """End a membership; its sessions end with it. One that has ended already stays as it is.

    Raises: `NotFound`, `Invalid`, `Conflict` for the last owner.
    """
    member = await _to_change(scope, granter, member_id, also_removed=True)
    if member.state is MemberState.ACTIVE:
        if member.role is Role.OWNER:
            await _check_not_last_owner(scope, member)
        member.state = MemberState.REMOVED
        # Whoever comes back by an invitation may be another person at the provider.
        await scope.db.execute(
            sa.delete(ExternalLogin).where(col(ExternalLogin.member_id) == member.id)
        )
        await end_sessions_of_member(scope, member.id)
        await scope.db.flush()
    return member


async def open_invitation(
    scope: Scope, *, token: PersonalToken | None = None, email: str | None = None, pepper: str
) -> Invitation | None:
    """The invitation of a token, or the open one to an address; locked, so that it is accepted
    once."""
    assert (token is None) != (email is None), "it is looked for in one way"
    found = (
        col(Invitation.token_hash) == token.hashed(pepper)
        if token is not None
        else col(Invitation.email) == email
    )
    row: Invitation | None = await scope.db.scalar(
        sa.select(Invitation)
        .where(found, *_is_open(scope))
        .order_by(col(Invitation.id).desc())
        .limit(1)
        .with_for_update()
    )
    return row


async def join(
    scope: Scope, *, email: str, name: str, role: Role, account_id: UUID | None
) -> Member:
    """Make a member of an address, or let one that was removed in again.

    Raises: `Invalid`, `Conflict` where a member has the address.
    """
    member = await _member_of_email(scope, email)
    if member is not None and member.state is MemberState.ACTIVE:
        raise Conflict("a member has this address already", code="MEMBER_EXISTS")
    if member is None:
        member = Member(email=email, name="", role=role, state=MemberState.ACTIVE)
        scope.db.add(member)
    member.name = _checked_name(name)
    member.role = role
    member.state = MemberState.ACTIVE
    member.account_id = account_id
    await scope.db.flush()
    return member


async def _member_of_email(scope: Scope, email: str) -> Member | None:
    row: Member | None = await scope.db.scalar(
        sa.select(Member).where(col(Member.email) == email).with_for_update()
    )
    return row


async def _to_change(
    scope: Scope, granter: Granter, member_id: UUID, *, also_removed: bool = False
) -> Member:
    await alone_with_grants(scope)
    # The owners first, always in one order: two who remove each other take turns.
    await scope.db.execute(_owners().with_for_update())
    member = await scope.db.scalar(
        sa.select(Member)
        .where(col(Member.id) == member_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if member is None or (member.state is MemberState.REMOVED and not also_removed):
        raise NotFound("there is no such member", field="memberId")
    granter.check_may_change(member.role)
    return member


async def _check_not_last_owner(scope: Scope, member: Member) -> None:
    others = _owners().where(col(Member.id) != member.id)
    if (await scope.db.scalars(others)).first() is None:
        raise Conflict(
            "this is the last owner: make another member an owner first",
            code="LAST_OWNER",
            field="memberId",
        )


def _owners() -> sa.Select[Member]:
    return (
        sa.select(Member)
        .where(col(Member.role) == Role.OWNER, col(Member.state) == MemberState.ACTIVE)
        .order_by(col(Member.id))
    )


def _is_open(scope: Scope) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        col(Invitation.accepted_at).is_(None),
        col(Invitation.revoked_at).is_(None),
        col(Invitation.expires_at) > scope.now,
    )


def _checked_name(name: str) -> str:
    cleaned = name.strip()
    if not 1 <= len(cleaned) <= NAME_CHARACTERS_MAX or not cleaned.isprintable():
        raise Invalid(f"a name has 1 to {NAME_CHARACTERS_MAX} characters", field="name")
    return cleaned
