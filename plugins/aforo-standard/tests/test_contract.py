"""The components that come with Aforo keep the contract that partners' do."""

from collections.abc import Callable

import pytest

import aforo_standard


@pytest.mark.aforo_plugin(aforo_standard)
def test_it_keeps_the_contract(contract_check: Callable[[], None]) -> None:
    contract_check()
