"""Traces: one through request, statements and job, and none of it tells a value."""

import dataclasses
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from aforo import worker
from aforo.api.app import create_app
from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime, open_runtime
from aforo.telemetry import tracing
from aforo.telemetry.export import exported
from aforo.tenants.commands import NewTenant
from tests.api.forms import change, poster

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Where the spans of this test go."""
    exporter = InMemorySpanExporter()
    tracing.start("http://127.0.0.1:1", service="test", exporter=exporter)
    yield exporter
    tracing.stop()


@pytest.fixture
async def traced(
    spans: InMemorySpanExporter, runtime: Runtime, clock: MovableClock
) -> AsyncIterator[Runtime]:
    """A runtime that was opened while tracing was on."""
    assert tracing.is_on()
    opened = open_runtime(runtime.settings, runtime.plugins, clock)
    yield opened
    await opened.close()


def finished(spans: InMemorySpanExporter) -> list[ReadableSpan]:
    assert tracing._State.provider is not None
    tracing._State.provider.force_flush()
    return list(spans.get_finished_spans())


async def test_a_request_its_statements_and_its_job_are_one_trace(
    traced: Runtime, spans: InMemorySpanExporter, tenant: NewTenant
) -> None:
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=create_app(traced)),
        base_url="http://aforo.test",
        headers={"Authorization": f"Bearer {tenant.key.token}", "traceparent": PARENT},
    ) as client:
        run = await change(poster(client), "startBillRun", until="2026-11-20T12:00:00Z")
    assert run["__typename"] == "BillRun"
    await worker.drain(traced, TenantId(tenant.tenant.tenant_id))
    ours = [span for span in finished(spans) if f"{span.context.trace_id:032x}" == TRACE]
    names = {span.name for span in ours}
    assert {"POST", "graphql mutation", "scope", "SELECT", "INSERT", "job bill"} <= names
    told = " ".join(str(dict(span.attributes or {})) for span in ours)
    assert "INSERT INTO bill_run" in told
    assert "2026-11-20" not in told  # Statements without their values.


async def test_a_failure_is_marked_by_its_kind_alone(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="secret"), tracing.span("work"):
        raise ValueError("secret")
    (span,) = finished(spans)
    assert (span.status.description, span.events) == ("ValueError", ())


@pytest.mark.parametrize("parent", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
async def test_a_parent_that_is_none_starts_a_trace_of_its_own(
    spans: InMemorySpanExporter, parent: str
) -> None:
    with tracing.span("work", parent=parent):
        assert tracing.trace_id() is not None
    (span,) = finished(spans)
    assert span.parent is None


def test_without_a_collector_there_is_no_trace() -> None:
    with tracing.span("work", parent=PARENT):
        assert (tracing.trace_id(), tracing.traceparent()) == (None, None)
    tracing.end(tracing.begin("SELECT"))


async def test_a_collector_gets_them_by_otlp_over_http(runtime: Runtime) -> None:
    with _Collector() as collector:
        settings = dataclasses.replace(runtime.settings, otlp_endpoint=collector.origin)
        async with exported(settings, service="aforo-serve"):
            with tracing.span("work"):
                pass
        (path, request) = collector.received[0]
    assert path == "/v1/traces"
    (resource,) = request.resource_spans
    assert ("service.name", "aforo-serve") in {
        (each.key, each.value.string_value) for each in resource.resource.attributes
    }
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == ["work"]
    assert not tracing.is_on()


class _Collector:
    """A server that takes traces as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        received = self.received = list[tuple[str, ExportTraceServiceRequest]]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append((self.path, ExportTraceServiceRequest.FromString(body)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "_Collector":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
