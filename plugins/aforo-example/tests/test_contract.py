"""The plugin keeps the contract of its kind: the same checks that Aforo's own go through."""

from collections.abc import Callable

import pytest

import aforo_example


@pytest.mark.aforo_plugin(aforo_example)
def test_it_keeps_the_contract(contract_check: Callable[[], None]) -> None:
    contract_check()
