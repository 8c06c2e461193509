"""GraphQL of the webhooks: what can be changed about endpoints, and told again."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

import strawberry

from aforo.api.parts.context import Info
from aforo.api.parts.fields import mutation
from aforo.api.parts.problems import ConflictProblem, InvalidProblem, NotFoundProblem
from aforo.api.parts.relay import local_id
from aforo.api.types.periods import PeriodInput
from aforo.api.types.webhooks import WebhookDelivery, WebhookEndpoint
from aforo.storage.event_types import EventType
from aforo.tenants.permissions import Permission
from aforo.webhooks import commands


@strawberry.type(description="An endpoint with the only sight of its new secret.")
class NewWebhookSecret:
    endpoint: WebhookEndpoint = strawberry.field(description="The endpoint.")
    secret: str = strawberry.field(
        description="What verifies its signatures, `whsec_…`. Keep it now: it is not shown again."
    )


@strawberry.type(description="What is told again.")
class WebhookReplay:
    endpoint: WebhookEndpoint = strawberry.field(description="Where to.")
    event_count: int = strawberry.field(
        description="Events in the time; those that are on their way anyway are among them."
    )


@strawberry.input(description="A new endpoint.")
class CreateWebhookEndpointInput:
    url: str = strawberry.field(
        description="Where it is: https, at a public address, on port 80 or 443."
    )
    description: str = strawberry.field(default="", description="What it is for.")
    event_types: list[EventType] = strawberry.field(
        default_factory=list,
        description="Tell it of events of these types; of every type where the list is empty.",
    )


@strawberry.input(description="What to change about an endpoint; what is left out stays.")
class UpdateWebhookEndpointInput:
    webhook_endpoint_id: strawberry.ID = strawberry.field(description="The endpoint.")
    url: str | None = strawberry.field(default=None, description="Where it is now.")
    description: str | None = strawberry.field(default=None, description="What it is for.")
    event_types: list[EventType] | None = strawberry.field(
        default=None, description="The types that it is told of from now on; empty for all."
    )


@strawberry.input(description="An endpoint to forget.")
class DeleteWebhookEndpointInput:
    webhook_endpoint_id: strawberry.ID = strawberry.field(description="The endpoint.")


@strawberry.input(description="An endpoint to tell of events again.")
class EnableWebhookEndpointInput:
    webhook_endpoint_id: strawberry.ID = strawberry.field(description="The endpoint.")


@strawberry.input(description="An endpoint to tell no more of events.")
class DisableWebhookEndpointInput:
    webhook_endpoint_id: strawberry.ID = strawberry.field(description="The endpoint.")


@strawberry.input(description="An endpoint that gets a new secret.")
class RotateWebhookSecretInput:
    webhook_endpoint_id: strawberry.ID = strawberry.field(description="The endpoint.")
    overlap_seconds: int = strawberry.field(
        default=86_400,
        description="How long the secret before it signs as well, at most 604,800 (7 days).",
    )


@strawberry.input(description="An endpoint to try.")
class SendTestWebhookInput:
    webhook_endpoint_id: strawberry.ID = strawberry.field(description="The endpoint.")


@strawberry.input(description="A delivery to make again.")
class ResendWebhookDeliveryInput:
    webhook_delivery_id: strawberry.ID = strawberry.field(description="The delivery.")


@strawberry.input(description="Events to tell an endpoint again, or for the first time.")
class ReplayWebhookEventsInput:
    webhook_endpoint_id: strawberry.ID = strawberry.field(description="The endpoint.")
    period: PeriodInput = strawberry.field(
        description="Events that were published in it. At most 1,000 in all."
    )
    event_types: list[EventType] = strawberry.field(
        default_factory=list,
        description="Of these types; of those that the endpoint is told of if not given.",
    )


CreateWebhookEndpointResult = Annotated[
    NewWebhookSecret | InvalidProblem | ConflictProblem,
    strawberry.union(
        "CreateWebhookEndpointResult", description="The endpoint, or why there is none."
    ),
]
UpdateWebhookEndpointResult = Annotated[
    WebhookEndpoint | InvalidProblem | NotFoundProblem,
    strawberry.union(
        "UpdateWebhookEndpointResult", description="The endpoint, or why it is as it was."
    ),
]
DeleteWebhookEndpointResult = Annotated[
    WebhookEndpoint | InvalidProblem | NotFoundProblem,
    strawberry.union(
        "DeleteWebhookEndpointResult", description="What is deleted, or why it is not."
    ),
]
EnableWebhookEndpointResult = Annotated[
    WebhookEndpoint | InvalidProblem | NotFoundProblem,
    strawberry.union(
        "EnableWebhookEndpointResult", description="The endpoint, or why it is as it was."
    ),
]
DisableWebhookEndpointResult = Annotated[
    WebhookEndpoint | InvalidProblem | NotFoundProblem,
    strawberry.union(
        "DisableWebhookEndpointResult", description="The endpoint, or why it is as it was."
    ),
]
RotateWebhookSecretResult = Annotated[
    NewWebhookSecret | InvalidProblem | NotFoundProblem,
    strawberry.union(
        "RotateWebhookSecretResult", description="The new secret, or why there is none."
    ),
]
SendTestWebhookResult = Annotated[
    WebhookDelivery | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("SendTestWebhookResult", description="The delivery, or why there is none."),
]
ResendWebhookDeliveryResult = Annotated[
    WebhookDelivery | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union(
        "ResendWebhookDeliveryResult", description="The delivery, or why it is not made again."
    ),
]
ReplayWebhookEventsResult = Annotated[
    WebhookReplay | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union(
        "ReplayWebhookEventsResult", description="What is told again, or why nothing is."
    ),
]


@strawberry.type
class WebhookMutation:
    @mutation(
        "Tell a URL of events from now on; its secret is shown this once.",
        needs=Permission.WEBHOOKS_WRITE,
    )
    async def create_webhook_endpoint(
        self, info: Info, input: CreateWebhookEndpointInput
    ) -> CreateWebhookEndpointResult:
        async with info.context.scope() as scope:
            made = await commands.create_endpoint(
                scope,
                walls=info.context.runtime.egress.walls,
                url=input.url,
                description=input.description,
                event_types=input.event_types,
            )
        return _shown(made)

    @mutation("Change what is given about an endpoint.", needs=Permission.WEBHOOKS_WRITE)
    async def update_webhook_endpoint(
        self, info: Info, input: UpdateWebhookEndpointInput
    ) -> UpdateWebhookEndpointResult:
        async with info.context.scope() as scope:
            row = await commands.update_endpoint(
                scope,
                walls=info.context.runtime.egress.walls,
                endpoint_id=_endpoint(input.webhook_endpoint_id),
                url=input.url,
                description=input.description,
                event_types=input.event_types,
            )
        return WebhookEndpoint.from_row(row)

    @mutation(
        "Forget an endpoint and its secret; what is on its way to it is cancelled.",
        needs=Permission.WEBHOOKS_WRITE,
    )
    async def delete_webhook_endpoint(
        self, info: Info, input: DeleteWebhookEndpointInput
    ) -> DeleteWebhookEndpointResult:
        async with info.context.scope() as scope:
            row = await commands.delete_endpoint(
                scope, endpoint_id=_endpoint(input.webhook_endpoint_id)
            )
        return WebhookEndpoint.from_row(row)

    @mutation(
        "Tell an endpoint of events again; replay what it missed.",
        needs=Permission.WEBHOOKS_WRITE,
    )
    async def enable_webhook_endpoint(
        self, info: Info, input: EnableWebhookEndpointInput
    ) -> EnableWebhookEndpointResult:
        async with info.context.scope() as scope:
            row = await commands.enable_endpoint(
                scope, endpoint_id=_endpoint(input.webhook_endpoint_id)
            )
        return WebhookEndpoint.from_row(row)

    @mutation(
        "Tell an endpoint no more of events; what is on its way to it is cancelled.",
        needs=Permission.WEBHOOKS_WRITE,
    )
    async def disable_webhook_endpoint(
        self, info: Info, input: DisableWebhookEndpointInput
    ) -> DisableWebhookEndpointResult:
        async with info.context.scope() as scope:
            row = await commands.disable_endpoint(
                scope, endpoint_id=_endpoint(input.webhook_endpoint_id)
            )
        return WebhookEndpoint.from_row(row)

    @mutation(
        "Give an endpoint a new secret, shown this once; for a while both sign.",
        needs=Permission.WEBHOOKS_WRITE,
    )
    async def rotate_webhook_secret(
        self, info: Info, input: RotateWebhookSecretInput
    ) -> RotateWebhookSecretResult:
        async with info.context.scope() as scope:
            made = await commands.rotate_secret(
                scope,
                endpoint_id=_endpoint(input.webhook_endpoint_id),
                overlap=timedelta(seconds=input.overlap_seconds),
            )
        return _shown(made)

    @mutation("Send an endpoint a `webhook.test`.", needs=Permission.WEBHOOKS_WRITE)
    async def send_test_webhook(
        self, info: Info, input: SendTestWebhookInput
    ) -> SendTestWebhookResult:
        async with info.context.scope() as scope:
            row = await commands.send_test(scope, endpoint_id=_endpoint(input.webhook_endpoint_id))
        return WebhookDelivery.from_row(row)

    @mutation(
        "Make a delivery again from its first try on, or its next try now.",
        needs=Permission.WEBHOOKS_WRITE,
    )
    async def resend_webhook_delivery(
        self, info: Info, input: ResendWebhookDeliveryInput
    ) -> ResendWebhookDeliveryResult:
        async with info.context.scope() as scope:
            row = await commands.resend(
                scope,
                delivery_id=local_id(
                    "WebhookDelivery", input.webhook_delivery_id, field="webhookDeliveryId"
                ),
            )
        return WebhookDelivery.from_row(row)

    @mutation(
        "Tell an endpoint of the events of a time again, each with its id and its bytes.",
        needs=Permission.WEBHOOKS_WRITE,
    )
    async def replay_webhook_events(
        self, info: Info, input: ReplayWebhookEventsInput
    ) -> ReplayWebhookEventsResult:
        async with info.context.scope() as scope:
            replayed = await commands.replay(
                scope,
                endpoint_id=_endpoint(input.webhook_endpoint_id),
                period=input.period.to_period(),
                event_types=input.event_types,
            )
        return WebhookReplay(
            endpoint=WebhookEndpoint.from_row(replayed.endpoint), event_count=replayed.events
        )


def _endpoint(id_: strawberry.ID) -> UUID:
    return local_id("WebhookEndpoint", id_, field="webhookEndpointId")


def _shown(made: commands.NewSecret) -> NewWebhookSecret:
    return NewWebhookSecret(endpoint=WebhookEndpoint.from_row(made.endpoint), secret=made.secret)
