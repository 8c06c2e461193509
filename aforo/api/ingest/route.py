"""The route: who sends it, which form it has, and the verdicts as they are answered."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from aforo.api.auth.requests import (
    Refused,
    bearer_token,
    demand,
    identify,
    is_utf8,
    media_type,
    read_body,
)
from aforo.api.ingest.batches import array_of_events, lines_of_events
from aforo.api.ingest.cloud_events import (
    batched_events,
    binary_event,
    is_binary,
    structured_event,
)
from aforo.api.ingest.encodings import encoding_of, unpacked
from aforo.api.parts.answers import json_response
from aforo.api.parts.taking import take
from aforo.api.protocol.rates import take_events
from aforo.metering.commands import BatchRefused
from aforo.metering.telling import Source
from aforo.metering.verdicts import IngestAnswer, Verdict
from aforo.sdk.errors import Conflict, NotFound
from aforo.storage.scope import Runtime
from aforo.tenants.permissions import Permission

BODY_BYTES_MAX = 10 * 1024 * 1024
"""Of a body as it is sent, and once it is unpacked."""

Form = Callable[[bytes], list[object]]
"""Reads a body as a batch of events. Raises `Refused`."""

FORMS: dict[str, Form] = {
    "application/json": array_of_events,
    "application/x-ndjson": lines_of_events,
    "application/cloudevents+json": structured_event,
    "application/cloudevents-batch+json": batched_events,
}
IMPORT_AGENT = "aforo-import"
_SOURCES: dict[Form, Source] = {array_of_events: Source.JSON, lines_of_events: Source.LINES}
_SWITCH = {"true": True, "false": False}


async def events(request: Request) -> Response:
    """Take a batch. Raises `Refused` and `Unavailable`, which the application words."""
    runtime: Runtime = request.app.state.runtime
    credential = await identify(runtime, bearer_token(request))
    demand(credential.caller, {Permission.INGEST: "/v1/events"})
    atomic, form, encoding = _atomic(request), form_of(request), encoding_of(request)
    backfill = _backfill(request)
    source = _source(request, form)
    await take_events(runtime, credential.caller, 1)  # Before the body is read and parsed.
    body = await read_body(request, bytes_max=BODY_BYTES_MAX)
    batch = form(unpacked(body, encoding, bytes_max=BODY_BYTES_MAX))
    headers = await take_events(runtime, credential.caller, len(batch) - 1)
    try:
        answer = await take(
            runtime,
            credential.caller.tenant_id,
            batch,
            source=source,
            atomic=atomic,
            backfill=backfill,
        )
    except (Conflict, NotFound) as error:
        status = HTTPStatus.NOT_FOUND if isinstance(error, NotFound) else HTTPStatus.CONFLICT
        raise Refused(status, error.code, error.message, field="backfill") from error
    except BatchRefused as refused:
        return json_response(
            _body(refused.answer), HTTPStatus.UNPROCESSABLE_ENTITY, headers=headers
        )
    return json_response(_body(answer), HTTPStatus.ACCEPTED, headers=headers)


def form_of(request: Request) -> Form:
    """How the body is to be read. Raises `Refused` with 415."""
    content_type = media_type(request)
    form = FORMS.get(content_type)
    # A CloudEvent in binary mode says so in its headers alone.
    if form in {None, array_of_events} and is_binary(request.headers, content_type):
        form = partial(binary_event, headers=request.headers.items())
    if form is None or not is_utf8(request):
        raise Refused(
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            f"the body is sent in UTF-8 as {', '.join(FORMS)}, or as a CloudEvent in binary mode",
            {"Accept": ", ".join(FORMS)},
        )
    return form


def _source(request: Request, form: Form) -> Source:
    """What the events come from: their form, or the command that sends files."""
    if request.headers.get("user-agent") == IMPORT_AGENT:
        return Source.IMPORT
    return _SOURCES.get(form, Source.CLOUD_EVENTS)


def _atomic(request: Request) -> bool:
    given = request.query_params.getlist("atomic")
    if not given:
        return False
    if len(given) > 1 or given[0] not in _SWITCH:
        raise Refused(400, "BAD_REQUEST", "atomic is true or false", field="atomic")
    return _SWITCH[given[0]]


def _backfill(request: Request) -> str | None:
    given = request.query_params.getlist("backfill")
    if len(given) > 1 or given == [""]:
        raise Refused(400, "BAD_REQUEST", "backfill is the name of one", field="backfill")
    return given[0] if given else None


def _body(answer: IngestAnswer) -> dict[str, Any]:
    return {
        "accepted": answer.accepted,
        "duplicates": answer.duplicates,
        "conflicts": answer.conflicts,
        "rejected": answer.rejected,
        "quarantined": answer.quarantined,
        "verdicts": [_verdict(verdict) for verdict in answer.verdicts],
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "index": verdict.index,
        "idempotencyKey": verdict.idempotency_key,
        "verdict": verdict.kind,
        "stage": verdict.stage,
        "code": verdict.code,
        "message": verdict.message,
        "eventId": verdict.event_id,
    }
