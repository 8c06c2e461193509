"""GraphQL of the people: who calls, the tenant's members, and the invitations to become one."""

from datetime import datetime
from typing import Annotated, Self

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, mutation, publish_enum
from aforo.api.parts.pages import ByAge, rows_in_pages
from aforo.api.parts.permissions import OPEN
from aforo.api.parts.problems import ConflictProblem, InvalidProblem, NotFoundProblem
from aforo.api.parts.relay import After, Connection, First, Node
from aforo.api.types.roles import Role
from aforo.api.types.tenants import Tenant
from aforo.storage.listing import PAGE_DEFAULT, AgeOrder
from aforo.tenants import members, models, queries, resets
from aforo.tenants.models import MemberState
from aforo.tenants.permissions import Permission
from aforo.tenants.queries import CallerKind

publish_enum(
    MemberState,
    "Whether a member may sign in.",
    ACTIVE="It may.",
    REMOVED="It was removed, and may not.",
)
publish_enum(
    CallerKind,
    "By what a caller is known.",
    API_KEY="By one of the tenant's API keys.",
    MEMBER="By the session of a member.",
    PORTAL="By a portal token of one customer.",
)


@relay.fetched_by(members.members_by_id)
@strawberry.type(description="A person in the tenant, with a role.")
class Member(Node):
    email: str = strawberry.field(description="The e-mail address, in small letters.")
    name: str = strawberry.field(description="What the member is called.")
    role: Role = strawberry.field(description="What the member may do.")
    state: MemberState = strawberry.field(description="Whether the member may sign in.")
    created_at: datetime = strawberry.field(description="When the member joined.")

    @classmethod
    def from_row(cls, row: models.Member) -> Self:
        return cls(
            id=relay.global_id("Member", row.id),
            email=row.email,
            name=row.name,
            role=row.role,
            state=row.state,
            created_at=row.created_at,
        )


@relay.fetched_by(members.invitations_by_id)
@strawberry.type(description="An offer of membership. It is open until one of its ends.")
class Invitation(Node):
    email: str = strawberry.field(description="Who is asked in.")
    role: Role = strawberry.field(description="The role that is offered.")
    created_at: datetime = strawberry.field(description="When it was made.")
    expires_at: datetime = strawberry.field(description="From when on it is not taken any more.")
    accepted_at: datetime | None = strawberry.field(description="When it was accepted.")
    revoked_at: datetime | None = strawberry.field(description="When it was taken back.")

    @classmethod
    def from_row(cls, row: models.Invitation) -> Self:
        return cls(
            id=relay.global_id("Invitation", row.id),
            email=row.email,
            role=row.role,
            created_at=row.created_at,
            expires_at=row.expires_at,
            accepted_at=row.accepted_at,
            revoked_at=row.revoked_at,
        )


@strawberry.type(description="Whoever sends this request.")
class Viewer:
    kind: CallerKind = strawberry.field(description="By what the caller is known.")
    id: strawberry.ID = strawberry.field(
        description="The global id of the member, the API key or the portal session."
    )
    email: str | None = strawberry.field(description="A member's e-mail address.")
    name: str | None = strawberry.field(description="A member's name.")
    role: Role | None = strawberry.field(description="A member's role.")
    permissions: list[Permission] = strawberry.field(description="What the caller may do.")

    @field("The tenant that the caller belongs to.")
    async def tenant(self, info: Info) -> Tenant:
        async with info.context.scope() as scope:
            return Tenant.from_row(await queries.tenant(scope))


@strawberry.type(description="A new invitation, with the only sight of its token.")
class NewInvitation:
    invitation: Invitation = strawberry.field(description="The invitation.")
    token: str = strawberry.field(
        description="What the invited person sends to `/auth/invitation`. Pass it on by a way "
        "that only that person reads: it cannot be shown again."
    )


@strawberry.input(description="Whom to ask in, and as what.")
class InviteMemberInput:
    email: str = strawberry.field(description="The person's e-mail address.")
    role: Role = strawberry.field(description="No more than your own.")


@strawberry.input(description="An invitation to take back.")
class RevokeInvitationInput:
    invitation_id: strawberry.ID = strawberry.field(description="The invitation's id.")


@strawberry.input(description="Another role for a member.")
class ChangeMemberRoleInput:
    member_id: strawberry.ID = strawberry.field(description="The member's id.")
    role: Role = strawberry.field(description="No more than your own.")


@strawberry.input(description="A member who leaves.")
class RemoveMemberInput:
    member_id: strawberry.ID = strawberry.field(description="The member's id.")


@strawberry.input(description="A member who cannot sign in any more.")
class CreatePasswordResetInput:
    member_id: strawberry.ID = strawberry.field(description="The member's id, not your own.")
    removes_second_factor: bool = strawberry.field(
        default=False, description="Whether the device that shows codes is lost too."
    )


@strawberry.type(description="The only sight of a token with which a password is reset.")
class PasswordReset:
    token: str = strawberry.field(
        description="What the member sends to `/auth/password/reset`, once and within 24 hours. "
        "Pass it on by a way that only the member reads."
    )


CreatePasswordResetResult = Annotated[
    PasswordReset | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("CreatePasswordResetResult", description="The token, or why there is none."),
]
InviteMemberResult = Annotated[
    NewInvitation | InvalidProblem | ConflictProblem,
    strawberry.union("InviteMemberResult", description="The invitation, or why there is none."),
]
RevokeInvitationResult = Annotated[
    Invitation | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union(
        "RevokeInvitationResult", description="The revoked invitation, or why it is not."
    ),
]
ChangeMemberRoleResult = Annotated[
    Member | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("ChangeMemberRoleResult", description="The member, or why it is as it was."),
]
RemoveMemberResult = Annotated[
    Member | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("RemoveMemberResult", description="Who was removed, or why nobody was."),
]


@strawberry.type
class MemberQuery:
    @field("Who sends this request, and what it may do.", needs=OPEN)
    async def viewer(self, info: Info) -> Viewer:
        caller = info.context.caller
        row = None
        if caller.kind is CallerKind.MEMBER:
            row = await info.context.load(members.members_by_id, caller.id)
        kind = {CallerKind.API_KEY: "ApiKey", CallerKind.MEMBER: "Member"}.get(caller.kind)
        return Viewer(
            kind=caller.kind,
            id=relay.global_id(kind or "PortalSession", caller.id),
            email=row.email if row else None,
            name=row.name if row else None,
            role=row.role if row else None,
            permissions=[each for each in Permission if each in caller.permissions],
        )

    @field("The tenant's members; by age is by when they joined.", needs=Permission.ACCESS_READ)
    async def members(
        self,
        info: Info,
        *,
        role: Annotated[
            Role | None, strawberry.argument(description="Those of this role alone.")
        ] = None,
        order_by: ByAge = AgeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[Member]:
        listing = members.members(role=role, order=order_by)
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=Member.from_row
        )

    @field(
        "The tenant's invitations, also those that are over.",
        needs=Permission.ACCESS_READ,
    )
    async def invitations(
        self,
        info: Info,
        *,
        order_by: ByAge = AgeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[Invitation]:
        listing = members.invitations(order=order_by)
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=Invitation.from_row
        )


@strawberry.type
class MemberMutation:
    @mutation(
        "Ask somebody in; the token is shown this once, and good for seven days. An open "
        "invitation to the same address is revoked.",
        needs=Permission.ACCESS_WRITE,
    )
    async def invite_member(self, info: Info, input: InviteMemberInput) -> InviteMemberResult:
        async with info.context.scope() as scope:
            issued = await members.invite(
                scope,
                granter=await members.granter_of(scope, info.context.caller),
                email=input.email,
                role=input.role,
                pepper=info.context.runtime.settings.key_pepper,
            )
        return NewInvitation(invitation=Invitation.from_row(issued.row), token=issued.token)

    @mutation("Take an invitation back.", needs=Permission.ACCESS_WRITE)
    async def revoke_invitation(
        self, info: Info, input: RevokeInvitationInput
    ) -> RevokeInvitationResult:
        invitation_id = relay.local_id("Invitation", input.invitation_id, field="invitationId")
        async with info.context.scope() as scope:
            row = await members.revoke_invitation(
                scope,
                granter=await members.granter_of(scope, info.context.caller),
                invitation_id=invitation_id,
            )
        return Invitation.from_row(row)

    @mutation(
        "Give a member another role. Its sessions and streams end within 5 seconds.",
        needs=Permission.ACCESS_WRITE,
    )
    async def change_member_role(
        self, info: Info, input: ChangeMemberRoleInput
    ) -> ChangeMemberRoleResult:
        member_id = relay.local_id("Member", input.member_id, field="memberId")
        async with info.context.scope() as scope:
            row = await members.change_role(
                scope,
                granter=await members.granter_of(scope, info.context.caller),
                member_id=member_id,
                role=input.role,
            )
        return Member.from_row(row)

    @mutation(
        "End a membership. Its sessions and streams end within 5 seconds.",
        needs=Permission.ACCESS_WRITE,
    )
    async def remove_member(self, info: Info, input: RemoveMemberInput) -> RemoveMemberResult:
        member_id = relay.local_id("Member", input.member_id, field="memberId")
        async with info.context.scope() as scope:
            row = await members.remove_member(
                scope,
                granter=await members.granter_of(scope, info.context.caller),
                member_id=member_id,
            )
        return Member.from_row(row)

    @mutation(
        "Make a token with which a member takes a new password; owners and admins may, for "
        "members of this tenant alone.",
        needs=Permission.ACCESS_WRITE,
    )
    async def create_password_reset(
        self, info: Info, input: CreatePasswordResetInput
    ) -> CreatePasswordResetResult:
        member_id = relay.local_id("Member", input.member_id, field="memberId")
        async with info.context.scope() as scope:
            token = await resets.reset_by_member(
                info.context.runtime,
                scope,
                granter=await members.granter_of(scope, info.context.caller),
                granter_id=info.context.caller.id,
                member_id=member_id,
                removes_second_factor=input.removes_second_factor,
            )
        return PasswordReset(token=token)
