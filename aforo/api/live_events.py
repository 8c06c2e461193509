"""`GET /v1/live/events`: the subscription `liveEvents` for those who speak no GraphQL."""

import dataclasses
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.types import Receive, Scope, Send

from aforo.api.auth.callers import caller_of
from aforo.api.auth.requests import Refused, demand_all
from aforo.api.parts.relay import optional_id
from aforo.api.protocol.documents import Documents, Request
from aforo.api.protocol.http import EVENT_STREAM
from aforo.api.protocol.operations import Answer, GraphQLService
from aforo.api.protocol.rates import policy_of, take_points
from aforo.api.protocol.sse import EventStream
from aforo.api.types.live_events import SHOWN_DEFAULT, SHOWN_MAX
from aforo.metering.verdicts import VerdictKind
from aforo.sdk.errors import Invalid

_COUNTS = "received shown dropped accepted duplicates conflicts rejected quarantined"
DOCUMENT = f"""
subscription LiveEvents(
  $productId: ID, $customerId: ID, $type: String, $verdicts: [VerdictKind!]! = [], $shownMax: Int!
) {{
  liveEvents(
    productId: $productId, customerId: $customerId, type: $type, verdicts: $verdicts,
    shownMax: $shownMax
  ) {{
    counts {{ {_COUNTS} }}
    totals {{ {_COUNTS} }}
    events {{
      receivedAt verdict source stage code message validation eventId idempotencyKey type customer
      customerId teamId agentId customerKeyId subscriptionId productId meters occurredAt properties
      cost costCurrency supersedes isVoid
    }}
  }}
}}
"""
_NUMBER = re.compile("[0-9]{1,4}")
_ONCE = ("productId", "customerId", "type", "shownMax")
_PARAMETERS = {*_ONCE, "verdict"}


class LiveEvents:
    """The ASGI application at the route."""

    def __init__(self, service: GraphQLService, documents: Documents) -> None:
        self._service = service
        self._documents = documents

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a stream. Raises `Refused` and `Unavailable`, which the application words."""
        request = HttpRequest(scope, receive)
        if request.method not in {"GET", "HEAD"}:
            raise Refused(405, "METHOD_NOT_ALLOWED", "it is asked by GET", {"Allow": "GET"})
        runtime = self._service.runtime
        credential = await caller_of(runtime, request)
        accepted = request.headers.get("accept", EVENT_STREAM).lower()
        if not any(kind in accepted for kind in (EVENT_STREAM, "*/*", "text/*")):
            raise Refused(406, "NOT_ACCEPTABLE", f"it is answered as {EVENT_STREAM}")
        operation = self._documents.prepare(Request(DOCUMENT, _variables(request), None))
        demand_all(credential.caller, operation.needs)
        policy = await policy_of(runtime, credential.caller)
        await take_points(runtime, credential.caller, policy, operation.cost)
        started = self._service.subscribe(
            operation,
            credential,
            request.state.request_id,
            resume_after=request.headers.get("last-event-id"),
        )
        shown = dataclasses.replace(started, answers=_frames(started.answers))
        stream = EventStream(shown, self._service.streams.watch(credential))
        await stream(scope, receive, send)


def _variables(request: HttpRequest) -> Mapping[str, Any]:
    """What is asked for. Raises `Refused` with 400."""
    query = request.query_params
    if unknown := sorted(query.keys() - _PARAMETERS):
        known = ", ".join(sorted(_PARAMETERS))
        raise _bad(f"there is no parameter {unknown[0][:40]}; there are {known}")
    given: dict[str, Any] = {"shownMax": SHOWN_DEFAULT}
    for name in _ONCE:
        values = query.getlist(name)
        if len(values) > 1 or "\0" in "".join(values):
            raise _bad(f"{name} is given once, as text", name)
        if values:
            given[name] = values[0]
    try:
        optional_id("Product", given.get("productId"), field="productId")
        optional_id("Customer", given.get("customerId"), field="customerId")
    except Invalid as error:
        raise Refused(400, error.code, error.message, field=error.field) from error
    shown_max = str(given["shownMax"])
    if not _NUMBER.fullmatch(shown_max) or int(shown_max) > SHOWN_MAX:
        raise _bad(f"shownMax is a number of 0 to {SHOWN_MAX}", "shownMax")
    given["shownMax"] = int(shown_max)
    if verdicts := query.getlist("verdict"):
        if not set(verdicts) <= set(VerdictKind):
            raise _bad(f"a verdict is one of {', '.join(VerdictKind)}", "verdict")
        given["verdicts"] = verdicts
    return given


async def _frames(answers: AsyncGenerator[Answer]) -> AsyncGenerator[Answer]:
    """The answers without what GraphQL puts around them; what was missed stands in the frame."""
    try:
        async for answer in answers:
            data, extensions = answer.body.get("data"), answer.body.get("extensions", {})
            if "errors" in answer.body or data is None:
                yield answer
                continue
            missed = {"missed": extensions["missed"]} if "missed" in extensions else {}
            yield dataclasses.replace(answer, body={**data["liveEvents"], **missed})
    finally:
        await answers.aclose()


def _bad(message: str, field: str | None = None) -> Refused:
    return Refused(400, "BAD_REQUEST", message, field=field)
