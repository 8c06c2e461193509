"""A provider within reach, an owner who may trust it, and a browser that nobody used yet."""

import dataclasses
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from aforo.sdk.ids import TenantId
from aforo.storage.addresses import Walls
from aforo.storage.clock import MovableClock
from aforo.storage.egress import Egress
from aforo.storage.scope import Runtime
from tests.api.people import ORIGIN, Browser, browser, member
from tests.api.single_sign_on.provider import Provider, providing


@pytest.fixture
def mark() -> str:
    return uuid4().hex[:12]


@pytest.fixture
def runtime(runtime: Runtime) -> Runtime:
    """With a known origin, and a provider within reach."""
    settings = dataclasses.replace(runtime.settings, public_url=ORIGIN)
    egress = Egress(Walls(allow_loopback=True))
    return dataclasses.replace(runtime, settings=settings, egress=egress)


@pytest.fixture
async def provider(clock: MovableClock, mark: str) -> AsyncIterator[Provider]:
    """Knows Bea, whose address it verified."""
    email = f"bea@{mark}.example"
    person = {"sub": f"bea-{mark}", "email": email, "email_verified": True, "name": "Bea B."}
    async with providing(clock, **person) as opened:
        yield opened


@pytest.fixture
async def owner(runtime: Runtime, tenant_id: TenantId, mark: str) -> AsyncIterator[Browser]:
    async with await member(runtime, tenant_id, f"owner@{mark}.example") as opened:
        yield opened


@pytest.fixture
async def bea(runtime: Runtime) -> AsyncIterator[Browser]:
    """A browser in which nobody is signed in yet."""
    async with browser(runtime) as opened:
        del opened.client.headers["Sec-Fetch-Site"]
        yield opened
