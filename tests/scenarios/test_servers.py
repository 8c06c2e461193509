"""Aforo on servers: APIs and workers as processes of their own, some of which are killed."""

import json
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from aforo.storage.embedded.processes import wait_until
from benchmarks.ports import free_port
from tests.scenarios.processes import Running, gone, run

READY_SECONDS = 120
WORK_SECONDS = 120
MONTH_START = (datetime.now(UTC).replace(day=1) - timedelta(days=1)).replace(
    day=1, hour=0, minute=0, second=0, microsecond=0
)


@dataclass(frozen=True)
class Api:
    """One API process, and a client of it."""

    process: Running
    client: httpx2.Client

    def is_healthy(self) -> bool:
        assert self.process.process.poll() is None, self.process.said
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx2.TransportError:
            return False

    def graphql(self, document: str, **variables: Any) -> dict[str, Any]:
        answer = self.client.post(
            "/graphql", json={"query": document, "variables": variables}
        ).json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def create(self, thing: str, **fields: Any) -> str:
        """Create something; its id."""
        name = thing[0].upper() + thing[1:]
        made = self.graphql(
            f"mutation Create($input: Create{name}Input!) {{ create{name}(input: $input) "
            "{ ... on Node { id } ... on Problem { message field } } }",
            input=fields,
        )[f"create{name}"]
        assert "id" in made, made
        return str(made["id"])

    def send(self, *events: dict[str, Any]) -> dict[str, Any]:
        response = self.client.post("/v1/events", json=list(events))
        assert response.status_code == 202, response.text
        answer: dict[str, Any] = response.json()
        return answer


def test_processes_share_the_work_and_the_rest_go_on_when_some_are_killed(
    migrated: dict[str, str], tmp_path: Path
) -> None:
    made = run("tenant", "Two of each", environment=migrated)
    assert made.returncode == 0, made.stderr
    key = json.loads(made.stdout)["apiKey"]

    with ExitStack() as cleanup:
        apis = [_api(number, key, migrated, tmp_path, cleanup) for number in range(2)]
        workers = [_worker(number, migrated, tmp_path, cleanup) for number in range(2)]
        for api in apis:
            assert wait_until(api.is_healthy, seconds=READY_SECONDS), api.process.said
        first, second = apis

        _open_shop(first)
        sent = first.send(_call("a", 3), _call("b", 4)), second.send(_call("c", 5), _call("a", 3))
        assert [answer["accepted"] for answer in sent] == [2, 1]
        assert sent[1]["duplicates"] == 1
        _start_bill_run(first)
        assert _invoices(second) == {"acme": ["22.00"]}

        families = [first.process.family(), workers[0].family()]
        first.process.end(signal.SIGKILL)
        workers[0].end(signal.SIGKILL)
        assert all(gone(family) for family in families)

        _subscribe(second, "globex")
        assert second.send(_call("d", 8, customer="globex"))["accepted"] == 1
        _start_bill_run(second)
        assert _invoices(second, count=2) == {"acme": ["22.00"], "globex": ["18.00"]}

        families = [second.process.family(), workers[1].family()]
        assert second.process.end(signal.SIGTERM) == 0, second.process.said
        assert workers[1].end(signal.SIGINT) == 0, workers[1].said
        assert all(gone(family) for family in families)
        assert "Traceback" not in second.process.said + workers[1].said


def test_the_demo_fills_servers_in_beside_their_workers(
    migrated: dict[str, str], tmp_path: Path
) -> None:
    with ExitStack() as cleanup:
        worker = _worker(2, migrated, tmp_path, cleanup)
        demo = Running(
            ["demo", "--attach", "--folder", str(tmp_path / "demo"), "--url", "https://aforo.test"],
            log=tmp_path / "demo.log",
            environment=migrated,
        )
        cleanup.callback(demo.process.kill)
        key_file = tmp_path / "demo" / "demo.json"
        assert wait_until(key_file.exists, seconds=READY_SECONDS), demo.said
        assert json.loads(key_file.read_text())["url"] == "https://aforo.test"
        assert demo.end(signal.SIGTERM) == 0, demo.said
        assert worker.end(signal.SIGTERM) == 0, worker.said
        assert "Traceback" not in demo.said + worker.said


def test_the_doctor_finds_a_healthy_installation_and_each_fault(
    migrated: dict[str, str],
) -> None:
    healthy = run("doctor", "--json", environment=migrated)
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    findings = {each["check"]: each for each in json.loads(healthy.stdout)}
    assert set(findings) >= {
        "postgresql", "login", "postgresql migrations", "jobs", "failed jobs", "inbox",
        "segments", "redis", "clickhouse", "clickhouse migrations", "plugins", "key pepper",
        "disk",
    }  # fmt: skip

    nowhere = f"127.0.0.1:{free_port()}"
    faulty = {
        **migrated,
        "AFORO_REDIS_URL": f"redis://{nowhere}/0",
        "AFORO_CLICKHOUSE_URL": f"http://{nowhere}/aforo",
        "AFORO_KEY_PEPPER": "x" * 40,
    }
    sick = run("doctor", "--json", environment=faulty)
    assert sick.returncode == 1
    faults = {each["check"]: each for each in json.loads(sick.stdout) if not each["ok"]}
    assert set(faults) == {"redis", "clickhouse", "key pepper"}
    assert "AFORO_REDIS_URL" in faults["redis"]["advice"]
    assert "openssl rand" in faults["key pepper"]["advice"]


def _api(
    number: int, key: str, environment: dict[str, str], folder: Path, cleanup: ExitStack
) -> Api:
    port = free_port()
    process = Running(
        ["serve", "--port", str(port)], log=folder / f"api-{number}.log", environment=environment
    )
    cleanup.callback(process.process.kill)
    client = httpx2.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}
    )
    cleanup.enter_context(client)
    return Api(process, client)


def _worker(number: int, environment: dict[str, str], folder: Path, cleanup: ExitStack) -> Running:
    process = Running(["worker"], log=folder / f"worker-{number}.log", environment=environment)
    cleanup.callback(process.process.kill)
    return process


def _open_shop(api: Api) -> None:
    meter = api.create(
        "meter",
        code="units",
        name="Units",
        eventType="shop.call",
        aggregation="SUM",
        property="units",
    )
    plan = api.create(
        "ratePlan",
        code="plan",
        name="Plan",
        currency="USD",
        lines=[
            {"code": "fee", "name": "Fee", "model": "FLAT", "settings": {"fee": "10"}},
            {
                "code": "units",
                "name": "Units",
                "model": "PER_UNIT",
                "settings": {"unitPrice": "1"},
                "meterId": meter,
            },
        ],
    )
    product = api.create("product", code="shop", name="Shop")
    api.create("offering", code="shop", name="Shop", productId=product, ratePlanId=plan)
    _subscribe(api, "acme")


def _subscribe(api: Api, external_id: str) -> None:
    offerings = api.graphql("{ offerings(first: 1) { edges { node { id } } } }")["offerings"]
    customer = api.create("customer", externalId=external_id, name=external_id, currency="USD")
    api.create(
        "subscription",
        customerId=customer,
        offeringId=offerings["edges"][0]["node"]["id"],
        startsAt=MONTH_START.isoformat(),
        anchorDay=1,
        graceSeconds=0,
    )


def _call(key: str, units: int, *, customer: str = "acme") -> dict[str, Any]:
    return {
        "idempotencyKey": key,
        "type": "shop.call",
        "customer": customer,
        "occurredAt": (MONTH_START + timedelta(days=20)).isoformat(),
        "properties": {"units": units},
    }


def _start_bill_run(api: Api) -> None:
    until = (MONTH_START + timedelta(days=31)).replace(day=1).isoformat()
    started = api.graphql(
        "mutation Bill($input: StartBillRunInput!) { startBillRun(input: $input) "
        "{ __typename ... on Problem { message } } }",
        input={"until": until},
    )
    assert started["startBillRun"]["__typename"] == "BillRun", started


def _invoices(api: Api, *, count: int = 1) -> dict[str, list[str]]:
    """Totals of the finalised invoices by customer, once there are so many."""
    found: dict[str, list[str]] = {}

    def are_there() -> bool:
        found.clear()
        page = api.graphql(
            "{ invoices(first: 10) { edges { node { state total customer { externalId } } } } }"
        )
        for edge in page["invoices"]["edges"]:
            invoice = edge["node"]
            if invoice["state"] == "FINALIZED":
                found.setdefault(invoice["customer"]["externalId"], []).append(invoice["total"])
        return len(found) >= count

    wait_until(are_there, seconds=WORK_SECONDS)
    return found
