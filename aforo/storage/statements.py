"""A span for every SQL statement, where traces are recorded."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from aforo.telemetry import tracing

STATEMENT_CHARACTERS_MAX = 2_000


def trace_statements(engine: sa.Engine) -> None:
    """Record each statement of an engine: its text, without its values."""
    event.listen(engine, "before_cursor_execute", _begin)
    event.listen(engine, "after_cursor_execute", _end)
    event.listen(engine, "handle_error", _fail)


def _begin(
    _connection: object, _cursor: object, statement: str, _values: object, context: Any, *_: object
) -> None:
    text = statement[:STATEMENT_CHARACTERS_MAX]
    name = text.partition(" ")[0]
    context.aforo_span = tracing.begin(name, db_system="postgresql", db_query_text=text)


def _end(
    _connection: object, _cursor: object, _statement: str, _values: object, context: Any, *_: object
) -> None:
    tracing.end(context.aforo_span)


def _fail(failure: Any) -> None:
    tracing.end(getattr(failure.execution_context, "aforo_span", None), failure.original_exception)
