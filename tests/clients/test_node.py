"""Where Node is missing: the tests with real clients say so, and in CI they fail."""

import shutil

import pytest

from tests.clients import node


@pytest.fixture
def no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Node."""
    monkeypatch.setattr(shutil, "which", lambda _name: None)


def test_without_node_the_tests_are_left_out_in_words(
    monkeypatch: pytest.MonkeyPatch, no_node: None
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="Node 20 or newer with npm is not installed"):
        node.installed()


def test_in_ci_a_missing_node_is_a_failure(monkeypatch: pytest.MonkeyPatch, no_node: None) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="a change must pass with the real clients"):
        node.installed()


async def test_a_program_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = await node.run("sleep", "60", environment={}, folder=node.HERE, seconds=0.2)
    assert ended.code != 0
    assert "ended after 0.2 s" in ended.failed
