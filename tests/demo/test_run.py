"""What a demo refuses before it has touched anything."""

from pathlib import Path

import pytest

from aforo.demo import run
from aforo.demo.places import DemoError


def test_a_missing_package_is_named_by_what_is_to_be_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "PACKAGES", {"nowhere_installed": "nowhere-installed", **run.PACKAGES})
    with pytest.raises(DemoError, match=r"^nowhere-installed must be installed: run "):
        run.run_demo(tmp_path / "demo", port=0, reset=False)
    assert not (tmp_path / "demo").exists()
