"""The image and the compose file, as far as they can be checked without an engine for them."""

import dataclasses
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from aforo import cli
from aforo.settings import PREFIX, Settings

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
SETTINGS = {PREFIX + field.name.upper() for field in dataclasses.fields(Settings)}
ASKED = re.compile(r"\$\{(\w+)(?::[?-][^}]*)?\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file, with its anchors resolved."""
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return loaded


def instructions(name: str) -> list[list[str]]:
    """The words of each such instruction of the Dockerfile, with its continued lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in joined.splitlines() if line.startswith(f"{name} ")]


def test_all_servers_and_processes_are_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {
        "postgres", "redis", "clickhouse", "migrate", "api", "worker", "demo",
    }  # fmt: skip
    assert services["postgres"]["image"] == "postgres:18"
    assert services["demo"]["profiles"] == ["demo"]
    for service in services.values():
        assert ":latest" not in service["image"]
        assert ":" in service["image"]


def test_every_service_has_a_health_check(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name
        assert len(service["healthcheck"]["test"]) > 1, name


def test_nothing_starts_before_what_it_needs(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name in ("api", "worker"):
        needs = {each: how["condition"] for each, how in services[name]["depends_on"].items()}
        assert needs.pop("migrate") == "service_completed_successfully"
        assert needs == dict.fromkeys(("postgres", "redis", "clickhouse"), "service_healthy")
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)


def test_the_variables_are_those_that_the_code_reads(compose: dict[str, Any]) -> None:
    for name in ("migrate", "api", "worker", "demo"):
        given = set(compose["services"][name]["environment"])
        assert given <= SETTINGS, name
        assert {"AFORO_DATABASE_URL", "AFORO_REDIS_URL", "AFORO_CLICKHOUSE_URL"} < given
    assert "AFORO_OWNER_DATABASE_URL" in compose["services"]["migrate"]["environment"]
    for name in ("api", "worker", "demo"):
        assert "AFORO_OWNER_DATABASE_URL" not in compose["services"][name]["environment"]
    for words in instructions("ENV"):
        for word in words:
            variable = word.partition("=")[0]
            assert not variable.startswith(PREFIX) or variable in SETTINGS


def test_every_secret_is_asked_for_and_the_head_of_the_file_makes_it(
    compose: dict[str, Any],
) -> None:
    text = (FOLDER / "compose.yaml").read_text()
    secrets = {name for name in ASKED.findall(text) if name.endswith(("_PASSWORD", "_PEPPER"))}
    assert secrets == set(re.findall(r"\$\{(\w+):\?", text))
    head = text.partition("name:")[0]
    made = re.search(r"for name in ([A-Z ]+); do", head)
    assert made is not None
    assert {f"AFORO_{each}_PASSWORD" for each in made[1].split()} | {"AFORO_KEY_PEPPER"} == secrets
    assert "docker/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_commands_exist_with_their_options(compose: dict[str, Any]) -> None:
    group: Any = typer.main.get_command(cli.app)
    commands = [
        compose["services"][name]["command"] for name in ("migrate", "api", "worker", "demo")
    ]
    for command in (*commands, ["doctor"], yaml.safe_load(DOCKERFILE.rpartition("CMD ")[2])):
        known = {name for option in group.commands[command[0]].params for name in option.opts}
        assert {word for word in command[1:] if word.startswith("--")} <= known


def test_nothing_is_published_beyond_this_machine(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert ports == ["127.0.0.1:${AFORO_PORT:-8080}:8080"]


def test_what_is_mounted_and_copied_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            is_file = source.startswith(".")
            assert (FOLDER / source).is_file() if is_file else source in compose["volumes"]
    own = [words for words in instructions("COPY") if not words[0].startswith("--from")]
    sources = [source for *sources, _ in own for source in sources]
    assert all((ROOT / source).exists() for source in sources)
    # The build sees only what is let through.
    let_through = {
        line[1:]
        for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert let_through == set(sources)


def test_the_image_has_what_runs_and_what_migrates() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "requirements/server.lock" in DOCKERFILE
    assert {"alembic.ini", "migrations", build["project"]["readme"]} <= {
        word for words in instructions("COPY") for word in words
    }
    assert instructions("USER") == [["10001:10001"]]
    assert instructions("HEALTHCHECK")
