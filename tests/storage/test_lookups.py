"""Look-ups of names whose servers are slow: they hold up their own tenant, and nobody else."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import pytest

from aforo.sdk.ids import TenantId
from aforo.storage.lookups import AT_ONCE, AT_ONCE_OF_TENANT, Lookups

pytestmark = pytest.mark.anyio

SLOW, QUICK, NOBODY = "slow.example", "quick.example", "nobody.example"
ADDRESS = "93.184.216.34"


class Resolver:
    """A resolver that blocks at one name until it is told to go on."""

    def __init__(self) -> None:
        self.go_on = threading.Semaphore(0)
        self.begun = 0

    def __call__(self, host: str, _port: int) -> list[str]:
        if host == SLOW:
            self.begun += 1
            assert self.go_on.acquire(timeout=10)
        if host == NOBODY:
            raise OSError("no such host")
        return [ADDRESS]


@pytest.fixture
async def resolver() -> AsyncIterator[Resolver]:
    made = Resolver()
    yield made
    made.go_on.release(1_000)


def tenant(number: int) -> TenantId:
    return TenantId(UUID(int=number))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (it is threads that tell)
            await asyncio.sleep(0.001)


async def quick(lookups: Lookups, number: int) -> list[str]:
    async with asyncio.timeout(60):
        return await lookups(tenant(number), QUICK, 443)


async def test_a_tenant_with_slow_name_servers_holds_up_only_itself(resolver: Resolver) -> None:
    lookups = Lookups(resolver)
    slow = [asyncio.create_task(lookups(tenant(1), SLOW, 443)) for _ in range(2 * AT_ONCE)]
    await until(lambda: resolver.begun == AT_ONCE_OF_TENANT)
    assert await quick(lookups, 2) == [ADDRESS]
    waiting = asyncio.create_task(lookups(tenant(1), QUICK, 443))
    assert await quick(lookups, 2) == [ADDRESS]
    assert resolver.begun == AT_ONCE_OF_TENANT
    assert not waiting.done()
    resolver.go_on.release(len(slow))
    assert await asyncio.gather(*slow, waiting) == [[ADDRESS]] * (len(slow) + 1)


async def test_a_look_up_that_is_given_up_holds_its_place_until_its_thread_is_done(
    resolver: Resolver,
) -> None:
    lookups = Lookups(resolver)
    slow = [asyncio.create_task(lookups(tenant(1), SLOW, 443)) for _ in range(10)]
    await until(lambda: resolver.begun == AT_ONCE_OF_TENANT)
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    waiting = asyncio.create_task(lookups(tenant(1), QUICK, 443))
    assert await quick(lookups, 2) == [ADDRESS]
    assert not waiting.done()
    resolver.go_on.release()
    async with asyncio.timeout(60):
        assert await waiting == [ADDRESS]
    assert resolver.begun == AT_ONCE_OF_TENANT  # Those that waited were never begun.


async def test_all_tenants_together_have_so_many_threads_and_take_turns(
    resolver: Resolver,
) -> None:
    lookups = Lookups(resolver)
    full = AT_ONCE // AT_ONCE_OF_TENANT
    slow = [
        asyncio.create_task(lookups(tenant(number), SLOW, 443))
        for number in range(full + 1)
        for _ in range(AT_ONCE_OF_TENANT)
    ]
    await until(lambda: resolver.begun == AT_ONCE)
    late = asyncio.create_task(lookups(tenant(100), QUICK, 443))
    given_up = asyncio.create_task(lookups(tenant(101), SLOW, 443))
    await asyncio.sleep(0)
    given_up.cancel()
    assert resolver.begun == AT_ONCE
    # Before it are the four that wait of the last tenant, whatever the others ask for later.
    more = [asyncio.create_task(lookups(tenant(1), SLOW, 443)) for _ in range(AT_ONCE)]
    await asyncio.sleep(0)
    resolver.go_on.release(AT_ONCE_OF_TENANT + 1)
    async with asyncio.timeout(60):
        assert await late == [ADDRESS]
    resolver.go_on.release(1_000)
    await asyncio.gather(*slow, *more)


async def test_a_name_without_addresses_is_an_error_and_leaves_its_place(
    resolver: Resolver,
) -> None:
    lookups = Lookups(resolver)
    for _ in range(2 * AT_ONCE_OF_TENANT):
        with pytest.raises(OSError, match="no such host"):
            await lookups(tenant(1), NOBODY, 443)
    assert await quick(lookups, 1) == [ADDRESS]
    await until(lambda: not lookups._shares)  # Nothing is remembered of a tenant that is done.


async def test_the_systems_resolver_knows_this_machine() -> None:
    assert "127.0.0.1" in await Lookups()(tenant(1), "localhost", 80)
