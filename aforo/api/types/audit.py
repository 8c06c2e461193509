"""GraphQL of the audit log: who did what, from where, and what was before and after."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.answers import decode_json
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, publish_enum
from aforo.api.parts.pages import rows_in_pages
from aforo.api.parts.relay import After, Connection, First, Node
from aforo.api.parts.scalars import JSON
from aforo.storage.actors import ActorKind
from aforo.storage.audit import AuditEntry as AuditRow
from aforo.storage.audit import Outcome
from aforo.storage.listing import PAGE_DEFAULT
from aforo.tenants import audit_log
from aforo.tenants.audit_log import AuditOrder
from aforo.tenants.permissions import Permission

publish_enum(
    ActorKind,
    "By what an actor is known.",
    API_KEY="An API key of the tenant.",
    MEMBER="A person of the tenant.",
    PORTAL="A user of a customer, through a portal token.",
    JOB="A background job.",
    OPERATOR="Whoever runs this installation, by a command.",
)
publish_enum(
    Outcome,
    "How it ended.",
    DONE="It was done.",
    REFUSED="It was refused, and nothing was changed.",
)

publish_enum(
    AuditOrder,
    "Orders of the audit log.",
    NEWEST_FIRST="By `createdAt`, the latest first.",
    OLDEST_FIRST="By `createdAt`, the earliest first.",
)

_GRAPHQL_NAMES = {"Subscription": "CustomerSubscription", "OrchestrationAction": "Action"}
"""Kinds of rows that the API knows by another name."""


@strawberry.type(description="Who did it, and from where.")
class AuditActor:
    kind: ActorKind = strawberry.field(description="By what the actor is known.")
    id: strawberry.ID | None = strawberry.field(
        description="Of the key, the member, the portal session or the job; give it as `actorId`."
    )
    label: str = strawberry.field(
        description="Such as the public id of a key, or the address of a member."
    )
    address: str | None = strawberry.field(description="IP address of the client.")
    user_agent: str | None = strawberry.field(description="What the client calls itself.")


@strawberry.type(description="What was done to one thing.")
class AuditChange:
    type: str = strawberry.field(description="The kind of thing.")
    id: strawberry.ID | None = strawberry.field(
        description="Its global id; give it as `objectId` to see all that was done to it."
    )
    before: JSON | None = strawberry.field(
        description="The values that were changed, as they were; null where it is new."
    )
    after: JSON | None = strawberry.field(
        description="These values as they are; null where it was deleted. A secret is never shown."
    )


@relay.fetched_by(audit_log.audit_entries_by_id)
@strawberry.type(description="An entry of the audit log. It is never changed, and never deleted.")
class AuditEntry(Node):
    action: str = strawberry.field(description="A mutation, or another event such as `signIn`.")
    outcome: Outcome = strawberry.field(description="How it ended.")
    reason: str | None = strawberry.field(description="The code of a refusal.")
    actor: AuditActor = strawberry.field(description="Who did it.")
    request_id: str | None = strawberry.field(
        description="The `X-Request-Id` of the answer to the request."
    )
    created_at: datetime = strawberry.field(description="When it was done.")
    changes: list[AuditChange] = strawberry.field(
        description="What was changed, at most 50 things."
    )
    omitted: int = strawberry.field(description="Things that were changed and are not listed.")
    position: int | None = strawberry.field(
        description="Its place in the tenant's chain; null for a moment, until it is sealed."
    )
    hash: str | None = strawberry.field(
        description="SHA-256 of the entry and of the hash before it, in hexadecimal."
    )

    @classmethod
    def from_row(cls, row: AuditRow) -> Self:
        return cls(
            id=relay.global_id("AuditEntry", row.id),
            action=row.action,
            outcome=row.outcome,
            reason=row.reason,
            actor=AuditActor(
                kind=row.actor_kind,
                id=_actor_id(row.actor_kind, row.actor_id),
                label=row.actor_label,
                address=row.address,
                user_agent=row.user_agent,
            ),
            request_id=row.request_id,
            created_at=row.created_at,
            changes=[
                AuditChange(
                    type=_name(each["type"]),
                    id=_object_id(each["type"], each["id"]),
                    before=each["before"],
                    after=each["after"],
                )
                for each in decode_json(row.changes)
            ],
            omitted=row.omitted,
            position=row.position,
            hash=row.hash.hex() if row.hash else None,
        )


@strawberry.type
class AuditQuery:
    @field("The audit log.", needs=Permission.AUDIT_READ)
    async def audit_log(
        self,
        info: Info,
        *,
        actor_id: Annotated[
            strawberry.ID | None,
            strawberry.argument(description="Only what this actor did; see `AuditActor.id`."),
        ] = None,
        action: Annotated[
            str | None, strawberry.argument(description="Only this, such as `createCustomer`.")
        ] = None,
        object_id: Annotated[
            strawberry.ID | None,
            strawberry.argument(description="Only what was done to the thing with this id."),
        ] = None,
        since: Annotated[
            datetime | None, strawberry.argument(description="Not earlier than this.")
        ] = None,
        until: Annotated[
            datetime | None, strawberry.argument(description="Earlier than this.")
        ] = None,
        order_by: Annotated[
            AuditOrder, strawberry.argument(description="In what order they are listed.")
        ] = AuditOrder.NEWEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[AuditEntry]:
        listing = audit_log.audit_entries(
            actor_id=relay.any_id(actor_id, field="actorId"),
            action=action,
            object_id=relay.any_id(object_id, field="objectId"),
            since=since,
            until=until,
            order=order_by,
        )
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=AuditEntry.from_row
        )


def _name(kind: str) -> str:
    return _GRAPHQL_NAMES.get(kind, kind)


def _object_id(kind: str, id_: str | None) -> strawberry.ID | None:
    return None if id_ is None else relay.global_id(_name(kind), UUID(id_))


def _actor_id(kind: ActorKind, id_: UUID | None) -> strawberry.ID | None:
    return None if id_ is None else relay.global_id(_ACTORS[kind], id_)


_ACTORS = {
    ActorKind.API_KEY: "ApiKey",
    ActorKind.MEMBER: "Member",
    ActorKind.PORTAL: "PortalToken",
    ActorKind.JOB: "Job",
    ActorKind.OPERATOR: "Operator",
}
