"""Detectors of other plugins: one that fails, one that wants more, one that nobody can ask."""

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from aforo import worker
from aforo.sdk import (
    Detection,
    Detector,
    Level,
    MarginEvidence,
    PluginError,
)
from aforo.sdk.ids import TenantId
from aforo.signals.commands import detect, set_detector_settings
from aforo.storage.jobs import Job, JobName, JobState
from aforo.storage.scope import Runtime
from tests.shop import call, open_shop, signals_of

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
Run = Callable[[], Awaitable[None]]


class Broken(Detector[MarginEvidence]):
    """Fails whatever it is asked."""

    key = "acme.broken"
    summary = "Fails"
    evidence = MarginEvidence

    def detect(self, evidence: MarginEvidence) -> Detection | None:  # noqa: ARG002
        raise RuntimeError("out of order")


class Demanding(Detector[MarginEvidence]):
    """Has a setting without a default."""

    key = "acme.demanding"
    summary = "Needs a limit"
    evidence = MarginEvidence

    ceiling: Decimal

    def detect(self, evidence: MarginEvidence) -> Detection | None:
        if evidence.cogs <= self.ceiling:
            return None
        return Detection(
            level=Level.ALERT,
            threshold="ceiling",
            value=evidence.cogs,
            limit=self.ceiling,
            explanation="COGS are above the ceiling.",
        )


class Stranger(Detector[Any]):
    """Wants evidence that nobody builds."""

    key = "acme.stranger"
    summary = "Wants the weather"
    evidence = dict

    def detect(self, evidence: Any) -> Detection | None:  # noqa: ARG002
        return None


def with_detectors(runtime: Runtime, *kinds: type[Detector[Any]]) -> Runtime:
    """The runtime with more detectors, as if their plugins were installed."""
    known: Mapping[str, type[Detector[Any]]] = {
        **runtime.plugins.detectors,
        **{kind.key: kind for kind in kinds},
    }
    plugins = dataclasses.replace(runtime.plugins, detectors=MappingProxyType(dict(known)))
    return dataclasses.replace(runtime, plugins=plugins)


async def test_a_broken_detector_fails_its_own_job_by_name_and_no_other_signal(
    runtime: Runtime, tenant_id: TenantId, send: Send
) -> None:
    await open_shop(runtime, tenant_id)
    await send(call(55))
    await worker.drain(with_detectors(runtime, Broken), tenant_id)
    assert [one.detector for one in await signals_of(runtime, tenant_id)] == ["margin_guard"]
    async with runtime.scope(tenant_id) as scope:
        jobs = await scope.db.scalars(sa.select(Job).where(col(Job.name) == JobName.DETECT_SIGNALS))
        by_detector = {job.arguments.get("detector"): job for job in jobs}
    assert by_detector[None].state == JobState.DONE
    assert by_detector["acme.broken"].state != JobState.DONE
    assert "'acme.broken' failed on its evidence: RuntimeError: out of order" in str(
        by_detector["acme.broken"].failure
    )


async def test_a_detector_for_which_nobody_builds_evidence_is_named(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    with pytest.raises(PluginError, match=r"'acme\.stranger'.*dict"):
        async with with_detectors(runtime, Stranger).scope(tenant_id) as scope:
            await detect(scope, [], 0, detector="acme.stranger")


async def test_a_detector_with_a_needed_setting_watches_where_it_is_set(
    runtime: Runtime, tenant_id: TenantId, send: Send
) -> None:
    shop = await open_shop(runtime, tenant_id, customers=("acme", "brill"))
    wider = with_detectors(runtime, Demanding)
    async with wider.scope(tenant_id) as scope:
        await set_detector_settings(
            scope,
            detector="acme.demanding",
            customer_id=shop.customers["brill"],
            settings={"ceiling": "20"},
        )
    await send(*(call(30, customer=name) for name in shop.customers))
    await worker.drain(wider, tenant_id)
    (signal,) = await signals_of(runtime, tenant_id)
    assert (signal.customer_id, signal.value) == (shop.customers["brill"], Decimal(30))
