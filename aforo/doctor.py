"""Looks an installation over: what works, what does not, and what to do about it."""

import asyncio
import os
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from aforo.metering import backlog
from aforo.plugins import Registry, load_registry
from aforo.sdk.errors import PluginError, Unavailable
from aforo.settings import Settings
from aforo.storage import queue, readiness
from aforo.storage.clock import Clock
from aforo.storage.jobs import Job, JobState
from aforo.storage.migrate import pending_in_postgres
from aforo.storage.redis import UNREACHABLE
from aforo.storage.scope import Runtime, open_runtime

ANSWER_SECONDS = 10
LAG_SECONDS_MAX = 60
"""How long work may wait for a worker that is there."""
FAILED_SHOWN_FOR = timedelta(days=1)
DISK_USED_MAX = 0.8
FAILED_COUNTED_MAX = 1_000
PEPPER_CHARACTERS_MIN = 10
"""Different ones: a secret of 32 equal letters is none."""

_START_WORKER = "start a worker with `aforo worker`; if one runs, read its log"
_START_READER = "start `aforo worker` with AFORO_KAFKA_BROKERS, and see what its log says"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, whether it is well, and what to do where it is not."""

    check: str
    ok: bool
    says: str
    advice: str | None = None


async def examine(settings: Settings, clock: Clock | None = None) -> list[Finding]:
    """Look everything over. What cannot be asked, because what it needs is down, is left out."""
    registry, plugins = _plugins()
    runtime = open_runtime(settings, registry, clock)
    try:
        engines = await asyncio.gather(_postgresql(runtime), _redis(runtime), _clickhouse(runtime))
    finally:
        await runtime.close()
    return [*chain(*engines), plugins, _key_pepper(settings), _disk(settings)]


async def _postgresql(runtime: Runtime) -> list[Finding]:
    url = runtime.settings.database_url
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            login = await readiness.login(url)
            missing = await pending_in_postgres(url)
    except readiness.NotReady as error:
        return [Finding("postgresql", ok=False, says=error.message)]
    except TimeoutError:
        return [_silent("postgresql", "AFORO_DATABASE_URL")]
    findings = [
        Finding("postgresql", ok=True, says=f"version {login.server_version}"),
        Finding(
            "login",
            ok=login.fault is None,
            says=login.fault or f"{login.name} owns nothing and is bound by row-level security",
        ),
        _migrations("postgresql migrations", missing),
    ]
    if not missing:
        async with runtime.system("examine the queues") as db:
            now = runtime.clock.now()
            findings += [
                await _due_jobs(db, now),
                await _failed_jobs(db, now),
                await _inbox(db, now),
                await _segments(db, now),
            ]
            if runtime.topic is not None:
                findings.append(await _topic(db, now, runtime.topic.name))
    return findings


async def _redis(runtime: Runtime) -> list[Finding]:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            version = await runtime.live.version()
    except UNREACHABLE as error:
        return [_silent("redis", "AFORO_REDIS_URL", error)]
    return [Finding("redis", ok=True, says=f"version {version}")]


async def _clickhouse(runtime: Runtime) -> list[Finding]:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            found = await readiness.projection(runtime.settings.clickhouse_url)
    except readiness.NotReady as error:
        return [Finding("clickhouse", ok=False, says=error.message)]
    except (Unavailable, TimeoutError) as error:
        return [_silent("clickhouse", "AFORO_CLICKHOUSE_URL", error.__cause__ or error)]
    return [
        Finding("clickhouse", ok=True, says=f"version {found.server_version}"),
        _migrations("clickhouse migrations", found.missing),
    ]


async def _due_jobs(db: AsyncSession, now: datetime) -> Finding:
    count, oldest = await queue.backlog(db, now)
    return _lag("jobs", f"{count} due", now - oldest if oldest else None, advice=_START_WORKER)


async def _failed_jobs(db: AsyncSession, now: datetime) -> Finding:
    failed = await db.execute(
        sa.select(col(Job.name), col(Job.id), col(Job.failure))
        .where(col(Job.state) == JobState.FAILED, col(Job.finished_at) > now - FAILED_SHOWN_FOR)
        .order_by(col(Job.finished_at).desc())
        .limit(FAILED_COUNTED_MAX)
    )
    rows = failed.all()
    if not rows:
        return Finding("failed jobs", ok=True, says="none in the last day")
    name, job_id, failure = rows[0]
    return Finding(
        "failed jobs",
        ok=False,
        says=f"{len(rows)} given up in the last day; the latest: {name} {job_id}: {failure}",
        advice="mend what the failure names, then ask for the work again",
    )


async def _inbox(db: AsyncSession, now: datetime) -> Finding:
    waiting = await backlog.unsealed_events(db)
    more = "" if waiting.is_all else " or more"
    age = now - waiting.since if waiting.since else None
    says = f"{waiting.count}{more} events wait to be sealed"
    return _lag("inbox", says, age, advice=_START_WORKER)


async def _segments(db: AsyncSession, now: datetime) -> Finding:
    waiting = await backlog.unconfirmed_segments(db)
    watermark = await backlog.last_confirmed_segment(db)
    return _lag(
        "segments",
        f"{waiting.count} wait for ClickHouse to confirm them, the watermark is {watermark}",
        now - waiting.since if waiting.since else None,
        advice="see that ClickHouse works; the worker's log names the segment and the reason",
    )


async def _topic(db: AsyncSession, now: datetime, name: str) -> Finding:
    until = await backlog.topic_read_until(db, name)
    if until is None:
        return Finding("topic", ok=False, says=f"nobody has read {name} yet", advice=_START_READER)
    # What is quiet is noted every other second.
    behind = max(now - until, timedelta())
    return _lag("topic", f"{name} is read", behind, advice=_START_READER)


def _plugins() -> tuple[Registry, Finding]:
    try:
        registry = load_registry()
    except PluginError as error:
        return Registry(), Finding(
            "plugins",
            ok=False,
            says=error.message,
            advice="mend or uninstall that plugin: nothing starts with it",
        )
    names = sorted({source.distribution or source.module for source in registry.sources.values()})
    return registry, Finding(
        "plugins", ok=True, says=f"{len(registry.sources)} components of {', '.join(names)}"
    )


def _key_pepper(settings: Settings) -> Finding:
    if len(set(settings.key_pepper)) >= PEPPER_CHARACTERS_MIN:
        return Finding("key pepper", ok=True, says=f"{len(settings.key_pepper)} characters")
    return Finding(
        "key pepper",
        ok=False,
        says="AFORO_KEY_PEPPER is too regular to be a secret",
        advice="make one with `openssl rand -hex 32`; every API key must then be issued anew",
    )


def _disk(settings: Settings) -> Finding:
    folder = settings.data_dir.absolute()
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    usage = shutil.disk_usage(existing)
    says = f"{usage.free / 2**30:.1f} GiB of {usage.total / 2**30:.0f} GiB free for {folder}"
    if usage.used >= DISK_USED_MAX * usage.total:
        advice = "make room, or move AFORO_DATA_DIR to a larger disk"
        return Finding("disk", ok=False, says=says, advice=advice)
    if not os.access(existing, os.W_OK):
        advice = "let this user write there, or move AFORO_DATA_DIR"
        return Finding("disk", ok=False, says=f"{existing} cannot be written", advice=advice)
    return Finding("disk", ok=True, says=says)


def _migrations(check: str, missing: list[str]) -> Finding:
    if not missing:
        return Finding(check, ok=True, says="none is missing")
    return Finding(check, ok=False, says=readiness.named(missing), advice="run `aforo migrate`")


def _lag(check: str, says: str, age: timedelta | None, *, advice: str) -> Finding:
    if age is None:
        return Finding(check, ok=True, says=says)
    seconds = max(age.total_seconds(), 0)
    says = f"{says}, the oldest for {seconds:.0f} s"
    if seconds <= LAG_SECONDS_MAX:
        return Finding(check, ok=True, says=says)
    return Finding(check, ok=False, says=says, advice=advice)


def _silent(engine: str, variable: str, error: BaseException | None = None) -> Finding:
    told = f": {error}" if error is not None and str(error) else ""
    return Finding(
        engine, ok=False, says=f"gives no answer{told}", advice=f"start it, or correct {variable}"
    )
