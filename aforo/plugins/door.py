"""Reads a plugin before it is run: what it is written for, and what it reaches for.

Its files are parsed, never executed: so a plugin for another SDK is told so in a sentence, and
does not fail at the first name that it misses. What hides from a parser is not found here; the
manual's page of limits says what holds all the same.
"""

import ast
import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from aforo.sdk import PluginError, __version__
from aforo.sdk.version import STATEMENT, fits, is_ahead, is_wanted_version

FILES_MAX = 500
FILE_BYTES_MAX = 2_000_000
LIMITS = "docs/plugins/limits.md"

_NOT_THEIRS = {
    "alembic": "has no tables",
    "arq": "has no jobs",
    "asyncpg": "has no database",
    "clickhouse_connect": "has no database",
    "redis": "has no database",
    "sqlalchemy": "has no tables",
    "sqlmodel": "has no tables",
    "starlette": "has no routes",
    "strawberry": "has no fields in the schema",
    "uvicorn": "has no routes",
}
"""What Aforo itself keeps tables and routes with, and what a plugin is told that imports it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What stands in a plugin's files."""

    is_read: bool
    """False where there is no source, such as of a compiled module."""
    wanted: object
    """The value of `aforo_sdk` in its module; None where it is not stated there."""


def examine(name: str, module: str) -> Found:
    """Read an installed plugin. Raises: `PluginError` for what a plugin may not import."""
    main, files = _files_of(module)
    return _examined(name, main, files)


def examine_file(name: str, path: Path) -> Found:
    """Read a plugin of one file. Raises: `PluginError`."""
    return _examined(name, path, [path])


def check_version(name: str, distribution: str | None, wanted: object) -> None:
    """Refuse a plugin that is written for another SDK than this.

    Raises: `PluginError`, one sentence: which plugin, what it wants, what is here, what to do.
    """
    if not is_wanted_version(wanted):
        raise PluginError(
            f"{name} does not say which SDK it is written for: add the line "
            f'`{STATEMENT} = "{__version__.rpartition(".")[0]}"` to its module'
        )
    assert isinstance(wanted, str), "checked above"
    if fits(wanted):
        return
    who = distribution or "the plugin"
    advice = (
        f"upgrade Aforo, or install an older {who}"
        if is_ahead(wanted)
        else f"install a newer {who}, or ask its maker for one"
    )
    raise PluginError(
        f"{name} is written for SDK {wanted}, and Aforo {importlib.metadata.version('aforo')} "
        f"has SDK {__version__}: {advice}"
    )


def _files_of(module: str) -> tuple[Path | None, list[Path]]:
    """The file of a module, and all files of its package; nothing of it is imported."""
    first, *rest = module.split(".")
    package = spec = find_spec(first)
    for name in rest:
        # By hand: `find_spec` would import the package around it.
        places = spec.submodule_search_locations if spec is not None else None
        spec = PathFinder.find_spec(name, list(places)) if places else None
    if package is None or spec is None:
        return None, []  # The import will say so.
    main = Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    if package.origin is None:  # A namespace, in which others may have their packages too.
        package = spec
    folders = [Path(place) for place in package.submodule_search_locations or ()]
    found = (path for folder in folders for path in sorted(folder.rglob("*.py")))
    return main, list(islice(found, FILES_MAX)) or ([main] if main else [])


def _examined(name: str, main: Path | None, files: list[Path]) -> Found:
    wanted: object = None
    is_read = False
    for path in files:
        tree = _parsed(path)
        if tree is None:
            continue
        for module, line in _imports(tree):
            if fault := _fault(module):
                raise PluginError(
                    f"{name} imports {module} ({path.name}, line {line}): {fault}; see {LIMITS}"
                )
        if main is not None and path == main:
            is_read, wanted = True, _statement(tree)
    return Found(is_read, wanted)


def _parsed(path: Path) -> ast.Module | None:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            return None
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None  # The import will say so.


def _imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            if node.module == "aforo":
                for alias in node.names:
                    yield f"aforo.{alias.name}", node.lineno
            else:
                yield node.module, node.lineno


def _fault(module: str) -> str:
    first, *rest = module.split(".")
    if first == "aforo" and rest[:1] != ["sdk"]:
        return "a plugin imports aforo.sdk and nothing else of Aforo"
    if first in _NOT_THEIRS:
        return f"a plugin {_NOT_THEIRS[first]}"
    return ""


def _statement(tree: ast.Module) -> object:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(target, ast.Name) and target.id == STATEMENT for target in targets):
            value = node.value  # type: ignore[attr-defined]
            return value.value if isinstance(value, ast.Constant) else None
    return None
