"""What the SDK promises, line by line, and the table of its versions: `make sdk` writes both."""

import dataclasses
import enum
import importlib.metadata
import inspect
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path

import aforo.sdk
import aforo.sdk.testing
from aforo.sdk import Component
from aforo.sdk.kinds import KINDS
from aforo.sdk.version import EDITIONS, __version__

STORED = Path(__file__).with_name("surface.txt")
PAGE = Path(__file__).parents[2] / "docs/plugins/compatibility.md"
BEGIN, END = "<!-- the table is written by `make sdk` -->\n", "<!-- end of the table -->"


def surface() -> list[str]:
    """A line for every name, field, method and value that a plugin can rely on."""
    lines = [f"kind {kind.word}: {kind.hook} of {kind.base.__name__}" for kind in KINDS.values()]
    lines += [
        f"promise {kind.word}: {check.name}"
        for kind in KINDS.values()
        for check in aforo.sdk.testing.checks_of(kind.base)
    ]
    for module in (aforo.sdk, aforo.sdk.testing):
        for name in module.__all__:
            if name != "__version__":
                lines += _lines(f"{module.__name__}.{name}", getattr(module, name))
    return sorted(lines)


def needed_bump(before: Sequence[str], after: Sequence[str]) -> int:
    """Which number of the version has to grow: 0 the first, 1 the second, 2 none of the two."""
    if set(before) - set(after):
        return 0
    return 1 if set(after) - set(before) else 2


def is_enough(before: str, after: str, bump: int) -> bool:
    """Whether a version grew in the number that it had to, or in an earlier one."""
    old, new = ([int(part) for part in version.split(".")] for version in (before, after))
    return new[: bump + 1] > old[: bump + 1] if bump < 2 else new >= old


def table() -> str:
    """The versions of the SDK in Markdown, the latest first."""
    rows = [
        f"| {each.version} | {each.release} | {_served(each.version)} | {each.brought} |"
        for each in reversed(EDITIONS)
    ]
    head = ["| SDK | Aforo | works with plugins that state | brought |", "|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def stored() -> tuple[str, list[str]]:
    """The version and the lines that were written last."""
    version, *lines = STORED.read_text().splitlines()
    return version, lines


def write() -> str | None:
    """Write the surface and the table; what is wrong, where the version has not grown enough."""
    lines = surface()
    if STORED.exists():
        version, before = stored()
        bump = needed_bump(before, lines)
        if not is_enough(version, __version__, bump):
            which = ("first", "second")[bump]
            return (
                f"the SDK changed since {version}: raise the {which} number of `__version__` in "
                "aforo/sdk/version.py, and add an Edition that says what it brought"
            )
    if (last := EDITIONS[-1].version) != __version__:
        return f"the last Edition is {last}: add one for {__version__} in aforo/sdk/version.py"
    STORED.write_text("\n".join([__version__, *lines]) + "\n")
    page = PAGE.read_text()
    begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    PAGE.write_text(page[:begin] + table() + page[end:])
    return None


def _served(version: str) -> str:
    major, minor, _ = version.split(".")
    return f"`{major}.0`" if minor == "0" else f"`{major}.0` to `{major}.{minor}`"


def _lines(path: str, thing: object) -> Iterator[str]:
    if isinstance(thing, typing.NewType):
        yield f"{path}: id"
    elif inspect.isclass(thing):
        bases = ", ".join(base.__name__ for base in thing.__bases__)
        yield f"{path}: class of {bases}"
        yield from _members(path, thing)
    elif callable(thing) and not typing.get_origin(thing):
        yield f"{path}{_signature(thing)}"
    else:
        yield f"{path}: {re.sub(r' at 0x[0-9a-f]+', '', type(thing).__name__)}"


def _members(path: str, kind: type) -> Iterator[str]:
    if issubclass(kind, enum.Enum):
        yield from (f"{path}.{member.name} = {member.value!r}" for member in kind)
        return
    if dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            yield f"{path}.{field.name}: {_type(field.type)}{_need(field)}"
    if issubclass(kind, Component):
        names = [name for name in inspect.get_annotations(kind) if not name.startswith("_")]
        yield from (f"{path}.{name}: setting of the class" for name in names)
    for name, member in vars(kind).items():
        if name.startswith("_") or name in {"model_config", "model_fields"}:
            continue
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if inspect.isfunction(function):
            word = "async " if inspect.iscoroutinefunction(function) else ""
            need = ", required" if name in getattr(kind, "__abstractmethods__", ()) else ""
            yield f"{path}.{name}: {word}{_signature(function)}{need}"
        elif isinstance(member, property):
            yield f"{path}.{name}: property"


def _need(field: "dataclasses.Field[object]") -> str:
    has_default = (
        field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    )
    return "" if has_default else ", required"


def _signature(function: typing.Any) -> str:
    parameters = inspect.signature(function).parameters.values()
    return "(" + ", ".join(_parameter(each) for each in parameters) + ")"


def _parameter(parameter: inspect.Parameter) -> str:
    star = {inspect.Parameter.KEYWORD_ONLY: "*", inspect.Parameter.VAR_POSITIONAL: "**"}
    need = "" if parameter.default is inspect.Parameter.empty else "?"
    return f"{star.get(parameter.kind, '')}{parameter.name}{need}"


def _type(annotation: object) -> str:
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation)


if __name__ == "__main__":
    assert EDITIONS[-1].release == importlib.metadata.version("aforo"), "name the release"
    sys.exit(write())
