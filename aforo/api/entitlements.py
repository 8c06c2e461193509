"""`POST /v1/entitlements/…`: what a customer may do now, asked by whoever stands at a gate."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aforo.api.auth.requests import (
    Refused,
    bearer_token,
    demand,
    demand_json,
    identify,
    read_body,
)
from aforo.api.parts.answers import Unreadable, decode_json, json_response
from aforo.api.parts.scalars import show_moment
from aforo.api.protocol.rates import take_checks
from aforo.entitlements import gate
from aforo.entitlements.decide import Decision, Held
from aforo.entitlements.gate import CONSUMED_SECONDS, Ask, Take
from aforo.entitlements.standing import Throttle
from aforo.metering.canonical import number
from aforo.metering.ingest import KEY_LENGTH_MAX
from aforo.sdk.errors import Conflict, Invalid, NotFound
from aforo.sdk.ids import TenantId
from aforo.sdk.money import parse_quantity
from aforo.storage.faults import answered_within
from aforo.storage.scope import Runtime
from aforo.storage.tallies import HoldState
from aforo.subscriptions.hierarchy import hash_customer_key
from aforo.tenants.permissions import Permission

BODY_BYTES_MAX = 16 * 1024
CHECK_TIMEOUT_SECONDS = 5.0
RESERVED_SECONDS_DEFAULT = 300
RESERVED_SECONDS_MAX = 24 * 3600
NAME_LENGTH_MAX = 255

_ABOUT = frozenset({"customer", "apiKey", "feature", "meter", "quantity"})
_STATUSES: Mapping[type[Exception], int] = {NotFound: 404, Conflict: 409, Invalid: 400}


@dataclass(frozen=True, slots=True)
class _Call:
    """A request that was let in, and its body."""

    runtime: Runtime
    tenant_id: TenantId
    given: dict[str, Any]
    headers: Mapping[str, str]


def routes() -> list[Route]:
    """The routes of the gate."""
    return [
        Route(f"/v1/entitlements/{name}", handler, methods=["POST"])
        for name, handler in (
            ("check", check),
            ("consume", consume),
            ("reserve", reserve),
            ("finalise", finalise),
            ("release", release),
        )
    ]


async def check(request: Request) -> Response:
    """Whether a customer may use something; changes nothing."""
    call = await _call(request, known=_ABOUT)
    ask = _ask(call)
    async with answered_within(CHECK_TIMEOUT_SECONDS):
        decision = await gate.check(call.runtime, call.tenant_id, ask)
    return json_response(_told(decision), headers=call.headers)


async def consume(request: Request) -> Response:
    """Check, and hold the units until the event with the same key is in the log."""
    call = await _call(request, known=_ABOUT | {"idempotencyKey"})
    return await _take(call, HoldState.CONSUMED, CONSUMED_SECONDS)


async def reserve(request: Request) -> Response:
    """Check, and hold the units until they are finalised or released, or their time is over."""
    call = await _call(request, known=_ABOUT | {"idempotencyKey", "expiresInSeconds"})
    return await _take(call, HoldState.RESERVED, _seconds(call.given))


async def finalise(request: Request) -> Response:
    """Say how much of a reservation was really used."""
    call = await _call(request, known={"hold", "quantity"})
    return await _finish(call, HoldState.CONSUMED, _quantity(call.given))


async def release(request: Request) -> Response:
    """Give a reservation back."""
    call = await _call(request, known={"hold"})
    return await _finish(call, HoldState.RELEASED, Decimal(0))


async def _call(request: Request, *, known: frozenset[str] | set[str]) -> _Call:
    runtime: Runtime = request.app.state.runtime
    credential = await identify(runtime, bearer_token(request))
    demand(credential.caller, {Permission.CHECK: request.url.path})
    demand_json(request)
    headers = await take_checks(runtime, credential.caller)
    body = await read_body(request, bytes_max=BODY_BYTES_MAX)
    try:
        given = decode_json(body)
    except Unreadable as error:
        raise Refused(400, "BAD_REQUEST", f"the body cannot be read as JSON: {error}") from error
    if not isinstance(given, dict):
        raise Refused(400, "BAD_REQUEST", "the body is a JSON object")
    if unknown := sorted(given.keys() - known):
        members = ", ".join(sorted(known))
        raise _bad(f"there is no member of this name; there are {members}", field=unknown[0][:100])
    return _Call(runtime, credential.caller.tenant_id, given, headers)


async def _take(call: _Call, state: HoldState, seconds: int) -> Response:
    key = _text(call.given, "idempotencyKey", length_max=KEY_LENGTH_MAX)
    if key is None:
        raise _bad(
            "give the idempotencyKey that the event of this usage will have",
            field="idempotencyKey",
        )
    ask, wanted = _ask(call), Take(key=key, state=state, seconds=seconds)
    try:
        async with answered_within(CHECK_TIMEOUT_SECONDS):
            decision = await gate.take(call.runtime, call.tenant_id, ask, wanted)
    except (Conflict, Invalid) as error:
        raise _refused(error) from error
    told = _told(decision) | {"hold": _held(decision.hold)}
    return json_response(told, headers=call.headers)


async def _finish(call: _Call, state: HoldState, quantity: Decimal) -> Response:
    hold = _text(call.given, "hold", length_max=NAME_LENGTH_MAX)
    if hold is None:
        raise _bad("give the id of the hold", field="hold")
    try:
        async with answered_within(CHECK_TIMEOUT_SECONDS):
            held = await gate.finish(
                call.runtime, call.tenant_id, hold, state=state, quantity=quantity
            )
    except (Conflict, NotFound) as error:
        raise _refused(error) from error
    return json_response({"hold": _held(held)}, headers=call.headers)


def _ask(call: _Call) -> Ask:
    customer = _text(call.given, "customer", length_max=NAME_LENGTH_MAX)
    key = _text(call.given, "apiKey", length_max=NAME_LENGTH_MAX)
    feature = _text(call.given, "feature", length_max=NAME_LENGTH_MAX)
    meter = _text(call.given, "meter", length_max=NAME_LENGTH_MAX)
    if (customer is None) == (key is None):
        raise _bad("give one of customer and apiKey", field="customer")
    if (feature is None) == (meter is None):
        raise _bad("give one of feature and meter", field="feature")
    pepper = call.runtime.settings.key_pepper
    return Ask(
        customer=customer,
        key_hash=None if key is None else hash_customer_key(key, pepper=pepper),
        feature=feature,
        meter=meter,
        quantity=_quantity(call.given, default=Decimal(1)),
    )


def _quantity(given: Mapping[str, Any], *, default: Decimal | None = None) -> Decimal:
    quantity = given.get("quantity")
    if quantity is None and default is not None:
        return default
    if isinstance(quantity, bool) or not isinstance(quantity, str | int | Decimal):
        raise _bad('a quantity is a plain decimal number as text, such as "1"', field="quantity")
    try:
        return parse_quantity(quantity, field="quantity")
    except Invalid as error:
        raise _refused(error) from error


def _seconds(given: Mapping[str, Any]) -> int:
    seconds = given.get("expiresInSeconds", RESERVED_SECONDS_DEFAULT)
    is_whole = isinstance(seconds, int) and not isinstance(seconds, bool)
    if not is_whole or not 1 <= seconds <= RESERVED_SECONDS_MAX:
        raise _bad(
            f"a reservation is kept for 1 to {RESERVED_SECONDS_MAX:,} whole seconds",
            field="expiresInSeconds",
        )
    return int(seconds)


def _text(given: Mapping[str, Any], name: str, *, length_max: int) -> str | None:
    text = given.get(name)
    if text is None:
        return None
    # What PostgreSQL cannot hold, and half of a character, names nothing.
    is_text = isinstance(text, str) and 0 < len(text) <= length_max and "\x00" not in text
    if not is_text or any("\ud800" <= each <= "\udfff" for each in text):
        raise _bad(f"{name} is a text of 1 to {length_max} characters", field=name)
    return str(text)


def _told(decision: Decision) -> dict[str, Any]:
    use = decision.use
    return {
        "customer": decision.customer,
        "allowed": decision.allowed,
        "reason": decision.reason.value,
        "limit": _number(use.limit if use else None),
        "used": _number(use.used if use else None),
        "remaining": _number(use.remaining if use else None),
        "resetAt": _moment(decision.resets_at),
        "throttle": _throttle(decision.throttle),
        "degraded": decision.degraded,
        "version": decision.version,
        "maxAgeSeconds": decision.max_age_seconds,
    }


def _throttle(throttle: Throttle | None) -> dict[str, Any] | None:
    if throttle is None:
        return None
    return {
        "ratePerSecond": _number(throttle.rate_per_second),
        "percent": throttle.percent,
        "until": _moment(throttle.until),
    }


def _held(held: Held | None) -> dict[str, Any] | None:
    if held is None:
        return None
    return {
        "id": held.id,
        "state": held.state,
        "quantity": _number(held.quantity),
        "expiresAt": _moment(held.expires_at),
    }


def _number(value: Decimal | None) -> str | None:
    return None if value is None else number(Decimal(f"{value:f}"))


def _moment(at: datetime | None) -> str | None:
    return None if at is None else show_moment(at)


def _bad(message: str, *, field: str) -> Refused:
    return Refused(400, "BAD_REQUEST", message, field=field)


def _refused(error: Conflict | Invalid | NotFound) -> Refused:
    status = next(status for kind, status in _STATUSES.items() if isinstance(error, kind))
    return Refused(status, error.code, error.message, field=error.field)
