"""A replayed trace of LLM requests costs what an independent script says that it costs."""

import asyncio
import csv
import dataclasses
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aforo import worker
from aforo.api.app import create_app
from aforo.sdk.ids import TenantId
from aforo.storage.clock import SystemClock
from aforo.storage.scope import Runtime
from aforo.tenants.commands import create_tenant
from tests.api.server import serving
from tests.billing.reference import bills_of, read_trace
from tests.meanwhile import again_and_again

TRACES = Path(os.environ.get("AFORO_TRACE_DIR", "../shared/data"))
SCRIPT = Path("benchmarks") / "replay_trace.py"
TIMEOUT_SECONDS = 120

Replay = Callable[[Path, int], Awaitable[dict[str, Any]]]


@pytest.fixture
async def replay(shared_runtime: Runtime, repository: Path) -> AsyncIterator[Replay]:
    """Run the script against a server whose jobs are done meanwhile; what it prints."""
    runtime = dataclasses.replace(shared_runtime, clock=SystemClock())
    tenant = await create_tenant(runtime, name="Trace")
    tenant_id = TenantId(tenant.tenant.tenant_id)

    async def run(file: Path, customers: int) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(repository / SCRIPT),
            str(file),
            *("--customers", str(customers)),
            *("--url", f"http://127.0.0.1:{port}", "--api-key", tenant.key.token),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(TIMEOUT_SECONDS):
            printed, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        bill: dict[str, Any] = json.loads(printed)
        return bill

    async with (
        serving(create_app(runtime)) as port,
        # Its own jobs alone: a worker would have to do first what other tests left behind.
        again_and_again(lambda: worker.drain(runtime, tenant_id)),
    ):
        yield run


async def test_a_generated_trace_costs_what_the_reference_says_also_the_second_time(
    replay: Replay, tmp_path: Path
) -> None:
    file = _generated(tmp_path / "trace.csv", rows=1_950, seed=1)
    expected = bills_of(read_trace(file, 4))
    assert await replay(file, 4) == expected
    assert await replay(file, 4) == expected


async def test_traces_on_one_aforo_do_not_meet(replay: Replay, tmp_path: Path) -> None:
    first = _generated(tmp_path / "first.csv", rows=60, seed=2)
    second = _generated(tmp_path / "second.csv", rows=20, seed=3)
    assert await replay(first, 2) == bills_of(read_trace(first, 2))
    assert await replay(second, 2) == bills_of(read_trace(second, 2))
    assert await replay(first, 3) == bills_of(read_trace(first, 3))


async def test_customers_without_a_request_pay_the_fee(replay: Replay, tmp_path: Path) -> None:
    file = _generated(tmp_path / "short.csv", rows=2, seed=4)
    bill = await replay(file, 3)
    assert bill == bills_of(read_trace(file, 3))
    assert bill["customers"][2]["usage"]["requests"] == 0


async def test_an_hour_of_real_requests_costs_what_was_computed_apart(replay: Replay) -> None:
    file, expected = (
        TRACES / "azure_llm_inference_2023_conv.csv",
        TRACES / "expected_bill_conv.json",
    )
    if not expected.exists():
        pytest.skip(f"there is no trace in {TRACES}; AFORO_TRACE_DIR says where it is")
    assert await replay(file, 7) == json.loads(expected.read_text())


def _generated(path: Path, *, rows: int, seed: int) -> Path:
    """A trace in the form of the real ones: CRLF, seven decimals, no end of the last line."""
    dice = random.Random(seed)
    at = datetime(2023, 11, 16, 18, 15, 46, 680590)  # noqa: DTZ001 (the files have no zone)
    lines = [["TIMESTAMP", "ContextTokens", "GeneratedTokens"]]
    for _ in range(rows):
        at += timedelta(microseconds=dice.randrange(1, 3_000_000))
        moment = f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond:06}0"
        lines.append([moment, str(dice.randrange(1, 4_000)), str(dice.randrange(1, 900))])
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    path.write_bytes(path.read_bytes().removesuffix(b"\r\n"))
    return path
