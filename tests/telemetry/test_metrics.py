"""Metrics: what is counted, under which few labels, and where it can be read."""

import dataclasses
import re
from pathlib import Path

import httpx2
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from aforo import worker
from aforo.api.app import create_app
from aforo.metering import backlog
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.telemetry.export import MetricsPortError, exported
from aforo.tenants.commands import NewTenant
from benchmarks.ports import free_port
from tests.api import small


def value(name: str, /, **labels: object) -> float:
    return REGISTRY.get_sample_value(name, {k: str(v) for k, v in labels.items()}) or 0.0


async def test_requests_are_counted_by_declared_route_and_status(
    client: httpx2.AsyncClient,
) -> None:
    def count(route: str, method: str, status: int) -> float:
        labels = {"route": route, "method": method, "status": status}
        return value("aforo_http_request_seconds_count", **labels)

    asked = (
        ("/healthz", "GET", 200, "/healthz"),
        ("/graphql", "POST", 415, "/graphql"),
        ("/no-such-route/4711", "GET", 404, "other"),
    )
    for path, method, status, route in asked:
        before = count(route, method, status)
        response = await client.request(method, path)
        assert response.status_code == status
        assert count(route, method, status) == before + 1
    before = count("other", "other", 404)
    await client.request("BREW", "/pot")
    assert count("other", "other", 404) == before + 1


@pytest.mark.parametrize(
    ("query", "outcome"),
    [("{ hello }", "ok"), ("{ bug }", "error"), ("{ down }", "unavailable")],
)
async def test_operations_are_counted_by_outcome(
    runtime: Runtime, tenant: NewTenant, query: str, outcome: str
) -> None:
    labels = {"kind": "query", "outcome": outcome}
    before = value("aforo_graphql_operation_seconds_count", **labels)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=create_app(runtime, schema=small.schema)),
        base_url="http://aforo.test",
        headers={"Authorization": f"Bearer {tenant.key.token}"},
    ) as client:
        await client.post("/graphql", json={"query": query})
    assert value("aforo_graphql_operation_seconds_count", **labels) == before + 1


async def test_events_are_counted_by_verdict(client: httpx2.AsyncClient) -> None:
    verdicts = ("accepted", "duplicate", "conflict", "rejected", "quarantined")
    before = {each: value("aforo_events_total", verdict=each) for each in verdicts}
    event = {"idempotencyKey": "1", "type": "x", "customer": "nobody"}
    await client.post("/v1/events", json=[event, event, {**event, "type": "y"}, {}])
    more = {each: value("aforo_events_total", verdict=each) - before[each] for each in verdicts}
    assert more == {
        "accepted": 0, "duplicate": 1, "conflict": 1, "rejected": 1, "quarantined": 1
    }  # fmt: skip


async def test_jobs_and_the_backlog_are_measured(
    client: httpx2.AsyncClient, runtime: Runtime, tenant_id: TenantId
) -> None:
    labels = {"name": "bill", "outcome": "done"}
    before = value("aforo_job_seconds_count", **labels)
    query = 'mutation { startBillRun(input: {until: "2026-11-20T12:00:00Z"}) { __typename } }'
    await client.post("/graphql", json={"query": query})
    await backlog.measure(runtime)
    assert value("aforo_backlog", queue="jobs") >= 1
    await worker.drain(runtime, tenant_id)
    assert value("aforo_job_seconds_count", **labels) == before + 1


async def test_only_requests_that_failed_are_in_the_log_unless_all_are_asked_for(
    runtime: Runtime, tenant: NewTenant
) -> None:
    async def logged(*, logs_all: bool) -> list[tuple[object, object]]:
        settings = dataclasses.replace(runtime.settings, log_requests=logs_all)
        app = create_app(dataclasses.replace(runtime, settings=settings), schema=small.schema)
        transport = httpx2.ASGITransport(app=app)
        with capture_logs() as entries:
            async with httpx2.AsyncClient(
                transport=transport,
                base_url="http://aforo.test",
                headers={"Authorization": f"Bearer {tenant.key.token}"},
            ) as client:
                await client.post("/graphql", json={"query": "{ hello }"})
                await client.post("/graphql", json={"query": "{ down }"})
        told = [each for each in entries if each["event"] == "request"]
        return [(each["route"], each["status"]) for each in told]

    assert await logged(logs_all=False) == [("/graphql", 503)]
    assert await logged(logs_all=True) == [("/graphql", 200), ("/graphql", 503)]


async def test_prometheus_reads_them_on_a_port_of_their_own(runtime: Runtime) -> None:
    settings = dataclasses.replace(runtime.settings, metrics_port=free_port())
    url = f"http://127.0.0.1:{settings.metrics_port}/metrics"
    async with exported(settings, service="test"), httpx2.AsyncClient() as client:
        text = (await client.get(url)).text
        assert "# TYPE aforo_http_request_seconds histogram" in text
        assert "# TYPE aforo_backlog gauge" in text
        with pytest.raises(MetricsPortError, match=f"port {settings.metrics_port} of 127.0.0.1"):
            async with exported(settings, service="another"):
                pass
    async with httpx2.AsyncClient() as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get(url)


def test_the_manual_lists_every_metric(repository: Path) -> None:
    page = (repository / "docs/operations.md").read_text()
    listed = dict(re.findall(r"^\| `(aforo_\w+)`(?: by [^|]+)? \| ([^|]+) \|$", page, re.MULTILINE))
    there = {
        family.name: family.documentation
        for family in REGISTRY.collect()
        if family.name.startswith("aforo_")
    }
    assert listed == there
