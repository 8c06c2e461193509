"""The demo as a newcomer meets it: started, looked at, stopped, cut off, and started again."""

import json
import re
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from aforo.demo.cast import UNPROFITABLE
from aforo.demo.greeting import QUERY
from aforo.demo.places import OURS, DemoFolder
from aforo.storage.embedded.processes import wait_until
from benchmarks.ports import free_port
from tests.scenarios.processes import Running, gone, run

READY_SECONDS = 120
TOKEN = re.compile(r"afo_live_\w+")
DIARY = """
{
  tenant { id }
  invoices(first: 20) { edges { node { state total customer { externalId } } } }
  signals(first: 20) { edges { node { id detector customer { externalId } } } }
  actions(first: 20) { edges { node { mode signal { id } } } }
  events(first: 1) { edges { node { idempotencyKey } } }
}
"""


@dataclass(frozen=True)
class Demo:
    """A demo that runs."""

    running: Running
    folder: Path

    @property
    def access(self) -> dict[str, str]:
        return dict(json.loads((self.folder / "demo.json").read_text()))

    def is_ready(self) -> bool:
        assert self.running.process.poll() is None, self.running.said
        return "Ctrl-C stops everything" in self.running.said

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(self.access["url"] + path)

    def ask(self, document: str) -> dict[str, Any]:
        answer = httpx2.post(
            f"{self.access['url']}/graphql",
            json={"query": document},
            headers={"Authorization": f"Bearer {self.access['apiKey']}"},
        ).json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data


Start = Callable[..., Demo]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start demos on one folder, with their own log each; what still runs is killed at the end."""
    started: list[Running] = []

    def begin(*options: str) -> Demo:
        running = Running(
            ["demo", "--folder", str(tmp_path / "demo"), "--port", str(free_port()), *options],
            log=tmp_path / f"demo-{len(started)}.log",
            environment={},
        )
        started.append(running)
        return Demo(running, tmp_path / "demo")

    yield begin
    for each in started:
        each.process.kill()


def test_a_demo_is_cut_off_started_stopped_and_started_again(start: Start) -> None:
    cut_off = start()
    assert wait_until(lambda: "Creating the catalogue" in cut_off.running.said, seconds=60)
    family = cut_off.running.family()
    cut_off.running.end(signal.SIGKILL)
    assert gone(family)

    demo = start()
    assert wait_until(demo.is_ready, seconds=READY_SECONDS), demo.running.said
    assert "The first start was cut off before its data was whole" in demo.running.said
    access = demo.access
    assert set(access) == {"url", "apiKey", "tenant"}
    assert TOKEN.findall(demo.running.said) == [access["apiKey"]]
    assert stat.S_IMODE((demo.folder / "demo.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(demo.folder.stat().st_mode) == 0o700
    assert demo.get("/healthz").status_code == 200
    invoices = _has_something_to_say(demo)
    _cannot_be_disturbed(demo)
    _is_well(demo)
    _stops(demo, signal.SIGINT)

    again = start()
    assert wait_until(again.is_ready, seconds=READY_SECONDS), again.running.said
    assert TOKEN.findall(again.running.said) == []
    assert again.access == {**access, "url": again.access["url"]}
    assert _has_something_to_say(again) == invoices
    _stops(again, signal.SIGTERM)

    (again.folder / "demo.json").unlink()
    without_key = start()
    assert wait_until(without_key.is_ready, seconds=READY_SECONDS), without_key.running.said
    assert TOKEN.findall(without_key.running.said) == [without_key.access["apiKey"]]
    assert without_key.access["apiKey"] != access["apiKey"]
    assert without_key.ask(DIARY)["tenant"]["id"] == access["tenant"]
    _stops(without_key, signal.SIGINT)


def test_a_demo_starts_over_in_its_own_folder_alone(tmp_path: Path) -> None:
    others = tmp_path / "others"
    (others / "redis").mkdir(parents=True)
    refused = run("demo", "--reset", "--folder", str(others), environment={})
    assert refused.returncode == 1
    assert "has other things in it (redis)" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert (others / "redis").is_dir()

    folder = DemoFolder(tmp_path / "demo")
    for name in (*OURS, "archive"):
        (folder.root / name).mkdir()
    folder.clear()
    assert {each.name for each in folder.root.iterdir()} == {"archive", "lock", "state.json"}


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run(
            "demo", "--folder", str(tmp_path / "demo"), "--port", str(port), environment={}
        )
    assert refused.returncode == 1
    assert refused.stderr == (
        f"aforo: port {port} of 127.0.0.1 is in use: "
        "stop what uses it, or choose another with --port\n"
    )


def _has_something_to_say(demo: Demo) -> set[tuple[str, str]]:
    """Invoices of the closed month, a margin that is gone, and what would be done about it."""
    assert demo.ask(QUERY)["invoices"]["edges"]
    page = demo.ask(DIARY)
    assert page["tenant"]["id"] == demo.access["tenant"]
    invoices = [edge["node"] for edge in page["invoices"]["edges"]]
    assert len(invoices) == 10
    assert {each["state"] for each in invoices} == {"FINALIZED"}
    signals = [edge["node"] for edge in page["signals"]["edges"]]
    assert ("margin_guard", UNPROFITABLE) in {
        (each["detector"], each["customer"]["externalId"]) for each in signals
    }
    actions = [edge["node"] for edge in page["actions"]["edges"]]
    assert {each["mode"] for each in actions} == {"SHADOW"}
    assert {each["signal"]["id"] for each in actions} == {each["id"] for each in signals}

    def traffic_flows() -> bool:
        latest = demo.ask(DIARY)["events"]["edges"][0]["node"]
        return str(latest["idempotencyKey"]).startswith("live-")

    assert wait_until(traffic_flows, seconds=60)
    return {(each["customer"]["externalId"], each["total"]) for each in invoices}


def _cannot_be_disturbed(demo: Demo) -> None:
    """A second demo on the folder is refused, also one that would delete its data."""
    for options in ((), ("--reset",)):
        refused = run(
            "demo", "--folder", str(demo.folder), "--port", str(free_port()), *options,
            environment={},
        )  # fmt: skip
        assert refused.returncode == 1
        assert f"another Aforo (process {demo.running.process.pid}) is running" in refused.stderr
    assert demo.get("/healthz").status_code == 200


def _is_well(demo: Demo) -> None:
    """The doctor finds the running demo by its folder."""
    examined = run("doctor", "--folder", str(demo.folder), environment={})
    assert examined.returncode == 0, examined.stdout + examined.stderr
    assert "FAULT" not in examined.stdout


def _stops(demo: Demo, how: signal.Signals) -> None:
    """One signal ends it in order; a second one does no harm."""
    family = demo.running.family()
    assert len(family) > 5
    demo.running.process.send_signal(how)
    assert demo.running.end(how) == 0, demo.running.said
    assert gone(family)
    assert "Traceback" not in demo.running.said
