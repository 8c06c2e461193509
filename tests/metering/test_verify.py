"""`aforo verify` names what is not as it was sealed, and `aforo rebuild` makes it good."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aforo.api.parts.relay import global_id
from aforo.metering import archive, queries, rollups
from aforo.metering import rebuild as rebuilding
from aforo.metering.models import Segment
from aforo.metering.rebuild import ArchiveError, rebuild
from aforo.metering.verify import Verified, verify
from aforo.sdk.ids import TenantId
from aforo.sdk.period import Period
from aforo.storage.scope import Runtime
from tests.metering.market import Market, open_market

ODD = [
    {"tokens": "0.000000000001", "model": "ünï😀 'q' \"d\" \\"},
    {"tokens": 999_999_999_999_999, "model": None, "list": [1, {"a": "\u001d"}]},
    {"tokens": 1, "z": True, "a": "x", "ä": "y", "Z": Decimal("1e400")},
    {"model": ""},
]


@pytest.fixture
async def market(runtime: Runtime, tenant_id: TenantId) -> Market:
    """Three segments of odd events, each rolled up for each of three meters."""
    opened = await open_market(runtime, tenant_id)
    for days in (1, 30, 60):
        ago = timedelta(days=days, microseconds=1)
        await opened.take(*(opened.event(ago=ago, properties=one) for one in ODD))
        assert await opened.seal()
    for _ in range(3):
        async with opened.scope() as scope:
            await rollups.roll_up(scope, span_events=1)
    return opened


async def test_a_log_that_is_as_it_was_sealed_has_no_fault(market: Market) -> None:
    found = await verified(market)
    assert (found.segments, found.events, found.spans, found.faults) == (3, 12, 9, [])


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "empty"])
async def test_an_archive_file_that_is_not_what_was_sealed_is_named(
    market: Market, damage: str
) -> None:
    path = await file_of_the_second(market)
    content = path.read_bytes()
    middle = len(content) // 2
    match damage:
        case "flipped":
            path.write_bytes(
                content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            )
        case "cut":
            path.write_bytes(content[:-1])
        case "gone":
            path.unlink()
        case _:
            path.write_bytes(b"")
    [fault] = (await verified(market)).faults
    assert str(path) in fault
    with pytest.raises(ArchiveError, match=path.name):
        await rebuild(market.runtime, market.tenant_id)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("properties", "'{}'"),
        ("property_texts", "map('tokens', '2')"),
        ("cost", "toDecimal256(1, 30)"),
        ("team_id", "generateUUIDv4()"),
        ("received_at", "received_at + toIntervalMicrosecond(1)"),
        ("position", "position + 100"),
        ("trace", "'9.9.9.9k'"),
    ],
)
async def test_an_event_with_another_content_in_clickhouse_is_named(
    market: Market, column: str, value: str
) -> None:
    # The same key and version: the copy that was written later stands for both.
    await command(
        market,
        f"INSERT INTO events SELECT * REPLACE ({value} AS {column}) FROM "
        "(SELECT * FROM events WHERE tenant_id = {tenant:UUID} "
        "AND segment_id = {segment:UInt64} AND position = 2)",
        segment=(await segments(market))[1].segment_id,
    )
    faults = (await verified(market)).faults
    assert any("with another content" in fault for fault in faults), faults


async def test_events_that_are_too_many_in_clickhouse_are_named(market: Market) -> None:
    first, second, _ = await segments(market)
    await command(
        market,
        "INSERT INTO events SELECT * REPLACE (toFixedString('x', 32) AS key_hash) FROM "
        "(SELECT * FROM events WHERE tenant_id = {tenant:UUID} "
        "AND segment_id = {segment:UInt64} AND position = 0)",
        segment=second.segment_id,
    )
    await command(
        market,
        "INSERT INTO events SELECT * REPLACE (toUInt64(1000000000000) AS segment_id, "
        "toFixedString('y', 32) AS key_hash) FROM "
        "(SELECT * FROM events WHERE tenant_id = {tenant:UUID} "
        "AND segment_id = {segment:UInt64} AND position = 0)",
        segment=first.segment_id,
    )
    faults = (await verified(market)).faults
    assert f"segment {second.segment_id}: ClickHouse has 5 events, 4 were sealed" in faults
    assert (
        "segment 1000000000000: ClickHouse has 1 events of it, and there is no such one" in faults
    )
    before = await figures(market)
    await rebuild(market.runtime, market.tenant_id)
    assert (await verified(market)).faults == []
    assert await figures(market) != before


async def test_a_roll_up_that_differs_from_the_log_is_named_and_made_anew(market: Market) -> None:
    before = await figures(market)
    await command(
        market,
        "INSERT INTO usage_rollup SELECT * REPLACE (units + 1 AS units) FROM usage_rollup "
        "WHERE tenant_id = {tenant:UUID} AND meter_id = {meter:UUID} AND level = 1",
        meter=str(market.meters["tokens"].id),
    )
    faults = (await verified(market)).faults
    assert len(faults) == 3
    assert all("meter tokens" in fault and "(DAYS)" in fault for fault in faults)
    await rebuild(market.runtime, market.tenant_id)
    assert (await verified(market)).faults == []
    assert await figures(market) == before


async def test_a_segment_that_does_not_follow_the_one_before_it_is_named(market: Market) -> None:
    second = (await segments(market))[1]
    async with market.runtime.system("break the chain") as db:
        await db.execute(
            sa.update(Segment)
            .where(sa.literal_column("segment_id") == second.segment_id)
            .values(previous_sha256=bytes(32))
        )
    [fault] = (await verified(market)).faults
    assert fault == f"segment {second.segment_id} does not follow the segment before it"


async def test_a_projection_that_is_gone_is_rebuilt_to_the_same_numbers_also_after_a_kill(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await figures(market)
    for table in ("events", "usage_rollup"):
        await command(
            market,
            f"ALTER TABLE {table} DELETE WHERE tenant_id = {{tenant:UUID}} "
            "SETTINGS mutations_sync = 1",
        )
    faults = (await verified(market)).faults
    assert [fault for fault in faults if "ClickHouse has 0 events, 4 were sealed" in fault] == [
        f"segment {one.segment_id}: ClickHouse has 0 events, 4 were sealed"
        for one in await segments(market)
    ]
    with monkeypatch.context() as broken:
        broken.setattr(rebuilding, "reached", killed)
        with pytest.raises(Killed):
            await rebuild(market.runtime, market.tenant_id)
    monkeypatch.setattr(rollups, "SPAN_EVENTS", 1)
    [done] = await rebuild(market.runtime, market.tenant_id)
    assert (done.segments, done.written, done.spans) == (3, 2, 9)  # One was there already.
    assert (await verified(market)).faults == []
    assert await figures(market) == before
    [again] = await rebuild(market.runtime, market.tenant_id)
    assert (again.segments, again.written, again.spans) == (3, 0, 0)


class Killed(Exception):
    """The process ends here."""


def killed(_point: str) -> None:
    raise Killed


async def verified(market: Market) -> Verified:
    [found] = await verify(market.runtime, market.tenant_id)
    return found


async def figures(market: Market) -> Mapping[str, Any]:
    """What every meter counted of everyone, from the log, ever."""
    async with market.scope() as scope:
        period = Period(scope.now - timedelta(days=400), scope.now + timedelta(days=400))
        watermark = await queries.watermark(scope)
        return {
            code: await queries.usage_by_customer(scope, meter, period, watermark=watermark)
            for code, meter in market.meters.items()
        }


async def segments(market: Market) -> list[Segment]:
    async with market.scope() as scope:
        return list(await scope.db.scalars(sa.select(Segment).order_by(sa.text("segment_id"))))


async def file_of_the_second(market: Market) -> Path:
    second = (await segments(market))[1]
    folder = market.runtime.settings.data_dir
    return archive.path_of(folder, market.tenant_id, second.segment_id)


async def command(market: Market, sql: str, **parameters: Any) -> None:
    await market.runtime.events.command(sql, {"tenant": str(market.tenant_id), **parameters})


async def test_the_commands_say_what_is_wrong_and_make_it_good(
    market: Market, repository: Path
) -> None:
    code, answer = await aforo(market, repository, "verify", "--json")
    [found] = json.loads(answer)
    assert (code, found["events"], found["faults"]) == (0, 12, [])
    code, answer = await aforo(market, repository, "rebuild")
    assert (code, "3 segments looked at, 0 written, 0 roll-ups made" in answer) == (0, True)
    path = await file_of_the_second(market)
    path.unlink()
    code, answer = await aforo(market, repository, "verify")
    assert (code, f"→ {path} is missing" in answer) == (1, True)


async def aforo(market: Market, repository: Path, *arguments: str) -> tuple[int, str]:
    """Run a command about the market's tenant; its exit code and answer."""
    settings = market.runtime.settings
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from aforo.cli import main; main()", *arguments),
        *("--tenant", global_id("Tenant", market.tenant_id)),
        cwd=repository,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ
        | {
            "AFORO_DATABASE_URL": settings.database_url,
            "AFORO_REDIS_URL": settings.redis_url,
            "AFORO_CLICKHOUSE_URL": settings.clickhouse_url,
            "AFORO_KEY_PEPPER": settings.key_pepper,
            "AFORO_DATA_DIR": str(settings.data_dir),
        },
    )
    answer, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, answer.decode()
