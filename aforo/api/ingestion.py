"""`POST /v1/events`: a batch of usage events, and the verdicts on them."""

import json
from decimal import Decimal, InvalidOperation
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from aforo.api.auth.requests import (
    Refused,
    bearer_token,
    demand,
    demand_json,
    identify,
    read_body,
)
from aforo.api.parts.answers import Unreadable, decode_json, json_response
from aforo.api.protocol.rates import take_events
from aforo.metering.commands import BatchRefused, ingest
from aforo.metering.verdicts import IngestAnswer, Verdict
from aforo.storage.faults import answered_within
from aforo.storage.scope import Runtime
from aforo.telemetry.metrics import EVENTS
from aforo.tenants.permissions import Permission

BODY_BYTES_MAX = 10 * 1024 * 1024
EVENTS_MAX = 1_000
INGESTION_TIMEOUT_SECONDS = 30.0

NUMBER_CHARACTERS_MAX = 4_000
_BEYOND: int = 10**NUMBER_CHARACTERS_MAX  # Stands for any number that nothing here could hold.

_SWITCH = {"true": True, "false": False}


async def events(request: Request) -> Response:
    """Take a batch. Raises `Refused` and `Unavailable`, which the application words."""
    runtime: Runtime = request.app.state.runtime
    credential = await identify(runtime, bearer_token(request))
    demand(credential.caller, {Permission.INGEST: "/v1/events"})
    atomic = _atomic(request)
    demand_json(request)
    await take_events(runtime, credential.caller, 1)  # Before the body is read and parsed.
    batch = _batch(await read_body(request, bytes_max=BODY_BYTES_MAX))
    headers = await take_events(runtime, credential.caller, len(batch) - 1)
    try:
        async with (
            answered_within(INGESTION_TIMEOUT_SECONDS),  # The keys make it safe to send again.
            runtime.scope(credential.caller.tenant_id) as scope,
        ):
            answer = await ingest(
                scope, batch, key_pepper=runtime.settings.key_pepper, atomic=atomic
            )
    except BatchRefused as refused:
        return json_response(
            _body(refused.answer), HTTPStatus.UNPROCESSABLE_ENTITY, headers=headers
        )
    _count(answer)
    return json_response(_body(answer), HTTPStatus.ACCEPTED, headers=headers)


def _count(answer: IngestAnswer) -> None:
    EVENTS.labels("accepted").inc(answer.accepted)
    EVENTS.labels("duplicate").inc(answer.duplicates)
    EVENTS.labels("conflict").inc(answer.conflicts)
    EVENTS.labels("rejected").inc(answer.rejected)
    EVENTS.labels("quarantined").inc(answer.quarantined)


def _atomic(request: Request) -> bool:
    given = request.query_params.getlist("atomic")
    if not given:
        return False
    if len(given) > 1 or given[0] not in _SWITCH:
        raise Refused(400, "BAD_REQUEST", "atomic is true or false", field="atomic")
    return _SWITCH[given[0]]


def _batch(body: bytes) -> list[object]:
    try:
        batch = _decoded(body)
    except (ValueError, RecursionError) as error:
        said = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise Refused(400, "BAD_REQUEST", f"the body cannot be read as JSON: {said}") from error
    if not isinstance(batch, list):
        raise Refused(400, "BAD_REQUEST", "the body is a JSON array of events")
    if len(batch) > EVENTS_MAX:
        raise Refused(
            413, "TOO_MANY_EVENTS", f"a batch has at most {EVENTS_MAX} events, not {len(batch)}"
        )
    return batch


def _decoded(body: bytes) -> Any:
    """Read the body, also where single values in it are beyond the fast decoder: halves of a
    surrogate pair, endless digits. Such a value is for ingestion to reject, with its event alone.
    Raises ValueError or RecursionError.
    """
    try:
        return decode_json(body)
    except Unreadable:
        return json.loads(
            body.decode(), parse_int=_integer, parse_float=_decimal, parse_constant=_no_constant
        )


def _integer(digits: str) -> int:
    return int(digits) if len(digits) <= NUMBER_CHARACTERS_MAX else _BEYOND


def _decimal(digits: str) -> Decimal | int:
    try:
        return Decimal(digits)
    except InvalidOperation:  # The exponent itself has more digits than a number can.
        return _BEYOND


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


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
