"""The version of the SDK: what it fits, and that nothing changes without it."""

import pytest

from aforo.sdk import __version__
from aforo.sdk.version import EDITIONS, fits, is_ahead, is_wanted_version
from tests.sdk import surface


@pytest.mark.parametrize(
    ("wanted", "present", "answer"),
    [
        ("1.0", "1.0.0", True),
        ("1.2", "1.2.0", True),
        ("1.2", "1.10.3", True),
        ("1.2", "1.1.9", False),
        ("1.0", "2.0.0", False),
        ("2.0", "1.9.0", False),
    ],
)
def test_a_plugin_works_with_every_later_version_of_the_same_first_number(
    wanted: str, present: str, answer: bool
) -> None:
    assert fits(wanted, present) is answer


def test_what_is_ahead_needs_a_newer_aforo() -> None:
    assert is_ahead("2.0", "1.9.0")
    assert is_ahead("1.10", "1.9.0")
    assert not is_ahead("1.0", "2.0.0")


@pytest.mark.parametrize(
    "wanted", ["1", "1.0.0", "01.0", ">=1.0", " 1.0", "", None, 1.0, ("1", "0")]
)
def test_only_two_numbers_say_what_is_wanted(wanted: object) -> None:
    assert not is_wanted_version(wanted)


def test_the_editions_rise_and_end_with_this_one() -> None:
    versions = [tuple(map(int, each.version.split("."))) for each in EDITIONS]
    assert versions == sorted(set(versions))
    assert EDITIONS[-1].version == __version__


def test_the_surface_changes_with_the_version_only() -> None:
    version, lines = surface.stored()
    assert surface.surface() == lines, (
        "what the SDK offers has changed: raise its version in aforo/sdk/version.py, "
        "then `make sdk`"
    )
    assert version == __version__, "write the surface of this version with `make sdk`"


def test_the_surface_knows_fields_methods_and_values() -> None:
    _, lines = surface.stored()
    assert {
        "aforo.sdk.Usage.quantity: Decimal, required",
        "aforo.sdk.PricingModel.price: (self, usage), required",
        "aforo.sdk.TaxEngine.quote: async (self, request), required",
        "aforo.sdk.Level.BLOCK = 3",
        "kind ai: register_ai_features of AiFeature",
    } <= set(lines)


@pytest.mark.parametrize(
    ("before", "after", "bump"),
    [
        (["a", "b"], ["a", "b"], 2),
        (["a"], ["a", "b"], 1),
        (["a", "b"], ["a"], 0),
        (["a: Decimal"], ["a: int"], 0),
    ],
)
def test_what_goes_breaks_and_what_comes_adds(
    before: list[str], after: list[str], bump: int
) -> None:
    assert surface.needed_bump(before, after) == bump


@pytest.mark.parametrize(
    ("version", "bump", "enough"),
    [
        ("1.2.3", 2, True),
        ("1.2.4", 1, False),
        ("1.3.0", 1, True),
        ("2.0.0", 1, True),
        ("1.3.0", 0, False),
        ("2.0.0", 0, True),
    ],
)
def test_the_version_grows_where_the_change_asks_for_it(
    version: str, bump: int, enough: bool
) -> None:
    assert surface.is_enough("1.2.3", version, bump) is enough


def test_the_manual_has_the_table_of_versions() -> None:
    page = surface.PAGE.read_text()
    begin = page.index(surface.BEGIN) + len(surface.BEGIN)
    assert page[begin : page.index(surface.END)] == surface.table(), "write it with `make sdk`"
