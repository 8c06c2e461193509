"""The tenant's tax engine: which one is in force, and asking it inside a guard."""

from collections.abc import Mapping
from typing import Any

import anyio
import sqlalchemy as sa
from sqlmodel import col

from aforo.billing.models import TaxSettings
from aforo.billing.tax import checked
from aforo.plugins import bounded_steps, told
from aforo.plugins.chosen import restored, to_store
from aforo.sdk import (
    AppliedTax,
    NotFound,
    PluginError,
    TaxEngine,
    TaxRequest,
    TaxUnavailable,
    Unavailable,
)
from aforo.storage.scope import Scope

ANSWER_TIMEOUT_SECONDS = 10


async def set_tax_engine(scope: Scope, *, engine: str, settings: Mapping[str, Any]) -> TaxSettings:
    """Choose the tenant's tax engine with its settings; invoices finalised from now on use it.

    Raises: `NotFound` for the engine; `Invalid` with the path of the setting that it refuses.
    """
    kind = scope.plugins.tax_engines.get(engine)
    if kind is None:
        known = ", ".join(sorted(scope.plugins.tax_engines))
        raise NotFound(
            f"there is no tax engine {engine[:64]!r}; there are: {known}", field="engine"
        )
    stored = to_store(kind, settings, what=_named(engine))
    row = TaxSettings(engine=engine, settings=stored)
    scope.db.add(row)
    await scope.db.flush()
    return row


async def tax_settings(scope: Scope) -> TaxSettings | None:
    """The settings in force, the latest; None where no engine was chosen."""
    row: TaxSettings | None = await scope.db.scalar(
        sa.select(TaxSettings).order_by(col(TaxSettings.id).desc()).limit(1)
    )
    return row


async def engine_in_force(scope: Scope) -> TaxEngine | None:
    """The tenant's tax engine, ready to be asked; None where no taxes are due.

    Raises: `PluginError` where no plugin brings it any more, or it refuses what was saved.
    """
    row = await tax_settings(scope)
    if row is None:
        return None
    kind = scope.plugins.tax_engines.get(row.engine)
    return restored(kind, row.settings, what=_named(row.engine))


async def quote(engine: TaxEngine, request: TaxRequest) -> tuple[AppliedTax, ...]:
    """The taxes on the lines of a request, checked.

    Raises: `TaxUnavailable` where the engine, or what it asks, is down or too slow; `PluginError`
    for every other failure and for a wrong answer, with the engine's name.
    """
    try:
        with anyio.fail_after(ANSWER_TIMEOUT_SECONDS):
            work = engine.quote(request)
            answer: object = await bounded_steps(work, what=_named(engine.key))
    except (Unavailable, TimeoutError, OSError) as error:
        raise TaxUnavailable(
            f"the tax engine {engine.key!r} does not answer: {told(error)}"
        ) from error
    except (Exception, SystemExit) as error:  # A plugin may raise anything at all.
        raise PluginError(f"the tax engine {engine.key!r} failed: {told(error)}") from error
    return checked(answer, request.lines, engine=engine.key)


def _named(engine: str) -> str:
    return f"the tax engine {engine!r}"
