"""The client inside of programs: forks, threads, asyncio, the end, and what it is set up with."""

import asyncio
import itertools
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aforo_client import AsyncClient, Client, InvalidEvent, Options, Stats
from tests.clients.conftest import Address
from tests.clients.python.between import Between
from tests.clients.python.conftest import OF_TOKENS, PACKAGE, QUICK, is_empty, sent, track
from tests.conftest import NOW

pytestmark = pytest.mark.anyio

Opened = Callable[..., Client]
Counted = Callable[[], Awaitable[list[str]]]


async def test_the_fork_of_a_process_tracks_for_itself(
    opened: Opened, counted: Counted, between: Between
) -> None:
    await between.down()  # So that the parent still has everything, and a connection to nobody.
    with opened() as client:
        track(client, "parent-before")
        child = os.fork()
        if child == 0:
            # In the child: no exception may reach pytest, and nothing of it may be ended here.
            status = 1
            try:
                track(client, "child")
                status = 0 if client.stats().tracked == 1 else 2
            finally:
                os._exit(status)
        _, ended = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(ended) == 0
        track(client, "parent-after")
        assert client.stats().tracked == 2
        await between.up()
        assert client._parts is not None
        client._parts.spool.adopt()  # As it does every few seconds.
        assert await sent(client)
        assert client.stats().adopted == 1
    assert await counted() == ["child", "parent-after", "parent-before"]


async def test_many_threads_track_at_once(opened: Opened, counted: Counted) -> None:
    with opened(segment_bytes=2_000, fsync="always") as client:
        names = [[f"{thread}-{number}" for number in range(20)] for thread in range(8)]
        await asyncio.gather(*(asyncio.to_thread(track, client, *each) for each in names))
        assert await sent(client)
    assert await counted() == sorted(itertools.chain.from_iterable(names))


async def test_with_asyncio_it_is_the_same(
    between: Between, address: Address, counted: Counted, tmp_path: Path
) -> None:
    options = Options(**QUICK)
    async with AsyncClient(between.url, address.key, tmp_path, options=options) as client:
        key = await client.track("llm.request", **OF_TOKENS, properties={"tokens": 1})
        assert await client.flush()
        assert client.stats().accepted == 1
        assert address.key not in repr(client)
        with pytest.raises(InvalidEvent):
            await client.track("llm.request", **OF_TOKENS, properties={"tokens": 1.5})
    assert await counted() == [key]


async def test_what_is_not_sent_at_the_end_of_the_program_stays_for_the_next(
    opened: Opened, between: Between, counted: Counted, tmp_path: Path, address: Address
) -> None:
    program = (
        "import sys\n"
        "from datetime import datetime\n"
        "from aforo_client import Client, Options\n"
        "url, key, spool, now = sys.argv[1:]\n"
        "client = Client(url, key, spool, options=Options(linger_seconds=60, exit_seconds=10))\n"
        "client.track('llm.request', customer='acme', idempotency_key='a',\n"
        "             occurred_at=datetime.fromisoformat(now))\n"
    )
    await run_python(program, between.url, address.key, str(tmp_path / "spool"), NOW.isoformat())
    assert await counted() == ["a"]
    assert is_empty(tmp_path)


async def run_python(program: str, *arguments: str) -> None:
    """Run a program that may import the client; it must end well and say nothing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        program,
        *arguments,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        said, _ = await process.communicate()
    assert (process.returncode, said.decode()) == (0, "")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"url": "ftp://aforo.test"}, "url is the address of Aforo"),
        ({"url": "aforo.test"}, "url is the address of Aforo"),
        ({"key": ""}, "key is an API key"),
        ({"key": "afo live"}, "key is an API key"),
    ],
)
def test_an_address_or_a_key_that_is_none_is_refused(
    tmp_path: Path, given: dict[str, str], sentence: str
) -> None:
    values = {"url": "http://aforo.test", "key": "afo_test_a", **given}
    with pytest.raises(ValueError, match=sentence):
        Client(values["url"], values["key"], tmp_path / "spool")
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize(
    "given",
    [
        {"batch_events": 0},
        {"batch_events": 1_001},
        {"batch_bytes": 0},
        {"batch_bytes": 10 * 1024 * 1024 + 1},
        {"fsync": "sometimes"},
        {"segment_bytes": 10, "spool_bytes_max": 9},
        {"timeout_seconds": 0},
        {"adopt_seconds": -1},
    ],
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any]) -> None:
    name, *_ = given
    with pytest.raises(ValueError, match=rf"^{name} is .*, not "):
        Options(**given)


def test_figures_add_up() -> None:
    assert Stats(accepted=1, duplicates=2, conflicts=3, rejected=4, quarantined=5).decided == 15
