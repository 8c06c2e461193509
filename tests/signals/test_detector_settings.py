"""The settings of detectors, for a tenant and for a customer of it."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from aforo.sdk import (
    Invalid,
    NotFound,
)
from aforo.sdk.ids import TenantId
from aforo.signals import queries
from aforo.signals.commands import set_detector_settings
from aforo.signals.models import DetectorSettings
from aforo.storage.scope import Runtime
from tests.shop import open_shop

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
Run = Callable[[], Awaitable[None]]


async def test_the_latest_settings_are_in_force_and_empty_ones_give_them_up(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    for settings in ({"l3": "0.50"}, {"l3": "0.60", "l1": "0.05"}, {}):
        async with runtime.scope(tenant_id) as scope:
            await set_detector_settings(scope, detector="margin_guard", settings=settings)
            chosen = await queries.settings_in_force(scope, "margin_guard")
            assert chosen == {None: settings}


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"l3": "0.05"}, "settings.l2"),
        ({"l3": "NaN"}, "settings.l3"),
        ({"l3": 0.5}, "settings.l3"),
        ({"lossFloor": "0"}, "settings.lossFloor"),
        ({"unheardOf": 1}, "settings.unheardOf"),
    ],
)
async def test_settings_that_do_not_fit_are_refused_and_nothing_is_written(
    runtime: Runtime, tenant_id: TenantId, settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as told:
        async with runtime.scope(tenant_id) as scope:
            await set_detector_settings(scope, detector="margin_guard", settings=settings)
    assert told.value.field == field
    async with runtime.scope(tenant_id) as scope:
        assert (await scope.db.scalar(sa.select(DetectorSettings))) is None


async def test_the_tenants_settings_must_go_together_with_each_customers(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    shop = await open_shop(runtime, tenant_id)
    acme = shop.customers["acme"]
    async with runtime.scope(tenant_id) as scope:
        await set_detector_settings(
            scope, detector="margin_guard", customer_id=acme, settings={"l3": "0.15"}
        )
    with pytest.raises(Invalid, match=str(acme)):
        async with runtime.scope(tenant_id) as scope:
            await set_detector_settings(
                scope, detector="margin_guard", settings={"l3": "0.30", "l2": "0.18"}
            )


@pytest.mark.parametrize(
    ("detector", "customer", "field"),
    [("nobody", None, "detector"), ("margin_guard", UUID(int=1), "customerId")],
)
async def test_settings_for_what_is_not_there_are_refused(
    runtime: Runtime, tenant_id: TenantId, detector: str, customer: UUID | None, field: str
) -> None:
    with pytest.raises(NotFound) as told:
        async with runtime.scope(tenant_id) as scope:
            await set_detector_settings(scope, detector=detector, customer_id=customer, settings={})
    assert told.value.field == field
