"""The command `aforo import`: its options, its report, and that it can be killed at any moment."""

import asyncio
import inspect
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.models import OptionInfo

from aforo import cli
from aforo.cli_import import import_file
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.clients.conftest import Address, served
from tests.clients.node import Ended
from tests.importing.test_import import csv_of
from tests.metering.market import Market

pytestmark = pytest.mark.anyio

COMMAND = (sys.executable, "-c", "from aforo.cli import main; main()", "import")
SECONDS_MAX = 120
PATIENCE_SECONDS = 0.002


@pytest.fixture
async def address(runtime: Runtime, tenant: NewTenant) -> AsyncIterator[Address]:
    """The API on a free port."""
    async with served(runtime) as url:
        yield Address(url, tenant.key.token)


async def started(address: Address, *arguments: str | Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        *map(str, arguments),
        env={**os.environ, **address.environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(address: Address, *arguments: str | Path) -> Ended:
    process = await started(address, *arguments)
    async with asyncio.timeout(SECONDS_MAX):
        said, failed = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, said.decode(), failed.decode())


def acknowledged(state: Path) -> int:
    """How many batches the progress knows of."""
    return state.read_bytes().count(b"\n") - 1 if state.exists() else 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while not condition():  # noqa: ASYNC110 — another process brings it about.
            await asyncio.sleep(PATIENCE_SECONDS)


@pytest.mark.parametrize("how", ["kill", "terminate"])
async def test_a_killed_import_goes_on_where_it_was(
    market: Market, address: Address, tmp_path: Path, how: str
) -> None:
    path = csv_of(market, tmp_path / "x.csv", 1_000)
    state = tmp_path / "x.csv.aforo-progress"
    arguments = (path, "--batch", "10", "--parallel", "3", "--json")
    process = await started(address, *arguments)
    await until(lambda: acknowledged(state) > 5 or process.returncode is not None)
    getattr(process, how)()
    _, failed = await process.communicate()
    assert process.returncode == (-9 if how == "kill" else 130)
    assert ("run the same command again" in failed.decode()) == (how == "terminate")
    assert 5 < acknowledged(state) < 100
    ended = await run(address, *arguments)
    assert ended.code == 0, ended.failed
    told = json.loads(ended.said)
    assert told["rows"] == told["accepted"] + told["duplicates"] == 1_000
    assert told["duplicates"] <= 3 * 10  # At most what was under way was sent twice.
    assert len(await market.waiting()) == 1_000
    assert not state.exists()


async def test_the_report_counts_the_verdicts_and_the_exit_code_tells(
    market: Market, address: Address, tmp_path: Path
) -> None:
    when = market.runtime.clock.now() - timedelta(hours=1)
    table = pa.table(
        {
            "account": ["acme", "acme", "nobody"],
            "at": pa.array([when] * 3, pa.timestamp("us", tz="UTC")),
            "tokens": pa.array([1, 2, 3], pa.int64()),
            "note": ["a", "b", "c"],
        }
    )
    path = tmp_path / "usage.data"
    pq.write_table(table, path)
    key = tmp_path / "key"
    key.write_text(f"{address.key}\n")
    ended = await run(
        Address(address.url, "afo_live_wrong"),
        *(path, "--format", "parquet", "--key-file", key, "--packing", "gzip"),
        *("--map", "customer=account", "--map", "occurredAt=at", "--set", "type=llm.request"),
        *("--properties", "tokens"),
    )
    assert ended.code == 3, ended.failed
    listed = tmp_path / "usage.data.aforo-not-taken.ndjson"
    assert ended.said.splitlines() == [
        "3 rows",
        "             2 accepted",
        "             0 duplicates",
        "             0 conflicts",
        "             0 rejected",
        "             1 quarantined",
        f"What is wrong with which line: {listed}",
    ]
    [one] = [json.loads(line) for line in listed.read_text().splitlines()]
    assert (one["line"], one["code"]) == (3, "UNKNOWN_CUSTOMER")
    assert ended.failed == ""
    await market.seal()
    assert await market.used("tokens") == 3


async def test_what_stops_it_is_one_line(market: Market, address: Address, tmp_path: Path) -> None:
    path = csv_of(market, tmp_path / "x.csv", 3)
    ended = await run(Address(address.url, "afo_live_wrong"), path)
    assert ended.code == 1
    assert ended.failed.startswith("aforo: the API refuses batch 0: status 401, an API key is")
    nobody = Address("http://127.0.0.1:1", address.key)
    ended = await run(nobody, path, "--give-up-after", "1")
    assert ended.code == 1
    assert "the API gave no answer for 1 s: ConnectError" in ended.failed


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> object:
    """Run the command in this process; its exit code, or the sentence it ends with."""
    monkeypatch.setattr(sys, "argv", ["aforo", "import", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_a_check_reads_and_maps_everything_and_sends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    path = tmp_path / "x.csv"
    rows = ["type,customer,occurredAt,tokens", f"a,acme,{now.isoformat()},1"]
    path.write_text("\n".join(rows))
    arguments = (path, "--check", "--url", "http://127.0.0.1:1")
    assert call(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out == "1 rows, 0 of them wrong; nothing was sent\n"
    old = (now - timedelta(days=91)).isoformat()
    rows += [f"a,acme,{old},1", "a,acme,yesterday,1", f",acme,{old},1", "a,acme"]
    path.write_text("\n".join(rows))
    assert call(monkeypatch, *arguments, "--json") == 3
    listed = tmp_path / "x.csv.aforo-not-taken.ndjson"
    assert json.loads(capsys.readouterr().out) == {
        "rows": 5,
        "accepted": 1,
        "duplicates": 0,
        "conflicts": 0,
        "rejected": 4,
        "quarantined": 0,
        "notTaken": str(listed),
    }
    assert [json.loads(line)["code"] for line in listed.read_text().splitlines()] == [
        "TIMESTAMP_TOO_OLD",
        "BAD_VALUE",
        "MISSING_FIELD",
        "BAD_VALUE",
    ]
    assert len(list(tmp_path.iterdir())) == 2


def test_the_commands_of_the_manual_are_as_they_stand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs/import.md").read_text()
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    commands = [
        shlex.split(line.removeprefix("aforo import "))
        for line in blocks.replace("\\\n", " ").splitlines()
        if line.startswith("aforo import ")
    ]
    assert len(commands) == 4
    monkeypatch.chdir(tmp_path)
    now = datetime.now(UTC).isoformat()
    columns = ["type", "customer", "occurredAt", "account_id", "finished_at", "request_id"]
    columns += ["input_tokens", "output_tokens", "model"]
    row = ["llm.request", "acme", now, "acme", now, "1", "374", "44", "m1"]
    (tmp_path / "usage.csv").write_text(f"{','.join(columns)}\n{','.join(row)}\n")
    for command in commands:
        assert call(monkeypatch, *command, *([] if "--check" in command else ["--check"])) == 0
    assert capsys.readouterr().out == "1 rows, 0 of them wrong; nothing was sent\n" * 4
    offered = {
        option
        for parameter in inspect.signature(import_file).parameters.values()
        for option in re.findall(r"--[a-z][a-z-]+", " ".join(names_of(parameter)))
    }
    assert offered == set(re.findall(r"`?(--[a-z][a-z-]+)", page))


def names_of(parameter: inspect.Parameter) -> list[str]:
    """The options of a parameter, as typer names them."""
    info = parameter.annotation.__metadata__[0]
    if not isinstance(info, OptionInfo):
        return []
    given = [each for each in (info.default, *(info.param_decls or ())) if isinstance(each, str)]
    return given or [f"--{parameter.name.replace('_', '-')}"]


WRONG: list[tuple[tuple[str, ...], str]] = [
    (("none.csv",), "none.csv cannot be read"),
    (("x.txt",), "say --format"),
    (("x.csv", "--format", "xml"), "--format is csv, ndjson or parquet"),
    (("x.csv", "--map", "kind=x"), "--map kind=x: say <field>"),
    (("x.csv", "--delimiter", ";;"), "--delimiter is one character"),
    (("x.csv", "--packing", "br"), "--packing is zstd, gzip or none"),
    (("x.csv", "--url", "aforo.example"), "no address such as https://aforo.example"),
    (("x.csv", "--url", "http://aforo.example"), "use https, or say --allow-http"),
    (("x.csv", "--key-file", "none"), "none cannot be read as an API key"),
    (("x.ndjson", "--map", "type=x"), "lines of JSON are events as they are"),
    (("x.csv",), "no API key: put it into AFORO_API_KEY"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_what_is_wrong_is_said_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AFORO_API_KEY", raising=False)
    monkeypatch.delenv("AFORO_URL", raising=False)
    if "key" not in said.lower():
        monkeypatch.setenv("AFORO_API_KEY", "afo_live_x")
    for name in ("x.csv", "x.ndjson", "x.txt"):
        Path(name).write_text("type,customer,occurredAt\n")
    ended = call(monkeypatch, *arguments)
    assert said in str(ended)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.csv", "x.ndjson", "x.txt"]
