"""Work that is done for several at once: in rounds, bounded, and to each his own result."""

import asyncio
from collections.abc import Sequence

import pytest

from aforo.sdk.errors import Invalid, Unavailable
from aforo.storage.together import Bounds, Together

BOUNDS = Bounds(round_max=4, waiting_max=10, rounds_at_once=1)


class Doubling:
    """Work that doubles numbers, as soon as it may go on."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.may_go_on = asyncio.Event()

    @property
    def numbers(self) -> list[int]:
        """All of them, in the order in which they were worked on."""
        return [number for numbers in self.rounds for number in numbers]

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.rounds.append([*numbers])
        await self.may_go_on.wait()
        if len(numbers) > 2 and 13 in numbers:
            raise Unavailable("away", retry_after_seconds=1)
        if 13 in numbers or 14 in numbers:
            raise Invalid("bad luck")
        return [2 * number for number in numbers]


async def begun(together: Together[int, int], *numbers: int) -> list[asyncio.Task[int]]:
    """Ask for each, in order; all wait once this returns."""
    tasks = [asyncio.create_task(together.do(number)) for number in numbers]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_who_comes_while_a_round_runs_shares_the_next_and_gets_his_own_result() -> None:
    work = Doubling()
    together = Together(work, bounds=BOUNDS, name="doubling")
    tasks = await begun(together, 1, 2, 3)
    work.may_go_on.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6]
    assert work.rounds in ([[1, 2, 3]], [[1], [2, 3]])
    assert together.waiting == 0


async def test_a_round_takes_no_more_than_its_bound_but_for_one_that_is_larger_itself() -> None:
    work = Doubling()
    sizes = {1: 1, 2: 3, 3: 2, 4: 9, 5: 1}
    bounds = Bounds(round_max=4, waiting_max=sum(sizes.values()), rounds_at_once=1)
    together = Together(work, bounds=bounds, name="doubling")
    tasks = [asyncio.create_task(together.do(number, size=sizes[number])) for number in sizes]
    work.may_go_on.set()
    await asyncio.gather(*tasks)
    assert work.numbers == [1, 2, 3, 4, 5]
    for numbers in work.rounds:
        assert len(numbers) == 1 or sum(sizes[number] for number in numbers) <= 4


async def test_where_too_much_waits_the_next_is_told_to_come_back_and_room_comes_back() -> None:
    work = Doubling()
    together = Together(work, bounds=BOUNDS, name="doubling")
    tasks = await begun(together, *range(10))
    with pytest.raises(Unavailable, match="doubling has more to do") as refused:
        await together.do(99)
    assert refused.value.retry_after_seconds == 1
    work.may_go_on.set()
    await asyncio.gather(*tasks)
    assert await together.do(99) == 198


async def test_one_that_is_larger_than_all_that_may_wait_is_done_while_nothing_else_waits() -> None:
    work = Doubling()
    work.may_go_on.set()
    together = Together(work, bounds=BOUNDS, name="doubling")
    assert await together.do(1, size=1_000) == 2


async def test_one_at_fault_is_found_and_the_others_of_its_round_are_done() -> None:
    work = Doubling()
    together = Together(work, bounds=BOUNDS, name="doubling")
    tasks = await begun(together, 1, 14, 2)
    work.may_go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert (results[0], results[2]) == (2, 4)
    assert isinstance(results[1], Invalid)
    assert together.waiting == 0


async def test_where_an_engine_is_away_all_are_told_and_none_is_tried_again() -> None:
    work = Doubling()
    together = Together(work, bounds=BOUNDS, name="doubling")
    [first] = await begun(together, 0)
    tasks = await begun(together, 1, 13, 2)
    work.may_go_on.set()
    assert await first == 0
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 3
    assert work.rounds == [[0], [1, 13, 2]]


async def test_who_gives_up_before_his_round_is_left_out_and_holds_up_nobody() -> None:
    work = Doubling()
    together = Together(work, bounds=BOUNDS, name="doubling")
    [first] = await begun(together, 1)
    [second, third] = await begun(together, 2, 3)
    second.cancel()
    first.cancel()
    await asyncio.sleep(0)
    work.may_go_on.set()
    assert await third == 6
    assert 2 not in work.numbers
    assert together.waiting == 0


@pytest.mark.parametrize("at_once", [1, 2, 3])
async def test_nobody_waits_for_a_round_that_is_just_over(at_once: int) -> None:
    async def work(numbers: Sequence[int]) -> list[int]:
        await asyncio.sleep(0)
        return [2 * number for number in numbers]

    bounds = Bounds(round_max=4, waiting_max=100, rounds_at_once=at_once)
    together = Together(work, bounds=bounds, name="doubling")

    async def ask_again_and_again(offset: int) -> None:
        for number in range(200):
            for _ in range((number + offset) % 3):
                await asyncio.sleep(0)  # So that it comes at every moment of a round.
            assert await together.do(number) == 2 * number

    async with asyncio.timeout(60):
        await asyncio.gather(*map(ask_again_and_again, range(5)))
    assert together.waiting == 0
