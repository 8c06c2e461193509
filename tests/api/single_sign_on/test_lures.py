"""Links to a sign-in that others laid: a person is asked, and no session is lost unasked."""

from collections.abc import AsyncIterator

import pytest

from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.tenants.commands import create_tenant
from tests.api.people import Browser, error_of, member
from tests.api.single_sign_on.flow import at_provider, sign_in, start, start_path, trust
from tests.api.single_sign_on.provider import Provider

pytestmark = pytest.mark.anyio

SAME = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
async def ann(runtime: Runtime, mark: str) -> AsyncIterator[Browser]:
    """Somebody of another tenant, signed in there by password."""
    home = TenantId((await create_tenant(runtime, name="<Home>")).tenant.tenant_id)
    async with await member(runtime, home, f"ann@{mark}.example") as opened:
        del opened.client.headers["Sec-Fetch-Site"]
        yield opened


async def email_of(browser: Browser) -> str:
    email: str = (await browser.get("/auth/session")).json()["member"]["email"]
    return email


async def test_a_page_of_ours_sends_a_browser_on_at_once(
    bea: Browser, owner: Browser, provider: Provider, tenant_id: TenantId, mark: str
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    begun = await bea.client.get(start_path(tenant_id), headers=SAME)
    assert begun.status_code == 303
    assert (await bea.get(await at_provider(begun))).status_code == 303
    assert await email_of(bea) == f"bea@{mark}.example"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", None])
async def test_whoever_comes_by_a_link_is_asked_first(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    tenant_id: TenantId,
    mark: str,
    site: str | None,
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    headers = {"Sec-Fetch-Site": site} if site else {}
    path = f"{start_path(tenant_id)}?returnTo=/there"
    asked = await bea.client.get(path, headers=headers)
    assert (asked.status_code, asked.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert f"Sign in at {provider.issuer.removeprefix('http://')}?" in asked.text
    assert "frame-ancestors 'none'" in asked.headers["content-security-policy"]
    assert not bea.client.cookies
    assert provider.asked == []
    assert '<form method="post">' in asked.text  # To the same address, `returnTo` included.
    for agreed in (SAME, {"Origin": str(bea.client.base_url)}):
        begun = await bea.client.post(path, headers=agreed)
        back = await bea.get(await at_provider(begun))
        assert (back.status_code, back.headers["location"]) == (303, "/there")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
    ],
)
async def test_no_other_site_agrees_for_a_person(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    tenant_id: TenantId,
    mark: str,
    headers: dict[str, str],
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    refused = await bea.client.post(start_path(tenant_id), headers=headers)
    assert error_of(refused) == (403, "CROSS_SITE")
    assert not bea.client.cookies
    assert provider.asked == []


async def test_a_session_is_left_only_by_whoever_agreed_to_it(
    ann: Browser, owner: Browser, provider: Provider, tenant_id: TenantId, mark: str
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    asked = await ann.client.get(start_path(tenant_id), headers=SAME)
    assert asked.status_code == 200
    assert f"signed in as <b>ann@{mark}.example</b> of <b>&lt;Home&gt;</b>" in asked.text
    assert await email_of(ann) == f"ann@{mark}.example"
    assert (await sign_in(ann, tenant_id)).status_code == 303
    assert await email_of(ann) == f"bea@{mark}.example"


async def test_a_session_that_began_meanwhile_stays(
    bea: Browser, owner: Browser, provider: Provider, tenant_id: TenantId, mark: str
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    back = await at_provider(await start(bea, tenant_id))
    for name, value in owner.client.cookies.items():
        bea.client.cookies.set(name, value, domain="aforo.test")
    refused = await bea.get(back)
    assert error_of(refused) == (409, "SIGNED_IN_MEANWHILE")
    assert f"owner@{mark}.example of Test tenant" in refused.json()["error"]["message"]
    assert await email_of(bea) == f"owner@{mark}.example"
    listed = await owner.graphql("{ members { edges { node { email } } } }")
    emails = [each["node"]["email"] for each in listed["data"]["members"]["edges"]]
    assert emails == [f"owner@{mark}.example"], "nobody joined either"


async def test_agreeing_to_leave_one_session_is_not_agreeing_to_leave_another(
    ann: Browser, owner: Browser, provider: Provider, tenant_id: TenantId, mark: str
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    back = await at_provider(await start(ann, tenant_id))
    ann.client.headers |= SAME
    assert (await ann.sign_in(f"owner@{mark}.example")).status_code == 200
    assert error_of(await ann.get(back)) == (409, "SIGNED_IN_MEANWHILE")
    assert await email_of(ann) == f"owner@{mark}.example"


async def test_the_same_person_may_sign_in_anew(
    bea: Browser, owner: Browser, provider: Provider, tenant_id: TenantId, mark: str
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    # In two tabs, in both of which nobody was signed in yet.
    first = await start(bea, tenant_id)
    kept = dict(bea.client.cookies)
    assert (await sign_in(bea, tenant_id)).status_code == 303
    bea.client.cookies.update(kept)
    assert (await bea.get(await at_provider(first))).status_code == 303
    assert await email_of(bea) == f"bea@{mark}.example"
