"""What a provider must not say: each of its lies lets nobody in."""

from collections.abc import Callable
from datetime import timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.tenants.commands import create_tenant
from tests.api.people import Browser, error_of, member
from tests.api.single_sign_on.flow import sign_in, start, trust
from tests.api.single_sign_on.provider import CLIENT_ID, CLIENT_SECRET, Claims, Provider

pytestmark = pytest.mark.anyio


def unsigned(_provider: Provider, claims: Claims) -> str:
    return jwt.encode(claims, None, algorithm="none")  # type: ignore[arg-type]


def of_a_strange_key(provider: Provider, claims: Claims) -> str:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    named = next(reversed(provider.keys))
    return jwt.encode(claims, stranger, algorithm="RS256", headers={"kid": named})


def of_an_unknown_key(provider: Provider, claims: Claims) -> str:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return jwt.encode(claims, stranger, algorithm="RS256", headers={"kid": "unknown"})


def with_the_clients_secret(_provider: Provider, claims: Claims) -> str:
    key = CLIENT_SECRET.ljust(32, "x")
    return jwt.encode(claims, key, algorithm="HS256", headers={"kid": "shared"})


def tampered(provider: Provider, claims: Claims) -> str:
    head, _, signature = provider.signed(claims).split(".")
    other = provider.signed({**claims, "sub": "the owner"}).split(".")[1]
    return f"{head}.{other}.{signature}"


@pytest.mark.parametrize(
    "sign",
    [
        unsigned,
        of_a_strange_key,
        of_an_unknown_key,
        with_the_clients_secret,
        tampered,
        lambda _provider, _claims: "x.y.z",
        lambda _provider, _claims: "",
        lambda _provider, _claims: None,
    ],
)
async def test_a_token_that_the_provider_did_not_sign_lets_nobody_in(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    tenant_id: TenantId,
    mark: str,
    sign: Callable[[Provider, Claims], str],
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    provider.sign = sign
    assert error_of(await sign_in(bea, tenant_id)) == (401, "SIGN_IN_FAILED")
    assert not await bea.is_signed_in()


@pytest.mark.parametrize(
    "lie",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another client"},
        {"aud": [CLIENT_ID, "another client"]},
        {"aud": [CLIENT_ID, "another client"], "azp": "another client"},
        {"azp": "another client"},
        {"iss": "https://another.example"},
        {"exp": lambda now: now - 61},
        {"iat": lambda now: now + 61},
        {"iat": lambda now: now - 661},
        {"nbf": lambda now: now + 61},
        {"exp": "tomorrow"},
        {"exp": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
        {"sub": 7},
    ],
    ids=",".join,
)
async def test_a_token_that_says_something_wrong_lets_nobody_in(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    tenant_id: TenantId,
    mark: str,
    clock: MovableClock,
    lie: Claims,
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    now = int(clock.now().timestamp())
    told = {name: value(now) if callable(value) else value for name, value in lie.items()}

    def lying(claims: Claims) -> Claims:
        kept = {**claims, **told}
        return {name: value for name, value in kept.items() if value is not None}

    provider.lie = lying
    assert error_of(await sign_in(bea, tenant_id)) == (401, "SIGN_IN_FAILED")
    assert not await bea.is_signed_in()


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://another.example"},
        {"token_endpoint": None},
        {"jwks_uri": 7},
        {"authorization_endpoint": "javascript:alert(1)"},
    ],
    ids=str,
)
async def test_a_configuration_that_is_none_starts_nothing(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    tenant_id: TenantId,
    mark: str,
    metadata: Claims,
) -> None:
    await trust(owner, provider, mark)
    provider.metadata = metadata
    refused = await start(bea, tenant_id)
    assert error_of(refused) == (401, "SIGN_IN_FAILED")


@pytest.mark.parametrize("path", ["/token", "/jwks"])
async def test_a_provider_that_is_down_on_the_way_back_lets_nobody_in(
    bea: Browser, owner: Browser, provider: Provider, tenant_id: TenantId, mark: str, path: str
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    provider.down = {path}
    assert error_of(await sign_in(bea, tenant_id)) == (401, "SIGN_IN_FAILED")
    assert not await bea.is_signed_in()


async def test_a_provider_that_is_down_is_asked_again_after_half_a_minute(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    tenant_id: TenantId,
    mark: str,
    clock: MovableClock,
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    provider.down = {"/.well-known/openid-configuration"}
    for _ in range(3):
        refused = await start(bea, tenant_id)
        assert error_of(refused) == (401, "SIGN_IN_FAILED")
        assert "503" in refused.json()["error"]["message"]
    assert len(provider.asked) == 1
    provider.down = set()
    clock.advance(timedelta(seconds=30))
    assert (await sign_in(bea, tenant_id)).status_code == 303


async def test_what_one_tenant_fails_to_reach_is_not_lost_to_another(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    runtime: Runtime,
    tenant_id: TenantId,
    mark: str,
) -> None:
    # One that uses up its own look-ups could else name another's provider, and keep people out.
    await trust(owner, provider, mark, defaultRole="ANALYST")
    evil_id = TenantId((await create_tenant(runtime, name="Evil")).tenant.tenant_id)
    async with await member(runtime, evil_id, f"eve@{mark}.example") as eve:
        await trust(eve, provider, mark)
    provider.down = {"/.well-known/openid-configuration"}
    assert error_of(await start(bea, evil_id)) == (401, "SIGN_IN_FAILED")
    provider.down = set()
    assert error_of(await start(bea, evil_id)) == (401, "SIGN_IN_FAILED")
    assert (await sign_in(bea, tenant_id)).status_code == 303


async def test_configuration_and_keys_are_kept_for_an_hour_and_new_keys_are_noticed(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    tenant_id: TenantId,
    mark: str,
    clock: MovableClock,
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")

    async def asked() -> list[str]:
        provider.asked.clear()
        assert (await sign_in(bea, tenant_id)).status_code == 303
        return [each for each in provider.asked if each not in {"/authorize", "/token"}]

    assert await asked() == ["/.well-known/openid-configuration", "/jwks"]
    assert await asked() == []
    clock.advance(timedelta(minutes=2))
    provider.new_key()
    assert await asked() == ["/jwks"]
    clock.advance(timedelta(hours=1))
    assert await asked() == ["/.well-known/openid-configuration", "/jwks"]
