"""The manual: its links lead somewhere, its commands exist, and its examples run."""

import json
import re
import shlex
import sys
import types
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import pytest
import typer
from graphql import build_schema, parse, validate

from aforo import cli, serve
from aforo.api.ingest.batches import EVENTS_MAX
from aforo.api.ingest.encodings import MEMBERS_MAX, ZSTD_WINDOW_LOG_MAX
from aforo.api.ingest.route import BODY_BYTES_MAX, FORMS
from aforo.api.protocol import cost, limits, operations, sse, websocket
from aforo.api.types import kpis
from aforo.metering import ingest
from aforo.metering import validate as rules
from aforo.plugins import load_registry
from aforo.plugins.new import PAGES as PAGES_OF
from aforo.plugins.new import rendered
from aforo.sdk.kinds import KINDS
from aforo.settings import PREFIX, Settings
from aforo.storage import live_hub, live_log, live_topic

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("plugins/*/README.md"),
        *ROOT.glob("clients/**/README.md"),
    ]
)
EXAMPLE = ROOT / "plugins/aforo-example/aforo_example/__init__.py"
PLUGIN_PAGES = {kind.word: ROOT / "docs/plugins" / PAGES_OF[kind.word] for kind in KINDS.values()}

FOR_TESTS = {
    "AFORO_TRACE_DIR",
    "AFORO_FAILPOINT",
    "AFORO_FAILPOINTS",
    "AFORO_TEST_KILLS_PER_POINT",
    "AFORO_TEST_KILLS_OF_EVERYTHING",
}
IN_EXAMPLES = {"AFORO_API_KEY", "AFORO_URL"}
"""A reader's own names for the key and the address, in examples."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text.splitlines()[0][:40]}"


def blocks(*languages: str, pages: list[Path] = PAGES) -> list[Block]:
    fenced = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    found = [Block(page, *each) for page in pages for each in fenced.findall(page.read_text())]
    return [block for block in found if block.language in languages]


def test_the_index_leads_to_every_page() -> None:
    reached: set[Path] = set()
    waiting = {ROOT / "README.md"}
    while waiting:
        page = waiting.pop()
        reached.add(page)
        waiting |= {target for target, _ in links(page) if target.suffix == ".md"} - reached
    assert sorted(set(ROOT.glob("docs/**/*.md")) - reached) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = [str(target) for target, _ in links(page) if not target.exists()]
    assert broken == []
    astray = [
        (str(target), anchor)
        for target, anchor in links(page)
        if anchor and anchor not in anchors(target)
    ]
    assert astray == []


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Links inside the checkout: the file, and the heading in it."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each).strip().lower().replace(" ", "-") for each in headings}


# Commands.


def commands() -> Iterator[tuple[Block, list[str]]]:
    for block in blocks("sh", "bash"):
        joined = block.text.replace("\\\n", " ")
        for line in joined.splitlines():
            if line.strip():
                yield block, shlex.split(line, comments=True)


def test_every_command_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = set(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
    unknown = []
    for block, words in commands():
        name = Path(words[0]).name
        if name == "make":
            unknown += [(str(block), word) for word in words[1:] if word not in targets]
        elif name == "aforo" and words[1] not in known:
            unknown.append((str(block), words[1]))
    assert unknown == []
    assert {"demo", "test"} <= {words[1] for _, words in commands() if words[0] == "make"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_in_a_sentence_exists_too(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = set(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
    said = re.findall(r"`(make|aforo) ([a-z-]+)[^`]*`", page.read_text())
    assert [word for tool, word in said if word not in (targets if tool == "make" else known)] == []


def test_every_file_that_a_command_names_is_there() -> None:
    named = {
        word
        for _, words in commands()
        for word in words
        if re.match(r"(plugins|docs|docker|benchmarks|requirements)/", word)
    }
    assert "plugins/aforo-example" in named
    assert [word for word in named if not (ROOT / word).exists()] == []


# Environment.


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_environment_variable_exists(page: Path) -> None:
    named = set(re.findall(r"\bAFORO_[A-Z_]*[A-Z]\b", page.read_text()))
    assert named <= set(variables()) | FOR_TESTS | IN_EXAMPLES


def test_the_table_of_variables_is_that_of_the_settings() -> None:
    page = (ROOT / "docs/deploy.md").read_text()
    rows = re.findall(r"^\| `(AFORO_\w+)` \| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE)
    assert [name for name, _ in rows] == variables()
    stated = dict(rows)
    for item in fields(Settings):
        told = stated[PREFIX + item.name.upper()]
        if item.default is MISSING:
            assert told == "yes"
        elif item.default is None:
            assert told in {"no", "for `aforo migrate`"}
        elif item.default == "":
            assert told == "derived"
        elif item.default == ():
            assert told == "none"
        else:
            assert told.strip("`").lower() == str(item.default).lower()


def variables() -> list[str]:
    return [PREFIX + item.name.upper() for item in fields(Settings)]


# Examples.


def test_every_graphql_example_is_valid() -> None:
    published = ROOT / "schema.graphql"
    assert published.exists(), "schema.graphql is missing: write it with `make schema`"
    schema = build_schema(published.read_text())
    documents = [(str(block), block.text) for block in blocks("graphql")]
    documents += [
        (str(block), json.loads(body)["query"])
        for block, words in commands()
        for body in words
        if body.startswith('{"query"')
    ]
    documents += [
        (path.name, path.read_text()) for path in ROOT.glob("aforo/api/graphiql_queries/*.graphql")
    ]
    assert len(documents) > 10
    faults = [
        (name, str(error)) for name, text in documents for error in validate(schema, parse(text))
    ]
    assert faults == []


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_every_json_example_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("word", PLUGIN_PAGES)
def test_the_example_of_a_plugin_page_is_what_the_kit_writes(word: str) -> None:
    name = f"acme-{word}"
    module = rendered(KINDS[word], name)[Path(f"acme_{word}", "__init__.py")]
    assert blocks("python", pages=[PLUGIN_PAGES[word]])[0].text == module


def test_the_test_that_the_manual_shows_is_what_the_kit_writes() -> None:
    shown = blocks("text", pages=[ROOT / "docs/plugins/testing.md"])[0].text
    written = rendered(KINDS["pricing"], "acme-pricing")
    assert shown == written[Path("tests/test_contract.py")]


@pytest.mark.parametrize("page", PLUGIN_PAGES.values(), ids=lambda page: page.stem)
def test_the_examples_of_a_plugin_page_run_and_are_a_plugin(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType(f"manual_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # pydantic looks it up there.
    for block in blocks("python", pages=[page]):
        exec(compile(block.text, str(page), "exec"), vars(module))
    before = set(load_registry().sources)
    added = set(load_registry(extra=[module]).sources) - before
    assert [component.__module__ for component in added] == [module.__name__]


def test_the_plugin_that_the_readme_shows_is_the_one_in_the_checkout() -> None:
    (shown,) = blocks("python", pages=[ROOT / "README.md"])
    assert shown.text == EXAMPLE.read_text()


def test_the_limits_that_the_manual_states_are_those_of_the_code() -> None:
    events = (ROOT / "docs/ingestion.md").read_text()
    assert (BODY_BYTES_MAX, EVENTS_MAX) == (10 * 1024 * 1024, 1_000)
    assert "at most 1,000 events, in UTF-8, at most 10 MiB" in events
    assert "in a row, at most 1,000, are one body" in events
    assert MEMBERS_MAX == 1_000
    assert "a window of at most 8 MiB" in events
    assert 2**ZSTD_WINDOW_LOG_MAX == 8 * 1024 * 1024
    assert all(f"| `{name}` |" in events for name in FORMS)
    assert (rules.FUTURE_MAX.total_seconds(), rules.AGE_MAX.days) == (300, 90)
    assert "at most 5 minutes ahead and 90 days back" in events
    for limit, said in (
        (ingest.KEY_LENGTH_MAX, "1 to {} characters, chosen by you"),
        (ingest.TYPE_LENGTH_MAX, "1 to {} characters; meters select"),
        (ingest.PROPERTIES_MAX, "at most {} members"),
        (ingest.PROPERTIES_DEPTH_MAX, "at most {} levels deep"),
        (ingest.TEXT_LENGTH_MAX, "texts of at most {:,} characters"),
        (ingest.NUMBER_DIGITS_MAX, "numbers of at most {} digits"),
    ):
        assert said.format(limit) in events
    page = (ROOT / "docs/graphql.md").read_text()
    for limit, said in (
        (limits.TOKENS_MAX, "| tokens of a document | {:,} |"),
        (limits.DEPTH_MAX, "| depth | {}; "),
        (limits.INTROSPECTION_DEPTH_MAX, "{} for introspection |"),
        (limits.ALIASES_MAX, "| aliases, directives | {} each |"),
        (limits.DIRECTIVES_OF_ONE_MAX, "| directives on one field | {} |"),
        (limits.FIELDS_MAX, "| fields written | {} |"),
        (cost.COST_MAX, "connections times their page | {:,} |"),
    ):
        assert said.format(limit) in page


def test_the_limits_of_live_streams_that_the_manual_states_are_those_of_the_code() -> None:
    page = (ROOT / "docs/streams.md").read_text()
    for limit, said in (
        (kpis.PAUSE_SECONDS, "most every {:g} seconds and at least every minute"),
        (live_log.LOG_MESSAGES_MAX, "The last {:,} messages of each kind are kept per tenant"),
        (live_log.LOG_BYTES_MAX // 1024**2, "or the last {} MiB of them"),
        (live_log.LOG_SECONDS_MAX // 604_800, "for a week after"),
        (live_topic.RING_MESSAGES_MAX, "the reader is more than {:,} messages behind"),
        (live_hub.HELD_BYTES_MAX // 1024**2, "and {} MiB of all"),
        (live_hub.OUTAGE_SECONDS, "Redis is away for more than {:g} seconds"),
        (sse.SEND_TIMEOUT_SECONDS, "takes nothing at all for {} seconds"),
        (websocket.CLOSE_TIMEOUT_SECONDS, "if it reads again within {} seconds"),
        (websocket.TOO_SLOW, "closed with {},"),
        (operations.STREAMS_MAX, "the server follows {:,} streams already"),
        (sse.HEARTBEAT_SECONDS, "Signs of life come every {:g} seconds"),
    ):
        assert said.format(limit) in page
    assert kpis.QUIET_SECONDS == 60
    assert serve.WEBSOCKET_PING_SECONDS == sse.HEARTBEAT_SECONDS
    assert websocket.SEND_TIMEOUT_SECONDS == sse.SEND_TIMEOUT_SECONDS
