"""An endpoint's secrets at rest: sealed in their column, opened only to sign a call."""

from uuid import UUID

from aforo.storage.scope import Scope
from aforo.storage.secrets import Place
from aforo.webhooks.models import WebhookEndpoint


async def sealed(scope: Scope, endpoint_id: UUID, secret: str, *, column: str) -> bytes:
    """What to store of a secret."""
    return (await scope.data_key()).seal(secret, _place(endpoint_id, column))


async def secrets_in_force(scope: Scope, endpoint: WebhookEndpoint) -> tuple[str, ...]:
    """The secrets that sign now: the new one, and as long as they overlap the one before."""
    key = await scope.data_key()
    found = [key.unseal(endpoint.secret, _place(endpoint.id, "secret"))]
    if endpoint.previous_secret is not None and _overlaps(scope, endpoint):
        place = _place(endpoint.id, "previous_secret")
        found.append(key.unseal(endpoint.previous_secret, place))
    return tuple(secret.decode() for secret in found)


def _overlaps(scope: Scope, endpoint: WebhookEndpoint) -> bool:
    return endpoint.previous_until is not None and scope.now < endpoint.previous_until


def _place(endpoint_id: UUID, column: str) -> Place:
    return Place("webhook_endpoint", column, endpoint_id)
