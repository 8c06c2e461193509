"""GraphQL of notifiers: which are on, with which settings, and how they would look."""

from datetime import datetime
from typing import Annotated, Self

import strawberry

from aforo.actions import commands, models, queries
from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, mutation
from aforo.api.parts.pages import ByAge, rows_in_pages
from aforo.api.parts.problems import InvalidProblem, NotFoundProblem
from aforo.api.parts.relay import After, Connection, First, Node
from aforo.api.parts.scalars import JSON
from aforo.sdk import Invalid
from aforo.storage.egress import CallFailed
from aforo.storage.listing import PAGE_DEFAULT, AgeOrder
from aforo.tenants.permissions import Permission

ANSWER_BYTES_MAX = 1_000
URL_CHARACTERS_MAX = 2_000


@relay.fetched_by(queries.notifier_settings_by_id)
@strawberry.type(description="A notifier that was turned on or off, with its settings.")
class NotifierSettings(Node):
    notifier: str = strawberry.field(description="Key of the notifier.")
    enabled: bool = strawberry.field(description="Whether it tells of signals.")
    settings: JSON = strawberry.field(description="Its settings, complete.")
    created_at: datetime = strawberry.field(description="In force from this moment on.")

    @classmethod
    def from_row(cls, row: models.NotifierSettings) -> Self:
        return cls(
            id=relay.global_id("NotifierSettings", row.id),
            notifier=row.notifier,
            enabled=row.enabled,
            settings=JSON(row.settings),
            created_at=row.created_at,
        )


@strawberry.type(description="A message that was sent to try a notifier out.")
class TestNotification:
    content_type: str = strawberry.field(description="Of the body.")
    body: str = strawberry.field(description="What the notifier composed, as it was sent.")
    status: int | None = strawberry.field(
        description="The receiver's HTTP status; null where it did not answer."
    )
    failure: str | None = strawberry.field(description="Why there was no answer.")


@strawberry.input(description="A notifier to turn on or off.")
class SetNotifierInput:
    notifier: str = strawberry.field(description="Key of a notifier; see `notifiers`.")
    enabled: bool = strawberry.field(
        default=True, description="Whether it tells of signals from now on."
    )
    settings: JSON = strawberry.field(description="Its settings as an object.")


@strawberry.input(description="Where to send a message that tells of nothing.")
class SendTestNotificationInput:
    notifier: str = strawberry.field(description="Key of a notifier that was set.")
    url: str = strawberry.field(
        description="A public address that takes it as a POST; it is not stored."
    )


SetNotifierResult = Annotated[
    NotifierSettings | InvalidProblem | NotFoundProblem,
    strawberry.union("SetNotifierResult", description="The settings, or why they are refused."),
]
SendTestNotificationResult = Annotated[
    TestNotification | InvalidProblem | NotFoundProblem,
    strawberry.union(
        "SendTestNotificationResult", description="What was sent, or why nothing was."
    ),
]


@strawberry.type
class NotifierQuery:
    @field(
        "The notifiers that were ever set, each with its latest settings.",
        needs=Permission.SIGNALS_READ,
    )
    async def notifier_settings(
        self,
        info: Info,
        *,
        order_by: ByAge = AgeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[NotifierSettings]:
        return await rows_in_pages(
            info.context,
            queries.notifier_settings(order=order_by),
            first=first,
            after=after,
            of=NotifierSettings.from_row,
        )


@strawberry.type
class NotifierMutation:
    @mutation("Turn a notifier on or off, with its settings.", needs=Permission.SIGNALS_WRITE)
    async def set_notifier(self, info: Info, input: SetNotifierInput) -> SetNotifierResult:
        if not isinstance(input.settings, dict):
            raise Invalid("settings are a JSON object", field="settings")
        async with info.context.scope() as scope:
            row = await commands.set_notifier(
                scope, notifier=input.notifier, enabled=input.enabled, settings=input.settings
            )
        return NotifierSettings.from_row(row)

    @mutation(
        "Send a message that tells of nothing, to see how a notifier's news would look.",
        needs=Permission.SIGNALS_WRITE,
    )
    async def send_test_notification(
        self, info: Info, input: SendTestNotificationInput
    ) -> SendTestNotificationResult:
        if len(input.url) > URL_CHARACTERS_MAX:
            raise Invalid(f"a url has at most {URL_CHARACTERS_MAX} characters", field="url")
        async with info.context.scope() as scope:
            message = await commands.sample_message(scope, notifier=input.notifier)
        status, failure = None, None
        try:
            answer = await info.context.runtime.egress.call(
                "POST",
                input.url,
                tenant_id=info.context.caller.tenant_id,
                headers={"content-type": message.content_type},
                body=message.body.encode(),
                bytes_max=ANSWER_BYTES_MAX,
                cuts=True,
            )
            status = answer.status
        except CallFailed as error:
            failure = error.message
        except Invalid as error:
            raise Invalid(error.message, code=error.code, field="url") from error
        return TestNotification(
            content_type=message.content_type, body=message.body, status=status, failure=failure
        )
