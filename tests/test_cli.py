"""The command: what it answers, and that an expected fault is one line."""

import json
import sys
from pathlib import Path

import pytest

from aforo import cli
from aforo.api.schema import schema_text
from aforo.api.sdl import schema_version
from aforo.settings import PREFIX

REQUIRED = ("DATABASE_URL", "REDIS_URL", "CLICKHOUSE_URL", "KEY_PEPPER")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set, whatever the machine has."""
    for name in REQUIRED:
        monkeypatch.delenv(PREFIX + name, raising=False)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """Run the command in this process; its exit code, or the sentence it ends with."""
    monkeypatch.setattr(sys, "argv", ["aforo", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.parametrize("command", ["serve", "worker", "migrate", "demo --attach"])
def test_what_needs_servers_says_which_variables_are_missing(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    said = call(monkeypatch, *command.split())
    assert isinstance(said, str)
    assert said.startswith("aforo: AFORO_DATABASE_URL, AFORO_REDIS_URL, AFORO_CLICKHOUSE_URL, ")


def test_addresses_of_the_wrong_kind_are_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in REQUIRED:
        monkeypatch.setenv(PREFIX + name, "x" * 40)
    monkeypatch.setenv("AFORO_DATABASE_URL", "mysql://someone:secret@host/aforo")
    assert call(monkeypatch, "serve") == (
        "aforo: 3 settings are missing or wrong:\n"
        "  - AFORO_DATABASE_URL must begin with postgresql://\n"
        "  - AFORO_REDIS_URL must begin with redis://\n"
        "  - AFORO_CLICKHOUSE_URL must begin with http://"
    )


def test_the_schema_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "schema") == 0
    assert capsys.readouterr().out == schema_text()


def test_the_schema_has_a_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "schema", "--version") == 0
    assert capsys.readouterr().out == f"{schema_version()}\n"


def test_two_schemas_are_compared_and_a_break_has_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old, new = tmp_path / "old.graphql", tmp_path / "new.graphql"
    old.write_text("type Query { a: Int }")
    new.write_text("type Query { a: Int b: Int }")
    assert call(monkeypatch, "schema", "diff", str(old), str(new)) == 0
    assert capsys.readouterr().out == "### Safe\n\n- Field `Query.b` was added.\n\n"
    assert call(monkeypatch, "schema", "diff", str(new), str(old)) == 1
    assert capsys.readouterr().out == "### Breaking\n\n- Field `Query.b` was removed.\n\n"
    assert call(monkeypatch, "schema", "diff", str(old), str(old)) == 0
    assert capsys.readouterr().out == "Nothing changed.\n"
    missing = call(monkeypatch, "schema", "diff", str(tmp_path / "none.graphql"))
    assert (
        missing == f"aforo: {tmp_path / 'none.graphql'} cannot be read: No such file or directory"
    )


def test_a_break_since_the_last_release_is_declared_or_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "1.0.0.graphql").write_text(
        schema_text().replace("type Query {", "type Query { gone: Int", 1)
    )
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text("## [1.0.0]\n")
    words = ("schema", "check", "--releases", str(tmp_path), "--changelog", str(changelog))
    said = call(monkeypatch, *words)
    assert isinstance(said, str)
    assert said.startswith("aforo: the schema breaks clients of 1.0.0")
    assert "`Query.gone`" in said
    changelog.write_text("### Breaking\n\n- `Query.gone` is gone.\n\n## [1.0.0]\n")
    assert call(monkeypatch, *words) == 0
    assert call(monkeypatch, "schema", "changelog", "--releases", str(tmp_path)) == 0
    assert "- Field `Query.gone` was removed.\n" in capsys.readouterr().out


def test_plugins_are_listed_for_people_and_for_machines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "plugins") == 0
    assert "pricing model VOLUME" in capsys.readouterr().out
    assert call(monkeypatch, "plugins", "--json") == 0
    assert "VOLUME" in {each["key"] for each in json.loads(capsys.readouterr().out)}


def test_the_doctor_says_where_it_looked_when_there_is_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    said = call(monkeypatch, "doctor", "--folder", str(tmp_path))
    assert said is not None
    assert f"no demo runs on {tmp_path}: start it with `aforo demo`" in str(said)


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "aforo.api.schema", raising=False)
    monkeypatch.setitem(sys.modules, "strawberry", None)
    assert call(monkeypatch, "schema") == (
        "aforo: the package strawberry is not installed: run `rm -r .venv; make demo` "
        "in a checkout, elsewhere install Aforo anew"
    )
