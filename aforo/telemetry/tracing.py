"""OpenTelemetry traces. Without a collector to send them to, a span costs a look at a variable."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

EXPORT_TIMEOUT_SECONDS = 5
TRACEPARENT_CHARACTERS_MAX = 55

Attribute = str | int | float | bool

_NOTHING: AbstractContextManager[None] = nullcontext()
_PROPAGATOR = TraceContextTextMapPropagator()


class _State:
    """The tracer of this process: one, because every part of it is in the same trace."""

    provider: TracerProvider | None = None
    tracer: Tracer | None = None


def start(endpoint: str, *, service: str, exporter: SpanExporter | None = None) -> None:
    """Trace from now on; spans go to `<endpoint>/v1/traces`, or to the exporter that is given."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    target = exporter or OTLPSpanExporter(
        endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_SECONDS
    )
    provider.add_span_processor(BatchSpanProcessor(target))
    _State.provider, _State.tracer = provider, provider.get_tracer("aforo")


def stop() -> None:
    """Send what is left, for as long as an export may take, and trace no more."""
    provider, _State.provider, _State.tracer = _State.provider, None, None
    if provider is not None:
        provider.shutdown()


def is_on() -> bool:
    """Whether spans are recorded."""
    return _State.tracer is not None


def span(
    name: str,
    *,
    parent: str | None = None,
    is_request: bool = False,
    **attributes: Attribute,
) -> AbstractContextManager[Span | None]:
    """A span around what is done inside. `parent` is a W3C traceparent from another process; an
    attribute `db_system` is recorded as `db.system`."""
    tracer = _State.tracer
    if tracer is None:
        return _NOTHING
    return _recorded(tracer, name, parent, attributes, is_request=is_request)


def begin(name: str, **attributes: str) -> Span | None:
    """A span that is ended by `end`, for what begins and ends in two calls; None if none is."""
    tracer = _State.tracer
    return None if tracer is None else tracer.start_span(name, attributes=_dotted(attributes))


def end(begun: Span | None, error: BaseException | None = None) -> None:
    """End what `begin` gave."""
    if begun is not None:
        if error is not None:
            begun.set_status(Status(StatusCode.ERROR, type(error).__name__))
        begun.end()


def traceparent() -> str | None:
    """The current span as a W3C traceparent, for work that another process will do."""
    if _State.tracer is None:
        return None
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")


def trace_id() -> str | None:
    """The current trace, for log entries."""
    if _State.tracer is None:
        return None
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


@contextmanager
def _recorded(
    tracer: Tracer,
    name: str,
    parent: str | None,
    attributes: Mapping[str, Attribute],
    *,
    is_request: bool,
) -> Iterator[Span]:
    context = None
    if parent is not None and len(parent) <= TRACEPARENT_CHARACTERS_MAX:
        context = _PROPAGATOR.extract({"traceparent": parent})
    with tracer.start_as_current_span(
        name,
        context=context,
        kind=SpanKind.SERVER if is_request else SpanKind.INTERNAL,
        attributes=_dotted(attributes),
        # Its text may hold what a client sent; the log has it, redacted.
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def _dotted(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    return {name.replace("_", "."): value for name, value in attributes.items()}
