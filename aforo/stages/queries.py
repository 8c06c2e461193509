"""Reads the settings of stages: those in force, and every version that there was."""

from collections.abc import Collection, Mapping
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
import structlog
from pydantic import ValidationError
from sqlalchemy.dialects.postgresql import distinct_on
from sqlmodel import col

from aforo.sdk.component import Settings
from aforo.sdk.ids import TenantId
from aforo.stages.models import StageVersion
from aforo.stages.registry import DEFAULTS, STAGES, InForce, StageName
from aforo.storage.listing import AgeOrder, Listing, equal
from aforo.storage.rows import rows_by_id
from aforo.storage.scope import Runtime, Scope

log = structlog.get_logger()


async def in_force(scope: Scope) -> InForce:
    """The settings of the tenant's stages, as the scope sees them."""
    rows = list(await scope.db.scalars(_LATEST))
    return InForce(
        {row.stage: row.version for row in rows}, {row.stage: _settings(row) for row in rows}
    )


async def remembered(runtime: Runtime, tenant_id: TenantId) -> InForce:
    """The settings of a tenant's stages from the memory of this process, which is told of changes:
    at most a second old."""

    async def read() -> InForce:
        async with runtime.scope(tenant_id) as scope:
            return await in_force(scope)

    runtime.remembered.begin(runtime.cross_tenant)
    return await runtime.remembered.recall(("stages", tenant_id), read, about=changes_of(tenant_id))


def changes_of(tenant_id: UUID) -> str:
    """What processes are told when settings of a tenant have changed."""
    return f"{tenant_id}:stages"


async def versions_at(scope: Scope, at: datetime) -> Mapping[StageName, int]:
    """The version of each stage's settings that was in force at a moment; 0 where none was set."""
    version = sa.func.max(col(StageVersion.version))
    rows = await scope.db.execute(
        sa.select(col(StageVersion.stage), version)
        .where(col(StageVersion.created_at) <= at)
        .group_by(col(StageVersion.stage))
    )
    found = {stage: int(latest) for stage, latest in rows}
    return {name: found.get(name, 0) for name in StageName}


def stage_versions(
    *, stage: StageName | None = None, order: AgeOrder = AgeOrder.NEWEST_FIRST
) -> Listing[StageVersion]:
    """Every version that was set."""
    return Listing(StageVersion, equal(StageVersion.stage, stage), order)


async def stage_versions_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, StageVersion]:
    return await rows_by_id(scope, StageVersion, ids)


def _settings(row: StageVersion) -> Settings:
    """What was set, where it still fits; a release that narrows a bound must not stop events."""
    kind = STAGES[row.stage].settings
    known = {field.alias for field in kind.model_fields.values()}
    kept = {name: value for name, value in row.settings.items() if name in known}
    try:
        return kind.model_validate(kept)
    except ValidationError:
        log.exception("settings no longer fit", stage=row.stage, version=row.version)
        return DEFAULTS[row.stage]


_LATEST = (
    sa.select(StageVersion)
    .ext(distinct_on(col(StageVersion.stage)))
    .order_by(col(StageVersion.stage), col(StageVersion.version).desc())
)
