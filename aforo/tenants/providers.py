"""Identity providers: which one a tenant trusts, and what each says of itself, kept for a while."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from aforo.sdk.errors import Invalid, NotFound
from aforo.sdk.ids import TenantId
from aforo.storage.addresses import UrlNotAllowed
from aforo.storage.egress import CallFailed
from aforo.storage.scope import Runtime, Scope
from aforo.storage.secrets import Place
from aforo.tenants.addresses import domain_of
from aforo.tenants.grants import Granter
from aforo.tenants.models import IdentityProvider, SignInMethod
from aforo.tenants.oidc import Metadata, NotSignedIn, key_for, keys_of, metadata_of
from aforo.tenants.permissions import Role
from aforo.tenants.sessions import end_sessions_by

DISCOVERY = "/.well-known/openid-configuration"
KEPT_FOR = timedelta(hours=1)
FAILURE_KEPT_FOR = timedelta(seconds=30)
"""So that strangers who ask for a broken provider cause no storm of calls."""
KEYS_ANEW_AFTER = timedelta(minutes=1)
"""A token of an unknown key is a reason to look again, but no more often."""
PROVIDERS_KEPT_MAX = 200
DOCUMENT_BYTES_MAX = 256 * 1024
DOMAINS_MAX = 20
TEXT_CHARACTERS_MAX = 500


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """What an owner says of the provider. The secret is write-only: None leaves it as it is."""

    issuer: str
    client_id: str
    client_secret: str | None
    domains: Sequence[str]
    default_role: Role | None


async def identity_provider(scope: Scope) -> IdentityProvider | None:
    """The tenant's provider, if it has one."""
    row: IdentityProvider | None = await scope.db.scalar(sa.select(IdentityProvider))
    return row


async def set_identity_provider(
    runtime: Runtime, scope: Scope, *, granter: Granter, settings: ProviderSettings
) -> IdentityProvider:
    """Trust a provider; sessions that began at another one end. Raises `Invalid`."""
    _check_owner(granter)
    if settings.default_role is not None:
        if settings.default_role is Role.OWNER:
            raise Invalid("nobody becomes an owner uninvited", field="defaultRole")
        granter.check_may_give(settings.default_role, field="defaultRole")
    issuer = settings.issuer.strip()
    runtime.egress.walls.target(issuer, field="issuer")
    if "?" in issuer:
        raise Invalid("an issuer is a URL without a query", field="issuer")
    domains = _domains(settings.domains)
    client_id = _text(settings.client_id, field="clientId")
    row = await scope.db.scalar(sa.select(IdentityProvider).with_for_update())
    is_same = row is not None and (row.issuer, row.client_id) == (issuer, client_id)
    if settings.client_secret is None and not is_same:
        # Else the secret of one provider would be sent to whoever is named next.
        raise Invalid("another issuer or client needs its own secret", field="clientSecret")
    if row is None:
        row = IdentityProvider(issuer="", client_id="", client_secret=b"", domains=[])
        scope.db.add(row)
    elif row.issuer != issuer:
        await end_sessions_by(scope, SignInMethod.OIDC)
    row.issuer, row.client_id = issuer, client_id
    row.domains, row.default_role = domains, settings.default_role
    if settings.client_secret is not None:
        secret = _text(settings.client_secret, field="clientSecret")
        row.client_secret = (await scope.data_key()).seal(secret, _place(row))
    await scope.db.flush()
    return row


async def remove_identity_provider(
    scope: Scope, *, granter: Granter, issuer: str
) -> IdentityProvider:
    """Trust no provider any more; sessions that began there end. Raises `NotFound`, `Invalid`."""
    _check_owner(granter)
    row = await scope.db.scalar(sa.select(IdentityProvider).with_for_update())
    if row is None or row.issuer != issuer:
        raise NotFound("the tenant has no such identity provider", field="issuer")
    await scope.db.delete(row)
    await end_sessions_by(scope, SignInMethod.OIDC)
    await scope.db.flush()
    return row


async def client_secret_of(scope: Scope, row: IdentityProvider) -> str:
    """What we prove ourselves with to the provider."""
    return (await scope.data_key()).unseal(row.client_secret, _place(row)).decode()


@dataclass(slots=True)
class _Known:
    """What a provider said, and when."""

    at: datetime
    metadata: Metadata | None = None
    keys: list[Mapping[str, Any]] | None = None
    keys_at: datetime | None = None
    failure: str | None = None
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Providers:
    """What providers say of themselves, asked through the walls and kept for an hour."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: OrderedDict[tuple[TenantId, str], _Known] = OrderedDict()
        # Of each tenant by itself: what keeps one from reaching a provider is none of another's.

    async def metadata(self, tenant_id: TenantId, issuer: str) -> Metadata:
        """Where a provider's endpoints are. Raises `NotSignedIn`."""
        known = self._fresh(tenant_id, issuer)
        async with known.asking:  # Strangers who come at once cause one call.
            if known.failure is not None:
                raise NotSignedIn(known.failure)
            if known.metadata is None:
                try:
                    document = await self._document(tenant_id, issuer.rstrip("/") + DISCOVERY)
                    known.metadata = metadata_of(document, issuer=issuer)
                except NotSignedIn as error:
                    known.failure = error.message
                    raise
            return known.metadata

    async def key(self, tenant_id: TenantId, metadata: Metadata, token: str) -> Mapping[str, Any]:
        """The key that signed a token. Raises `NotSignedIn`."""
        known, now = self._fresh(tenant_id, metadata.issuer), self._runtime.clock.now()
        found = key_for(token, known.keys or [])
        if found is None and (known.keys_at is None or known.keys_at + KEYS_ANEW_AFTER <= now):
            known.keys_at = now
            known.keys = keys_of(await self._document(tenant_id, metadata.jwks_uri))
            found = key_for(token, known.keys)
        if found is None:
            raise NotSignedIn("the ID token is signed with a key that its issuer does not publish")
        return found

    async def tokens(
        self, tenant_id: TenantId, metadata: Metadata, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, object]:
        """Status and document of the answer to a token request. Raises `NotSignedIn`."""
        return await self._call(tenant_id, "POST", metadata.token_endpoint, headers, body)

    async def _document(self, tenant_id: TenantId, url: str) -> object:
        headers = {"accept": "application/json"}
        status, document = await self._call(tenant_id, "GET", url, headers, b"")
        if status != 200:
            raise NotSignedIn(f"the identity provider answers with status {status} at {url}")
        return document

    async def _call(
        self, tenant_id: TenantId, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, object]:
        try:
            answer = await self._runtime.egress.call(
                method,
                url,
                tenant_id=tenant_id,
                headers=headers,
                body=body,
                bytes_max=DOCUMENT_BYTES_MAX,
            )
        except (CallFailed, UrlNotAllowed) as error:
            raise NotSignedIn(f"the identity provider cannot be reached: {error}") from error
        try:
            return answer.status, msgspec.json.decode(answer.body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return answer.status, None

    def _fresh(self, tenant_id: TenantId, issuer: str) -> _Known:
        key, now = (tenant_id, issuer), self._runtime.clock.now()
        known = self._known.get(key)
        if known is not None:
            kept_for = FAILURE_KEPT_FOR if known.failure else KEPT_FOR
            if known.at <= now < known.at + kept_for:
                self._known.move_to_end(key)
                return known
        known = self._known[key] = _Known(now)
        self._known.move_to_end(key)
        while len(self._known) > PROVIDERS_KEPT_MAX:
            self._known.popitem(last=False)
        return known


def _check_owner(granter: Granter) -> None:
    # A provider says who anybody is, owners among them.
    if granter.role is not Role.OWNER:
        raise Invalid("only an owner says whom the tenant trusts", code="ROLE_NOT_HELD")


def _domains(given: Sequence[str]) -> list[str]:
    if not 1 <= len(given) <= DOMAINS_MAX:
        raise Invalid(f"a provider speaks for 1 to {DOMAINS_MAX} domains", field="domains")
    return sorted({domain_of(each, field=f"domains.{at}") for at, each in enumerate(given)})


def _text(value: str, *, field: str) -> str:
    if not 1 <= len(value) <= TEXT_CHARACTERS_MAX or not value.isprintable():
        raise Invalid(f"this has 1 to {TEXT_CHARACTERS_MAX} characters", field=field)
    return value


def _place(row: IdentityProvider) -> Place:
    return Place("identity_provider", "client_secret", row.id)
