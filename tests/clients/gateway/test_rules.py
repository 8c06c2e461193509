"""The file of rules: what it may say, which rule is for a request, and what is remembered."""

import json
import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from aforo_gateway.app import PREFIX, STATUSES, Setup
from aforo_gateway.decisions import UNFOLLOWED_SECONDS, Decision, Decisions, Question
from aforo_gateway.rules import Fallback, RulesError, read_rules
from tests.clients.conftest import ROOT
from tests.clients.node import run
from tests.clients.python.conftest import PACKAGE

GATEWAY = ROOT / "clients/gateway"
RULES_FILE = (GATEWAY / "rules.json").read_text()
RULE = {"prefix": "/v1/chat", "feature": "tokens"}


def test_the_sample_is_read() -> None:
    rules = read_rules(GATEWAY / "rules.json")
    assert rules.key_header == "authorization"
    assert rules.when_unreachable is Fallback.CLOSED
    chat = rules.rule("POST", "/v1/chat/completions")
    assert chat is not None
    assert chat.about == {"feature": "tokens"}
    assert chat.event is not None
    assert chat.event.type == "llm.request"


@pytest.mark.parametrize(
    ("method", "path", "is_there"),
    [
        ("POST", "/v1/chat", True),
        ("POST", "/v1/chat/", True),
        ("POST", "/v1/chat/completions", True),
        ("GET", "/v1/chat", False),
        ("POST", "/v1/chatter", False),
        ("POST", "/v1", False),
        ("POST", "//v1/chat", False),
        ("DELETE", "/v1/reports/7", True),
        ("GET", "/", False),
    ],
)
def test_the_first_rule_that_fits_counts(method: str, path: str, is_there: bool) -> None:
    assert (read_rules(GATEWAY / "rules.json").rule(method, path) is not None) == is_there


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is no JSON"),
        ([], "the file is an object"),
        ({"rules": []}, "rules is a list of at least one rule"),
        ({"rules": [RULE], "otherwise": 1}, "the file has no member 'otherwise'"),
        ({"rules": [RULE], "whenUnreachable": "AJAR"}, "whenUnreachable is OPEN or CLOSED"),
        ({"rules": [RULE], "keyHeader": "a", "customerHeader": "b"}, "name one of keyHeader"),
        ({"rules": [{"prefix": "/"}]}, r"rules\[0\] names one of feature and meter"),
        ({"rules": [{**RULE, "meter": "a"}]}, r"rules\[0\] names one of feature and meter"),
        ({"rules": [{**RULE, "prefix": "v1"}]}, r"rules\[0\].prefix begins with /"),
        ({"rules": [{**RULE, "quantity": "0"}]}, "is a number above zero"),
        ({"rules": [{**RULE, "quantity": 1}]}, "is a text that is not empty"),
        ({"rules": [{**RULE, "methods": "POST"}]}, "is a list"),
        ({"rules": [{**RULE, "event": {}}]}, r"event.type is a text"),
        ({"rules": [{**RULE, "take": "ALL"}]}, r"take is CONSUME or RESERVE"),
        ({"rules": [{**RULE, "take": "RESERVE", "event": {"type": "a"}}]}, "have the service send"),
        ({"rules": [{**RULE, "take": "CONSUME", "seconds": 5}]}, "seconds is for take: RESERVE"),
        ({"rules": [{**RULE, "take": "RESERVE", "seconds": 0}]}, "1 to 86,400 whole seconds"),
        ({"rules": [{**RULE, "event": {"type": "a", "properties": {"b": 0.5}}}]}, "with a point"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: Any, sentence: str) -> None:
    path = tmp_path / "rules.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(RulesError, match=sentence):
        read_rules(path)


def test_the_sample_of_envoy_asks_the_gateway_as_it_is() -> None:
    resources = yaml.safe_load((GATEWAY / "envoy.yaml").read_text())["static_resources"]
    (listener,) = resources["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    authorization, router = manager["http_filters"]
    assert authorization["name"] == "envoy.filters.http.ext_authz"
    assert router["name"] == "envoy.filters.http.router"
    asked = authorization["typed_config"]["http_service"]
    assert asked["path_prefix"] == PREFIX
    waits = float(asked["server_uri"]["timeout"].removesuffix("s"))
    assert waits > Setup(url="", key="", spool=Path()).timeout_seconds
    assert asked["server_uri"]["cluster"] in {each["name"] for each in resources["clusters"]}
    assert authorization["typed_config"]["failure_mode_allow"] is False
    assert manager["normalize_path"]
    assert manager["merge_slashes"]


def test_the_manual_shows_the_sample_and_says_the_limits_of_the_code() -> None:
    page = (ROOT / "docs/clients.md").read_text()
    assert f"```json\n{(GATEWAY / 'rules.json').read_text()}```" in page
    setup = Setup(url="", key="", spool=Path())
    assert f"If there is no answer in {setup.timeout_seconds * 1_000:g} ms" in page
    assert f"at most {setup.decisions_max:,} questions" in page
    for reason, status in STATUSES.items():
        (row,) = (line for line in page.splitlines() if f"`{reason}`" in line and "| " in line)
        assert f"| {status} |" in row


@pytest.mark.parametrize(
    ("environment", "rules", "sentence"),
    [
        ({}, RULES_FILE, "set AFORO_URL"),
        ({"AFORO_URL": "http://aforo.test", "AFORO_API_KEY": "k"}, "{}", "rules is a list"),
    ],
)
async def test_a_service_that_is_set_up_wrongly_does_not_start(
    tmp_path: Path, environment: dict[str, str], rules: str, sentence: str
) -> None:
    (tmp_path / "rules.json").write_text(rules)
    words = ("-m", "aforo_gateway", "--rules", "rules.json", "--spool", "spool")
    paths = os.pathsep.join([str(GATEWAY), str(PACKAGE)])
    ended = await run(
        sys.executable, *words, environment={**environment, "PYTHONPATH": paths}, folder=tmp_path
    )
    assert ended.code == 1
    assert sentence in ended.failed
    assert "Traceback" not in ended.failed


ACME: Question = ("customer", "acme", "feature", "tokens", "1")
KEY: Question = ("apiKey", "sk_live_1", "feature", "tokens", "1")
YES = Decision(allowed=True, reason="OK", customer="acme", max_age_seconds=60)


def kept(*questions: Question, decision: Decision = YES, entries_max: int = 10) -> Decisions:
    decisions = Decisions(entries_max=entries_max)
    decisions.is_followed = True
    for question in questions:
        decisions.keep(question, decision, asked_at=100.0, changes=decisions.changes)
    return decisions


def test_a_decision_counts_as_long_as_aforo_says() -> None:
    decisions = kept(ACME)
    assert decisions.find(ACME, 159.9) == YES
    assert decisions.find(ACME, 160.0) is None
    assert decisions.last_known(ACME) == YES
    assert decisions.find(KEY, 100.0) is None


def test_a_decision_counts_for_a_second_while_nobody_tells_of_changes() -> None:
    decisions = kept(ACME)
    decisions.is_followed = False
    assert decisions.find(ACME, 100.0 + UNFOLLOWED_SECONDS - 0.1) == YES
    assert decisions.find(ACME, 100.0 + UNFOLLOWED_SECONDS) is None


@pytest.mark.parametrize(("changed", "counts"), [("acme", False), ("other", True), (None, False)])
def test_a_change_ends_what_is_about_its_customer(changed: str | None, counts: bool) -> None:
    decisions = kept(ACME, KEY)
    decisions.change(changed)
    assert (decisions.find(ACME, 101.0) is not None) == counts
    assert (decisions.find(KEY, 101.0) is not None) == counts
    assert decisions.last_known(ACME) == YES


def test_an_answer_that_a_change_has_overtaken_does_not_count() -> None:
    decisions = kept()
    before = decisions.changes
    decisions.change("acme")
    decisions.keep(ACME, YES, asked_at=100.0, changes=before)
    assert decisions.find(ACME, 100.0) is None


@given(remaining=st.integers(1, 30), quantity=st.integers(1, 10))
def test_no_more_is_let_through_by_one_answer_than_was_left(remaining: int, quantity: int) -> None:
    assume(quantity <= remaining)
    question: Question = (*ACME[:4], str(quantity))
    decision = Decision(True, "OK", "acme", Decimal(remaining), max_age_seconds=60)
    decisions = kept(question, decision=decision)
    through = 1  # By the answer itself.
    while decisions.find(question, 100.0):
        through += 1
    assert through == remaining // quantity


def test_what_is_billed_as_overage_does_not_count_down() -> None:
    decision = Decision(True, "OK", "acme", Decimal(0), max_age_seconds=60)
    decisions = kept(ACME, decision=decision)
    assert all(decisions.find(ACME, 100.0) == decision for _ in range(5))


def test_endless_changes_take_no_endless_memory() -> None:
    decisions = kept(ACME, entries_max=3)
    for number in range(3):
        decisions.change(f"other-{number}")
    assert decisions.find(ACME, 100.0)
    decisions.change("other-3")  # One name too many: then everybody is asked about anew.
    assert decisions.find(ACME, 100.0) is None
    decisions.keep(ACME, YES, asked_at=100.0, changes=decisions.changes)
    assert decisions.find(ACME, 100.0)


def test_memory_is_bounded_and_what_is_used_stays() -> None:
    others: list[Question] = [("customer", str(n), "feature", "a", "1") for n in range(3)]
    decisions = kept(*others[:2], entries_max=2)
    decisions.find(others[0], 100.0)
    decisions.keep(others[2], YES, asked_at=100.0, changes=0)
    assert len(decisions) == 2
    assert decisions.last_known(others[0])
    assert decisions.last_known(others[1]) is None
