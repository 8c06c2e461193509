"""Signing in at an identity provider: who gets in as whom, and what of it stays closed."""

from urllib.parse import parse_qs, urlsplit

import pytest

from aforo.api.parts.relay import global_id
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.tenants.commands import create_tenant
from aforo.tenants.permissions import Role
from tests.api.people import ORIGIN, PASSWORD, Browser, error_of, invitation, member
from tests.api.single_sign_on.flow import role_of, sign_in, start, trust
from tests.api.single_sign_on.provider import Claims, Provider

pytestmark = pytest.mark.anyio


async def test_whoever_was_invited_comes_in_by_a_verified_address(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    runtime: Runtime,
    tenant_id: TenantId,
    mark: str,
) -> None:
    assert (await trust(owner, provider, mark))["__typename"] == "IdentityProvider"
    assert error_of(await sign_in(bea, tenant_id)) == (403, "FORBIDDEN")
    await invitation(runtime, tenant_id, f"bea@{mark}.example", Role.BILLING)
    back = await sign_in(bea, tenant_id, returnTo="/start?x=1")
    assert back.status_code == 303
    assert back.headers["location"] == "/start?x=1"
    session = (await bea.get("/auth/session")).json()
    assert session["member"]["name"] == "Bea B."
    assert session["member"]["role"] == "BILLING"
    assert session["method"] == "OIDC"
    provider.person |= {"email": "renamed@elsewhere.example", "email_verified": False}
    assert (await sign_in(bea, tenant_id)).status_code == 303
    assert (await bea.get("/auth/session")).json()["member"] == session["member"]


async def test_the_request_to_the_provider_has_all_that_the_flow_needs(
    bea: Browser, owner: Browser, provider: Provider, tenant_id: TenantId, mark: str
) -> None:
    made = await trust(owner, provider, mark)
    first, second = [await start(bea, tenant_id) for _ in range(2)]
    asked = parse_qs(urlsplit(first.headers["location"]).query)
    assert asked["redirect_uri"] == [f"{ORIGIN}{made['callbackPath']}"]
    for name in ("state", "nonce", "code_challenge"):
        assert asked[name] != parse_qs(urlsplit(second.headers["location"]).query)[name]
    [cookie] = first.headers.get_list("set-cookie")
    assert cookie.startswith("__Host-aforo_oidc=")
    assert "HttpOnly" in cookie
    assert "Max-Age=600" in cookie


async def test_a_member_of_that_address_is_the_same_person_however_he_signs_in(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    runtime: Runtime,
    tenant_id: TenantId,
    mark: str,
) -> None:
    await trust(owner, provider, mark)
    async with await member(runtime, tenant_id, f"bea@{mark}.example", Role.ADMIN) as before:
        known = (await before.get("/auth/session")).json()["member"]
    assert (await sign_in(bea, tenant_id)).status_code == 303
    assert (await bea.get("/auth/session")).json()["member"] == known


async def test_whoever_comes_uninvited_gets_the_default_role(
    bea: Browser, owner: Browser, provider: Provider, tenant_id: TenantId, mark: str
) -> None:
    made = await trust(owner, provider, mark, defaultRole="ANALYST")
    assert made["defaultRole"] == "ANALYST"
    assert (await sign_in(bea, tenant_id)).status_code == 303
    assert await role_of(bea) == "ANALYST"


async def test_whoever_was_removed_comes_back_by_invitation_alone(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    runtime: Runtime,
    tenant_id: TenantId,
    mark: str,
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    await sign_in(bea, tenant_id)
    me = (await bea.get("/auth/session")).json()["member"]["id"]
    await owner.graphql(
        "mutation($id: ID!) { removeMember(input: {memberId: $id}) { __typename } }", id=me
    )
    assert not await bea.is_signed_in()
    assert error_of(await sign_in(bea, tenant_id)) == (403, "FORBIDDEN")
    await invitation(runtime, tenant_id, f"bea@{mark}.example", Role.SUPPORT)
    provider.person["sub"] = f"another-{mark}"
    assert (await sign_in(bea, tenant_id)).status_code == 303
    assert await role_of(bea) == "SUPPORT"


@pytest.mark.parametrize(
    "person",
    [
        {"email_verified": False},
        {"email_verified": None},
        {"email_verified": "yes"},
        {"email": None},
        {"email": ["bea@example.com"]},
        {"email": "bea@elsewhere.example"},
        {"email": "bea@sub.{mark}.example"},
        {"email": "bea@{mark}.example.evil.test"},
    ],
)
async def test_an_address_that_is_not_vouched_for_lets_nobody_in(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    runtime: Runtime,
    tenant_id: TenantId,
    mark: str,
    person: Claims,
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    await invitation(runtime, tenant_id, f"bea@{mark}.example", Role.ADMIN)
    told = {
        name: value.format(mark=mark) if isinstance(value, str) else value
        for name, value in person.items()
    }
    provider.person |= told
    assert error_of(await sign_in(bea, tenant_id)) == (403, "FORBIDDEN")
    assert not await bea.is_signed_in()


async def test_an_address_that_went_to_another_person_is_not_that_member(
    bea: Browser, owner: Browser, provider: Provider, tenant_id: TenantId, mark: str
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    assert (await sign_in(bea, tenant_id)).status_code == 303
    await bea.get("/auth/csrf")
    provider.person["sub"] = f"another-{mark}"
    bea.client.cookies.clear()
    assert error_of(await sign_in(bea, tenant_id)) == (403, "FORBIDDEN")
    assert not await bea.is_signed_in()


async def test_a_provider_reaches_nothing_of_the_same_persons_other_tenants(
    bea: Browser,
    owner: Browser,
    provider: Provider,
    runtime: Runtime,
    tenant_id: TenantId,
    mark: str,
) -> None:
    email = f"bea@{mark}.example"
    elsewhere = TenantId((await create_tenant(runtime, name="Elsewhere")).tenant.tenant_id)
    async with await member(runtime, elsewhere, email) as by_password:
        await trust(owner, provider, mark, defaultRole="ADMIN")
        assert (await sign_in(bea, tenant_id)).status_code == 303
        session = (await bea.get("/auth/session")).json()
        assert [each["name"] for each in session["tenants"]] == ["Test tenant"]
        bea.csrf = (await bea.get("/auth/csrf")).json()["csrfToken"]
        for path, body in (
            ("/auth/tenant", {"tenant": global_id("Tenant", elsewhere)}),
            ("/auth/password", {"password": PASSWORD, "newPassword": "taken over by now"}),
            ("/auth/totp/enrol", {"password": PASSWORD}),
            ("/auth/totp/confirm", {"code": "123456"}),
            ("/auth/totp/remove", {"password": PASSWORD, "code": "123456"}),
        ):
            assert error_of(await bea.post(path, **body)) == (403, "FORBIDDEN"), path
        sessions = (await bea.get("/auth/sessions")).json()["sessions"]
        assert [each["isCurrent"] for each in sessions] == [True]
        assert (await bea.post("/auth/sign-out-everywhere")).status_code == 204
        assert await by_password.is_signed_in()
        session = (await by_password.get("/auth/session")).json()
        assert [each["name"] for each in session["tenants"]] == ["Elsewhere"]
