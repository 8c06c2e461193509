"""What tests of the storage share."""

from pathlib import Path

import pytest


@pytest.fixture
def redis_root(tmp_path: Path) -> Path:
    """A folder in which a Redis of the test's own can start."""
    for name in ("secrets", "log"):
        (tmp_path / name).mkdir(mode=0o700)
    return tmp_path
