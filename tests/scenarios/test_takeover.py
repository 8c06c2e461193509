"""The worker that seals is killed, and frozen at every step: another one follows, and nothing is
lost or doubled, also once those that were frozen go on."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from aforo.metering import queries
from aforo.plugins import load_registry
from aforo.sdk.ids import TenantId
from aforo.settings import from_environment
from aforo.storage.embedded.processes import wait_until
from aforo.storage.failpoints import FREEZES
from aforo.storage.scope import open_runtime
from aforo.tenants.commands import create_tenant
from tests.meanwhile import until
from tests.metering.market import Market, open_market
from tests.metering.test_durability import checked_contents, family, kill_at_once
from tests.scenarios.processes import run

STEPS = (
    *("seal.assigned", "seal.committed", "archive.written", "confirm.archived"),
    *("confirm.inserted", "confirm.projected", "confirm.finishing", "confirm.finished"),
)
EVENTS = 20
WAIT_SECONDS = 120
CHECKOUT = Path(__file__).parents[2]


class Workers:
    """Workers that are forks of one process."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.scenarios.impatient"],
                env={"PATH": os.defpath, "AFORO_FAILPOINTS": "1", **environment},
                cwd=CHECKOUT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
            )

    @property
    def said(self) -> str:
        """What all of them have said so far."""
        return self._log.read_text()

    def begin(self, failpoint: str = "") -> int:
        """Begin a worker; its pid."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{failpoint}\n".encode())
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self) -> None:
        """Kill them all."""
        kill_at_once(family(self._process.pid))
        self._process.communicate()


@pytest.fixture
def workers(migrated: dict[str, str], tmp_path: Path) -> Iterator[Workers]:
    started = Workers(migrated, tmp_path / "workers.log")
    yield started
    started.end()


@pytest.fixture
async def open_shop(migrated: dict[str, str]) -> AsyncIterator[Market]:
    """A tenant of its own on the servers of the module."""
    runtime = open_runtime(from_environment(migrated), load_registry())
    tenant = await create_tenant(runtime, name="Taken over")
    yield await open_market(runtime, TenantId(tenant.tenant.tenant_id))
    await runtime.close()


async def test_a_worker_that_is_frozen_at_any_step_of_sealing_is_followed_by_another(
    open_shop: Market, workers: Workers, migrated: dict[str, str]
) -> None:
    keys = [f"event-{number}" for number in range(EVENTS)]
    await open_shop.take(*map(open_shop.event, keys))
    frozen = []
    for step in STEPS:
        frozen.append(workers.begin(FREEZES + step))
        assert wait_until(lambda: is_frozen(frozen[-1]), seconds=WAIT_SECONDS), workers.said
    last = workers.begin()
    await open_shop.take(open_shop.event("one more"))
    await until(lambda: is_all_in_log(open_shop), seconds=WAIT_SECONDS)

    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    await open_shop.take(open_shop.event("after all go on"))
    os.kill(last, signal.SIGKILL)  # One of those that were frozen follows.
    await until(lambda: is_all_in_log(open_shop), seconds=WAIT_SECONDS)
    await check(open_shop, migrated, [*keys, "one more", "after all go on"])


async def test_a_worker_that_is_killed_while_it_seals_is_followed_by_the_one_that_stands_by(
    open_shop: Market, workers: Workers, migrated: dict[str, str]
) -> None:
    keys = [f"event-{number}" for number in range(EVENTS)]
    leading = workers.begin("confirm.inserted")
    await until(lambda: is_led(open_shop), seconds=WAIT_SECONDS)
    workers.begin()
    await open_shop.take(*map(open_shop.event, keys))
    await until(lambda: is_all_in_log(open_shop), seconds=WAIT_SECONDS)
    assert state_of(leading) == "Z"
    await check(open_shop, migrated, keys)


def is_frozen(pid: int) -> bool:
    return state_of(pid) == "T"


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def is_led(market: Market) -> bool:
    return await market.try_to_seal() is None


async def is_all_in_log(market: Market) -> bool:
    return not await market.rows("event_inbox")


async def check(market: Market, environment: Mapping[str, str], keys: list[str]) -> None:
    """Each key is in the log once, and the log is as it was sealed."""
    async with market.scope() as scope:
        found = await scope.events.query(
            f"SELECT idempotency_key, count() AS times FROM {queries.EVENTS} GROUP BY 1",
            watermark=await queries.watermark(scope),
        )
    assert {row["idempotency_key"]: row["times"] for row in found} == dict.fromkeys(keys, 1)
    await checked_contents(market)
    verified = run("verify", environment=environment)
    assert verified.returncode == 0, verified.stdout + verified.stderr
