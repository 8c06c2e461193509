"""The pytest plugin: runs the contract suites on the components of a plugin.

A test that asks for `contract_check` and is marked with a plugin's module is run once for every
promise of every component that the module registers.
"""

from collections.abc import Callable
from functools import partial

import pytest

from aforo.sdk.testing import cases_of, checks_of, components_of

MARK = "aforo_plugin"


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", f"{MARK}(module): the plugin that `contract_check` is for")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test per component, example and promise."""
    if "contract_check" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker(MARK)
    if mark is None or not mark.args:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid} asks for contract_check: mark it with "
            f"@pytest.mark.{MARK}(your_module)"
        )
    components = components_of(mark.args[0])
    if not components:
        raise pytest.UsageError(f"{mark.args[0]!r} registers no component")
    checks: list[Callable[[], None]] = []
    names: list[str] = []
    for component in components:
        for number, case in enumerate(cases_of(component)):
            for check in checks_of(component):
                checks.append(partial(check.run, case))
                example = f" {number + 1}" if number else ""
                names.append(f"{component.key}{example}: {check.name}")
    metafunc.parametrize("contract_check", checks, ids=names)
