"""Fixtures of the standard plugin's tests."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
