"""Writes a plugin to begin with: a distribution that installs, tests and works at once."""

import keyword
import re
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from aforo.sdk import Invalid, __version__
from aforo.sdk.kinds import KINDS, Kind

NAME_CHARACTERS_MAX = 60
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_KEY = re.compile(r'^    key = "(.+)"$', re.MULTILINE)

PAGES = {
    "pricing": "pricing-models.md",
    "tax": "tax-engines.md",
    "gateway": "payment-gateways.md",
    "detector": "detectors.md",
    "notifier": "notifiers.md",
    "ai": "ai-features.md",
}
"""The page of the manual for each kind."""


@dataclass(frozen=True, slots=True)
class Written:
    """A new plugin."""

    folder: Path
    key: str


def write_plugin(kind_word: str, name: str, *, folder: Path) -> Written:
    """Write the distribution `name` with one component of a kind into a new folder in `folder`.

    Raises: `Invalid` for an unknown kind, a name that cannot be one, and where something is there.
    """
    kind = KINDS.get(kind_word)
    if kind is None:
        raise Invalid(f"there is no kind {kind_word!r}: choose of {', '.join(KINDS)}")
    _check(name)
    place = folder / name
    if place.exists():
        raise Invalid(f"{place} is there already: choose another name, or another --folder")
    texts = rendered(kind, name)
    try:
        for path, text in texts.items():
            target = place / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Invalid(f"{place} cannot be written: {error.strerror}") from error
    return Written(place, _key_of(kind, name))


def rendered(kind: Kind, name: str) -> dict[Path, str]:
    """The files of the distribution `name`, by their paths in it."""
    package = name.replace("-", "_")
    return {
        Path("pyproject.toml"): _rendered("pyproject.toml", kind, name),
        Path("README.md"): _rendered("README.md", kind, name),
        Path(package, "__init__.py"): _rendered(f"{kind.word}.py", kind, name),
        Path(package, "py.typed"): "",
        Path("tests", "test_contract.py"): _rendered("test_contract.py", kind, name),
        Path("tests", f"test_{kind.word}.py"): _rendered(f"{kind.word}_test.py", kind, name),
    }


def _check(name: str) -> None:
    package = name.replace("-", "_")
    if not _NAME.fullmatch(name) or len(name) > NAME_CHARACTERS_MAX:
        raise Invalid(
            f"{name[:NAME_CHARACTERS_MAX]!r} cannot be its name: take lower-case letters, digits "
            f"and single hyphens, at most {NAME_CHARACTERS_MAX}, such as acme-pricing"
        )
    if package.split("_", maxsplit=1)[0] == "aforo":
        raise Invalid(f"{name} begins with Aforo's own prefix: begin with yours, as acme-pricing")
    if package in sys.stdlib_module_names or keyword.iskeyword(package):
        raise Invalid(f"{name} is a name of Python itself: begin with yours, as acme-{name}")


def _rendered(template: str, kind: Kind, name: str) -> str:
    words = {
        "name": name,
        "package": name.replace("-", "_"),
        "prefix": name.split("-", maxsplit=1)[0],
        "title": f"a{'n' if kind.title[0] in 'aeiouA' else ''} {kind.title}",
        "page": PAGES[kind.word],
        "sdk": __version__.rpartition(".")[0],
        "key": _key_of(kind, name),
    }
    return Template(_template(template)).substitute(words)


def _key_of(kind: Kind, name: str) -> str:
    found = _KEY.search(_template(f"{kind.word}.py"))
    assert found is not None, "every template gives its component a key"
    return Template(found[1]).substitute(prefix=name.split("-", maxsplit=1)[0])


def _template(name: str) -> str:
    text: str = (files("aforo.plugins") / "templates" / f"{name}.txt").read_text(encoding="utf-8")
    return text
