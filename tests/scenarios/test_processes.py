"""`aforo serve --processes`: several processes on one port are one API."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from aforo.storage.embedded.processes import wait_until
from benchmarks.ports import free_port
from tests.scenarios.processes import Running, gone, run

WAIT_SECONDS = 120
CONNECTIONS_MAX = 200


class Served:
    """Two processes on one port, and a key for a tenant of its own."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        made = run("tenant", "Several", environment=environment)
        assert made.returncode == 0, made.stderr
        self.key = json.loads(made.stdout)["apiKey"]
        self.url = f"http://127.0.0.1:{free_port()}"
        self.running = Running(
            ["serve", "--processes", "2", "--port", self.url.rpartition(":")[2]],
            log=folder / "serve.log",
            environment={**environment, "AFORO_LOG_REQUESTS": "1"},
        )
        assert wait_until(lambda: len(self.pids) == 2, seconds=WAIT_SECONDS), self.running.said

    @property
    def pids(self) -> list[int]:
        """Those that are up, the oldest first."""
        return [each["pid"] for each in self.entries if each["event"] == "the API listens"]

    @property
    def entries(self) -> list[dict[str, Any]]:
        lines = self.running.said.splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def client(self) -> httpx2.Client:
        """Over connections of its own."""
        return httpx2.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60
        )

    def clients_of_both(self, cleanup: ExitStack) -> list[httpx2.Client]:
        """A client whose connection each of the two has taken."""
        found: dict[int, httpx2.Client] = {}
        for _ in range(CONNECTIONS_MAX):
            client = cleanup.enter_context(self.client())
            found.setdefault(self.number_behind(client), client)
            if len(found) == 2:
                return list(found.values())
        raise AssertionError("one process takes all connections")

    def number_behind(self, client: httpx2.Client) -> int:
        """Which process answers on a client's connection, as its log says."""
        answer = client.get("/readyz")
        assert answer.status_code == 200
        request_id = answer.headers["X-Request-Id"]

        def found() -> list[int]:
            return [e["process"] for e in self.entries if e.get("request_id") == request_id]

        assert wait_until(lambda: bool(found()), seconds=WAIT_SECONDS)
        return found()[0]


@pytest.fixture(scope="module")
def served(migrated: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    started = Served(migrated, tmp_path_factory.mktemp("served"))
    yield started
    family = started.running.family()
    started.running.end(signal.SIGKILL)
    assert gone(family)  # Also where the parent had no time to tell them.


def event(key: str) -> dict[str, Any]:
    return {"idempotencyKey": key, "type": "call", "customer": "acme"}


def test_both_take_events_and_know_each_others_keys_and_what_is_revoked(served: Served) -> None:
    with ExitStack() as cleanup:
        first, second = served.clients_of_both(cleanup)
        made = graphql(
            first,
            'mutation { createApiKey(input: {name: "k", scopes: [INGEST]}) '
            "{ ... on NewApiKey { token apiKey { id } } ... on Problem { message } } }",
        )["createApiKey"]
        theirs = {"Authorization": f"Bearer {made['token']}"}
        for number, client in enumerate((first, second, first)):
            answer = client.post("/v1/events", json=[event("same"), event(f"other-{number}")])
            assert answer.status_code == 202
            counts = answer.json()
            assert counts["duplicates"] == (0 if number == 0 else 1)
            assert counts["quarantined"] == 2 - counts["duplicates"]
            assert client.post("/v1/events", json=[], headers=theirs).status_code == 202
        revoked = graphql(
            first,
            "mutation($id: ID!) { revokeApiKey(input: {apiKeyId: $id}) { __typename } }",
            id=made["apiKey"]["id"],
        )
        assert revoked["revokeApiKey"]["__typename"] == "ApiKey"
        for client in (first, second):  # The other one remembers it for half a second.

            def is_refused(client: httpx2.Client = client) -> bool:
                return client.post("/v1/events", json=[], headers=theirs).status_code == 401

            assert wait_until(is_refused, seconds=WAIT_SECONDS)


def test_one_that_dies_is_replaced_and_nobody_is_refused_meanwhile(served: Served) -> None:
    before = served.pids
    os.kill(before[-1], signal.SIGKILL)

    def is_replaced() -> bool:
        with served.client() as client:
            assert client.get("/readyz").status_code == 200
        return len(served.pids) > len(before)

    assert wait_until(is_replaced, seconds=WAIT_SECONDS), served.running.said
    assert served.pids[:-1] == before


def test_all_of_them_finish_what_is_open_when_they_are_told_to_stop(
    migrated: dict[str, str], tmp_path: Path
) -> None:
    served = Served(migrated, tmp_path)
    with ExitStack() as cleanup:
        cleanup.callback(served.running.process.kill)
        for client in served.clients_of_both(cleanup):
            headers = {"Accept": "text/event-stream"}
            stream = client.stream(
                "POST",
                "/graphql",
                json={"query": "subscription { signals { id } }"},
                headers=headers,
            )
            response = cleanup.enter_context(stream)
            cleanup.callback(lambda told=response: check_ended(told))
        family = served.running.family()
        assert served.running.end(signal.SIGTERM) == 0, served.running.said
        assert gone(family)
    assert "Traceback" not in served.running.said


def test_what_keeps_them_from_starting_is_told_and_ends_all_of_them(
    environment: dict[str, str],
) -> None:
    wrong = {
        **environment,
        "AFORO_REDIS_URL": "redis://127.0.0.1:1/0",
        "AFORO_DATABASE_URL": "postgresql://aforo@127.0.0.1:1/aforo",
    }
    early = run("serve", "--processes", "2", "--port", str(free_port()), environment=wrong)
    assert early.returncode == 1
    assert "PostgreSQL" in early.stderr
    assert "Traceback" not in early.stderr


def test_each_process_needs_a_port_for_its_metrics(environment: dict[str, str]) -> None:
    early = run(
        *("serve", "--processes", "3", "--port", str(free_port())),
        environment={**environment, "AFORO_METRICS_PORT": "65534"},
    )
    assert early.returncode == 1
    assert "--processes 3 needs as many ports from AFORO_METRICS_PORT on" in early.stderr


def check_ended(stream: httpx2.Response) -> None:
    """A stream was told why it ends."""
    assert stream.status_code == 200
    assert "this server is shutting down" in stream.read().decode()


def graphql(client: httpx2.Client, document: str, **variables: Any) -> dict[str, Any]:
    answer = client.post("/graphql", json={"query": document, "variables": variables}).json()
    assert "errors" not in answer, answer["errors"]
    data: dict[str, Any] = answer["data"]
    return data
