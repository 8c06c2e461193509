"""The checkout itself: what may stand in a file of it, and how dependencies are pinned."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = sorted(ROOT.glob("requirements/*.lock"))
NOT_OURS = (Path("aforo/api/graphiql"), Path("LICENSE"))
"""Built from the packages of others, with their words in it."""

# Written backwards, because this file is looked through as well.
PACKAGE_HOSTS = [
    host[::-1]
    for host in (
        "gro.ipyp",
        "gro.detsohnohtyp",
        "gro.sjmpn",
        "moc.gkpnray",
        "oi.setarc",
        "gro.gnalog.yxorp",
    )
]
MACHINE_PATH = re.compile(r"(?<![\w.~}/])/(?:root|home/\w+|Users/\w+|work|tmp/\w+)/")
REMINDER = re.compile(r"\b(?:TO" r"DO|FIX" r"ME)\b")


@pytest.fixture(scope="module")
def texts() -> dict[Path, str]:
    """Every text file that is, or is about to be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = {}
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and not any(Path(name).is_relative_to(other) for other in NOT_OURS):
            content = path.read_bytes()
            if b"\0" not in content:
                found[Path(name)] = content.decode()
    return found


def test_the_tree_is_looked_at(texts: dict[Path, str]) -> None:
    assert {Path("README.md"), Path("Makefile"), Path("aforo/cli.py")} <= texts.keys()


def test_no_file_names_a_package_host(texts: dict[Path, str]) -> None:
    assert [
        (path, host) for path, text in texts.items() for host in PACKAGE_HOSTS if host in text
    ] == []


def test_no_file_knows_a_path_of_somebodys_machine(texts: dict[Path, str]) -> None:
    found = {path: MACHINE_PATH.search(text) for path, text in texts.items()}
    assert {path: match.group() for path, match in found.items() if match} == {}


def test_nothing_is_left_to_be_done_later(texts: dict[Path, str]) -> None:
    found = {path: REMINDER.search(text) for path, text in texts.items()}
    assert {path: match.group() for path, match in found.items() if match} == {}


def test_every_text_ends_its_last_line(texts: dict[Path, str]) -> None:
    assert [path for path, text in texts.items() if text and not text.endswith("\n")] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_every_package_by_version_and_hash_and_names_no_address(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert re.findall(r"^-.*", text, re.MULTILINE) == []  # No option, such as an index.
    entries = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 20
    pinned = re.compile(
        r"[a-z0-9.-]+==\S+( ; [^\\\n]+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+"
    )
    assert [entry.splitlines()[0] for entry in entries if not pinned.fullmatch(entry)] == []


def test_the_locks_agree_and_hold_what_is_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime = declared["project"]["dependencies"]
    embedded = declared["project"]["optional-dependencies"]["embedded"]
    versions = {lock.stem: pins(lock) for lock in LOCKS}
    assert versions.keys() == {"server", "demo", "dev"}
    assert versions["server"].items() <= versions["demo"].items() <= versions["dev"].items()
    assert names(runtime) <= versions["server"].keys()
    assert names(runtime + embedded) <= versions["demo"].keys()
    assert (
        names(runtime + embedded + declared["dependency-groups"]["dev"]) <= versions["dev"].keys()
    )
    assert not names(embedded) & versions["server"].keys()  # Servers bring their own engines.


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~ ;]", each)[0].lower() for each in requirements}
