"""Writes new versions of the settings of stages."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from hashlib import sha256
from typing import Any

import msgspec
import sqlalchemy as sa

from aforo.sdk.component import configure
from aforo.sdk.errors import Conflict, Invalid
from aforo.stages.models import StageVersion
from aforo.stages.queries import changes_of, in_force
from aforo.stages.registry import STAGES, StageName, forms, written
from aforo.storage.actors import INSTALLATION
from aforo.storage.audit import LABEL_CHARACTERS_MAX
from aforo.storage.jobs import JobName
from aforo.storage.remembered import CHANNEL
from aforo.storage.scope import Scope
from aforo.storage.values import cut

REASON_LENGTH_MAX = 500
LATE = timedelta(seconds=30)
"""After so long it is looked again: events that were under way when their cause was mended are
quarantined by then."""
CODES = ("UNKNOWN_METER", "UNKNOWN_CUSTOMER", "KEY_UNKNOWN", "NO_ACTIVE_SUBSCRIPTION")
"""Of quarantined events, all that there are."""


async def change_settings(
    scope: Scope,
    stage: StageName,
    settings: Mapping[str, Any],
    *,
    reason: str,
    expected_version: int,
) -> StageVersion:
    """Set some settings of a stage; the others stay as they are. Every process goes by the new
    version within a second of the commit.

    Raises: `Invalid` with the path of what is wrong, such as `settings.ageSecondsMax`; `Conflict`
    where the version in force is not the expected one.
    """
    if not 1 <= len(reason.strip()) <= REASON_LENGTH_MAX:
        raise Invalid(f"say why, in 1 to {REASON_LENGTH_MAX} characters", field="reason")
    _demand_known(stage, settings)
    # One after the other, so that of two who expect the same version one is told.
    await scope.db.execute(_TAKE_TURN, {"name": f"aforo.stages.{scope.tenant_id}"})
    before = await in_force(scope)
    if before.version(stage) != expected_version:
        raise Conflict(
            f"version {before.version(stage)} is in force, not {expected_version}: look at what "
            "was changed, and say that version",
            code="STAGE_CHANGED",
            field="expectedVersion",
        )
    was = written(before.of(stage))
    now = written(configure(STAGES[stage].settings, {**was, **settings}))
    if now == was:
        raise Invalid(
            "nothing of it would change: everything given is set already",
            code="NOTHING_CHANGED",
            field="settings",
        )
    row = StageVersion(
        stage=stage,
        version=expected_version + 1,
        settings=now,
        reason=reason.strip(),
        changed_by=cut((scope.actor or INSTALLATION).label, LABEL_CHARACTERS_MAX),
    )
    scope.db.add(row)
    await scope.db.flush()
    about = changes_of(scope.tenant_id)
    await scope.db.execute(sa.select(sa.func.pg_notify(CHANNEL, about)))
    if settings.get("releaseAutomatically"):
        for code in CODES:
            await ask_for_release(scope, code)
    return row


async def ask_for_release(
    scope: Scope,
    code: str,
    *,
    event_type: str | None = None,
    names: Sequence[str] | None = None,
    by_key: bool = False,
    key_hash: bytes | None = None,
) -> None:
    """What quarantined events of this code were waiting for has been made: have them looked at, if
    the tenant has them released automatically.

    `names` are those of the customer; with `by_key` also the events that name a key alone.
    """
    if not (await in_force(scope)).validation.release_automatically:
        return
    wanted: dict[str, Any] = {
        "code": code,
        "event_type": event_type,
        "names": None if names is None else sorted(names),
        "by_key": by_key,
        "key_hash": None if key_hash is None else key_hash.hex(),
    }
    digest = sha256(msgspec.json.encode(wanted)).hexdigest()
    for when, run_at in (("now", scope.now), ("late", scope.now + LATE)):
        await scope.enqueue(
            JobName.RELEASE_QUARANTINED, unique_key=f"{when}:{digest}", run_at=run_at, **wanted
        )


def _demand_known(stage: StageName, settings: Mapping[str, Any]) -> None:
    known = [form.name for form in forms(STAGES[stage].settings)]
    for name in settings:
        if name not in known:
            meant = get_close_matches(name, known, n=1)
            hint = f"did you mean {meant[0]}?" if meant else f"it has {', '.join(known) or 'none'}"
            raise Invalid(
                f"{stage} has no setting {cut(name, 64)}: {hint}",
                code="UNKNOWN_SETTING",
                field=f"settings.{cut(name, 64)}",
            )


_TAKE_TURN = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
