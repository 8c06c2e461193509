"""The contract suites: one per kind of component, the same for Aforo's own and for partners'.

With pytest a plugin runs them in three lines, and `aforo plugins check` runs them without it:

    @pytest.mark.aforo_plugin(acme_blocks)
    def test_it_keeps_the_contract(contract_check):
        contract_check()
"""

from aforo.sdk.testing import (  # noqa: F401 (each file brings its checks)
    ai,
    components,
    detection,
    notification,
    payment,
    pricing,
    tax,
)
from aforo.sdk.testing.contract import (
    Case,
    Check,
    ContractBroken,
    cases_of,
    checks_of,
    components_of,
)

__all__ = ["Case", "Check", "ContractBroken", "cases_of", "checks_of", "components_of"]
