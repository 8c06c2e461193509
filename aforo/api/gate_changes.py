"""`GET /v1/entitlements/changes`: of which customers the answers of checks are no longer good."""

from collections.abc import AsyncGenerator
from uuid import UUID

from starlette.requests import Request

from aforo.api.auth.requests import bearer_token, demand, identify
from aforo.api.parts import live
from aforo.api.parts.context import Context
from aforo.api.protocol.operations import Answer, GraphQLService
from aforo.api.protocol.rates import take_checks
from aforo.api.protocol.sse import EventStream
from aforo.storage.live_log import Message
from aforo.storage.scope import GATES, Runtime
from aforo.subscriptions.models import Customer
from aforo.subscriptions.queries import customers_by_id
from aforo.tenants.permissions import Permission


async def changes(request: Request) -> EventStream:
    """Follow the changes, after the header `Last-Event-ID` or the parameter `after`, or from now
    on. Raises `Refused` and `Unavailable`."""
    runtime: Runtime = request.app.state.runtime
    service: GraphQLService = request.app.state.graphql
    credential = await identify(runtime, bearer_token(request))
    demand(credential.caller, {Permission.CHECK: request.url.path})
    await take_checks(runtime, credential.caller)
    context = Context(
        runtime,
        credential.caller,
        request.state.request_id,
        remembers=False,
        resume_after=request.headers.get("last-event-id") or request.query_params.get("after"),
    )
    return EventStream(
        service.follow(context, _changes(context)), service.streams.watch(credential)
    )


async def _changes(context: Context) -> AsyncGenerator[Answer]:
    async for message in live.follow(context, GATES):
        followed = context.followed
        assert followed is not None, "it is being followed"
        row = await _customer(context, message)
        if row is not None:
            told = followed.extensions
            body = {"customer": row.external_id, "missed": told.get("missed")}
            yield Answer(body, cursor=told["cursor"])


async def _customer(context: Context, message: Message) -> Customer | None:
    """Read once for all who follow here."""
    id_ = UUID(message.data["customerId"])
    return await live.shared(
        message.memo, customers_by_id, lambda: context.load(customers_by_id, id_)
    )
