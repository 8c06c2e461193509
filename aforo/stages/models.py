"""The table of the versions of a stage's settings."""

from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from aforo.stages.registry import StageName
from aforo.storage.tables import TenantTable, choice, json


class StageVersion(TenantTable, table=True):
    """The settings of one stage from a moment on, until the next version. It never changes."""

    __tablename__ = "stage_version"
    __table_args__ = (sa.UniqueConstraint("tenant_id", "stage", "version"),)

    stage: StageName = choice(StageName)
    version: int
    """From 1 on; 0 is what a stage is delivered with, and has no row."""
    settings: dict[str, Any] = json(default_factory=dict)
    """All of the stage, by their outside names."""
    reason: str = Field(max_length=500)
    changed_by: str
    """By whom, as the audit log names him."""
