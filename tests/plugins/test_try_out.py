"""A plugin of a single file tried out: by a real `aforo serve`, and through to an invoice."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from aforo import cli
from aforo.plugins import load_registry
from aforo.plugins.new import rendered
from aforo.sdk.kinds import KINDS
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from benchmarks.ports import free_port
from tests.api.forms import GraphQL, change, line, made, meter, plan
from tests.api.shop import call
from tests.conftest import Send

RunJobs = Callable[[], Awaitable[None]]

ROOT = Path(__file__).parents[2]
READY_SECONDS = 120
STEPS = {"limit": "100", "firstPrice": "0.03", "otherPrice": "0.02"}
LISTED = "{ pricingModels { key distribution settingsForm } }"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """What `aforo plugins new` would have written, as one file."""
    path = tmp_path / "my_pricing.py"
    written = rendered(KINDS["pricing"], "acme-pricing")[Path("acme_pricing/__init__.py")]
    path.write_text(written)
    yield path
    sys.modules.pop("my_pricing", None)


@pytest.fixture
def runtime(runtime: Runtime, file: Path) -> Runtime:
    """One that has loaded the file."""
    return dataclasses.replace(runtime, plugins=load_registry(files=[file]))


@pytest.mark.anyio
async def test_a_rate_plan_prices_with_it(graphql: GraphQL, send: Send, run_jobs: RunJobs) -> None:
    meter_id = await made(graphql, "createMeter", **meter(unit="token"))
    refused = await change(
        graphql,
        "createRatePlan",
        **plan(line(meter_id, model="acme.steps", settings=STEPS | {"limit": "0"})),
    )
    assert refused["field"] == "lines.0.settings.limit"
    plan_id = await made(
        graphql,
        "createRatePlan",
        **plan(line(meter_id, model="acme.steps", settings=STEPS)),
    )
    product_id = await made(graphql, "createProduct", code="llm", name="LLM")
    offering_id = await made(
        graphql, "createOffering", code="pro", name="Pro", productId=product_id, ratePlanId=plan_id
    )
    customer_id = await made(
        graphql, "createCustomer", externalId="acme", name="Acme", currency="USD"
    )
    await made(
        graphql,
        "createSubscription",
        customerId=customer_id,
        offeringId=offering_id,
        startsAt="2026-10-01T00:00:00Z",
        anchorDay=1,
        graceSeconds=0,
    )
    assert (await send(call(1, "100"), call(2, "50.5")))["accepted"] == 2
    await run_jobs()
    await made(graphql, "startBillRun", until="2026-11-20T12:00:00Z")
    await run_jobs()
    query = "{ invoices { edges { node { total lines { amount steps { label amount } } } } } }"
    [edge] = (await graphql(query))["invoices"]["edges"]
    [billed] = edge["node"]["lines"]
    # 100 at 0.03 and 50.5 at 0.02.
    assert Decimal(billed["amount"]) == Decimal("4.01")
    assert [step["label"] for step in billed["steps"]] == ["First 100", "Above"]


@pytest.mark.anyio
async def test_a_server_of_its_own_offers_it(
    runtime: Runtime, tenant: NewTenant, file: Path, tmp_path: Path
) -> None:
    port = free_port()
    log = tmp_path / "serve.log"
    process = started("serve", "--port", str(port), "--plugin", str(file), runtime=runtime, log=log)
    try:
        headers = {"Authorization": f"Bearer {tenant.key.token}"}
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers
        ) as client:
            with anyio.fail_after(READY_SECONDS):
                while not await is_healthy(client):
                    assert process.poll() is None, log.read_text()
                    await anyio.sleep(0.1)
            answer = (await client.post("/graphql", json={"query": LISTED})).json()
    finally:
        process.terminate()
        process.wait(30)
    found = {each["key"]: each for each in answer["data"]["pricingModels"]}
    assert found["acme.steps"]["distribution"] is None
    assert found["acme.steps"]["settingsForm"]["examples"] == [STEPS]
    assert "FLAT" in found


def started(*arguments: str, runtime: Runtime, log: Path) -> "subprocess.Popen[bytes]":
    """The command as a process of its own, on the engines of the test."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-c", "from aforo.cli import main; main()", *arguments],
            env=environment(runtime),
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


async def is_healthy(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/healthz")).status_code == 200
    except httpx2.TransportError:
        return False


def environment(runtime: Runtime) -> dict[str, str]:
    """What a process is told that shall run beside the test on the same engines."""
    settings = runtime.settings
    return {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "plugins/aforo-standard"))),
        "AFORO_DATABASE_URL": settings.database_url,
        "AFORO_REDIS_URL": settings.redis_url,
        "AFORO_CLICKHOUSE_URL": settings.clickhouse_url,
        "AFORO_KEY_PEPPER": settings.key_pepper,
        "AFORO_DATA_DIR": str(settings.data_dir),
    }


@pytest.mark.parametrize("command", ["serve", "worker"])
@pytest.mark.parametrize(
    ("production", "told"),
    [
        (False, "aforo: the plugin no_such_file.py does not exist: looked for "),
        (True, "aforo: --plugin is for trying things out: with AFORO_PRODUCTION install "),
    ],
)
def test_a_server_does_not_start_with_a_file_that_it_cannot_have(
    monkeypatch: pytest.MonkeyPatch, command: str, production: bool, told: str
) -> None:
    given: dict[str, Any] = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "CLICKHOUSE_URL": "http://127.0.0.1:1/none",
        "KEY_PEPPER": "a pepper for tests, long enough to be one",
        "MASTER_KEY": "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        "PORT": "0",
        "PRODUCTION": "true" if production else "false",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"AFORO_{name}", value)
    monkeypatch.setattr(sys, "argv", ["aforo", command, "--plugin", "no_such_file.py"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert str(ended.value.code).startswith(told)
