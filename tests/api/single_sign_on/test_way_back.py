"""The way back from a provider: taken once, in time, by the browser that began it."""

import asyncio
import dataclasses
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx2
import pytest

from aforo.api.parts.relay import global_id
from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.tenants.commands import create_tenant
from tests.api.people import Browser, browser, error_of, member
from tests.api.single_sign_on.flow import at_provider, changed, sign_in, start, trust
from tests.api.single_sign_on.provider import Provider, providing

pytestmark = pytest.mark.anyio


async def test_an_answer_is_taken_once(
    bea: Browser, owner: Browser, provider: Provider, tenant_id: TenantId, mark: str
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    first = await start(bea, tenant_id)
    kept = dict(bea.client.cookies)
    back = await at_provider(first)
    assert (await bea.get(back)).status_code == 303
    bea.client.cookies.clear()
    bea.client.cookies.update(kept)
    code_again = await bea.get(back)
    assert error_of(code_again) == (401, "SIGN_IN_FAILED")
    assert code_again.json()["error"]["message"].endswith(": invalid_grant")
    fresh_code = await bea.get(await at_provider(first))
    assert error_of(fresh_code) == (409, "STATE_USED")
    assert not await bea.is_signed_in()


async def test_an_answer_to_another_browser_is_not_taken(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    runtime: Runtime,
    tenant_id: TenantId,
    mark: str,
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    back = await at_provider(await start(bea, tenant_id))
    async with browser(runtime) as victim:
        assert error_of(await victim.get(back)) == (401, "SIGN_IN_FAILED")
        await start(victim, tenant_id)
        assert error_of(await victim.get(back)) == (401, "SIGN_IN_FAILED")
        assert not await victim.is_signed_in()
    for wrong in ({"state": "x"}, {"state": "é"}, {"code": ""}, {"iss": "https://evil.test"}):
        assert error_of(await bea.get(changed(back, **wrong))) == (401, "SIGN_IN_FAILED")
    assert (await bea.get(back)).status_code == 303


async def test_the_provider_of_one_tenant_gets_no_code_of_anothers(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    runtime: Runtime,
    tenant_id: TenantId,
    clock: MovableClock,
    mark: str,
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    evil = (await create_tenant(runtime, name="Evil")).tenant
    evil_id = TenantId(evil.tenant_id)
    async with (
        providing(clock) as theirs,
        await member(runtime, evil_id, f"eve@{mark}.example") as eve,
        browser(runtime) as thief,
    ):
        await trust(eve, theirs, mark)
        # Eve's own sign-in at Bea's tenant, the code for which is to be Bea's.
        wanted = (await start(thief, tenant_id)).headers["location"]
        # Bea follows a link to Eve's tenant, whose provider sends her on to her own one, with
        # the state of where she is and all else of Eve's request; an answer names no issuer.
        lured = parse_qs(urlsplit((await start(bea, evil_id)).headers["location"]).query)
        async with httpx2.AsyncClient() as client:
            sent_on = await client.get(changed(wanted, state=lured["state"][0]))
        back = sent_on.headers["location"].partition("&iss=")[0]
        assert error_of(await bea.get(back)) == (401, "SIGN_IN_FAILED")
        assert "/token" not in theirs.asked
        there = back.replace(global_id("Tenant", tenant_id), global_id("Tenant", evil_id))
        assert error_of(await bea.get(there)) == (401, "SIGN_IN_FAILED")
        assert theirs.asked[-1] == "/token", "only what was sent to it reaches it"


async def test_a_sign_in_takes_ten_minutes_at_most(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    tenant_id: TenantId,
    mark: str,
    clock: MovableClock,
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    back = await at_provider(await start(bea, tenant_id))
    clock.advance(timedelta(minutes=10))
    assert error_of(await bea.get(back)) == (401, "SIGN_IN_FAILED")


async def test_the_providers_own_refusal_is_passed_on_as_its_code_alone(
    bea: Browser, owner: Browser, provider: Provider, tenant_id: TenantId, mark: str
) -> None:
    await trust(owner, provider, mark)
    back = await at_provider(await start(bea, tenant_id))
    for error, said in (("access_denied", ": access_denied"), ("<script>", "sign-in")):
        refused = await bea.get(changed(back, error=error))
        assert error_of(refused) == (401, "SIGN_IN_FAILED")
        assert refused.json()["error"]["message"].endswith(said)


@pytest.mark.parametrize(
    "return_to", ["//evil.test", "/\\evil.test", "https://evil.test", "", "start", "/a\\b", "/ä"]
)
async def test_nobody_is_sent_to_another_site_in_the_end(
    bea: Browser, owner: Browser, provider: Provider, tenant_id: TenantId, mark: str, return_to: str
) -> None:
    await trust(owner, provider, mark)
    refused = await start(bea, tenant_id, returnTo=return_to)
    assert error_of(refused) == (400, "BAD_REQUEST")


async def test_a_tenant_without_a_provider_is_answered_as_one_that_does_not_exist(
    bea: Browser, runtime: Runtime, tenant_id: TenantId
) -> None:
    known, unknown = [await start(bea, each) for each in (tenant_id, TenantId(uuid4()))]
    assert error_of(known) == (404, "NOT_FOUND")
    assert known.content == unknown.content
    assert error_of(await bea.get("/auth/oidc/x/start")) == (422, "BAD_ID")


async def test_without_a_known_origin_nobody_is_sent_anywhere(
    owner: Browser, provider: Provider, runtime: Runtime, tenant_id: TenantId, mark: str
) -> None:
    await trust(owner, provider, mark)
    settings = dataclasses.replace(runtime.settings, public_url="")
    async with browser(dataclasses.replace(runtime, settings=settings)) as opened:
        opened.client.headers["Host"] = "evil.test"
        assert error_of(await start(opened, tenant_id)) == (503, "PUBLIC_URL_NEEDED")


@pytest.mark.parametrize("down", [set(), {"/.well-known/openid-configuration"}])
async def test_a_crowd_of_strangers_causes_one_call(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    tenant_id: TenantId,
    mark: str,
    down: set[str],
) -> None:
    await trust(owner, provider, mark)
    provider.down = down
    answers = await asyncio.gather(*(start(bea, tenant_id) for _ in range(5)))
    assert {each.status_code for each in answers} == {401 if down else 303}
    assert provider.asked == ["/.well-known/openid-configuration"]


async def test_a_provider_that_takes_its_secret_in_the_body_gets_it_there(
    bea: Browser, owner: Browser, provider: Provider, tenant_id: TenantId, mark: str
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    provider.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert (await sign_in(bea, tenant_id)).status_code == 303
