"""What the front must know of a statement before it hands it to the engine. Pure."""

import re
from dataclasses import dataclass

_NAME = rb"(?:[A-Za-z_][\w$]*|`(?:[^`\\]|\\.|``)*`|\"(?:[^\"\\]|\\.|\"\")*\")"
_COLUMNS = rb"\((?:[^()`\"']|`(?:[^`\\]|\\.|``)*`|\"(?:[^\"\\]|\\.|\"\")*\")*\)"
_SETTINGS = rb"SETTINGS\s+(?:[\w.]+\s*=\s*(?:'(?:[^'\\]|\\.)*'|[\w.-]+)\s*,?\s*)+"

INSERT_OF_DATA = re.compile(
    rb"(?P<statement>\s*INSERT\s+INTO\s+(?:TABLE\s+)?%s(?:\s*\.\s*%s)?\s*(?:%s)?\s*(?:%s)?)"
    rb"FORMAT\s+(?P<format>(?!VALUES\b)\w+)(?:[ \t\f]*;)?[ \t\f]*\r?\n?"
    % (_NAME, _NAME, _COLUMNS, _SETTINGS),
    re.IGNORECASE,
)
_TRAILING_FORMAT = re.compile(r"\bFORMAT\s+(\w+)(?:\s+SETTINGS\b[^;]*)?\s*;?\s*\Z", re.IGNORECASE)
_BEGINS_SELECT = re.compile(
    r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(?:SELECT|WITH)\b", re.IGNORECASE | re.S
)
_BEGINS_INSERT = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*INSERT\b", re.IGNORECASE | re.S)
_TOKEN = re.compile(
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`|--[^\n]*|/\*.*?\*/|;""", re.S
)
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.S)

STREAMABLE_FORMATS = frozenset({"Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow"})
"""The engine streams block by block; other formats have a head or a foot around the whole."""


_INSERT_OF_INPUT = re.compile(
    r"(?P<before>\s*INSERT\s+INTO\b.*?\bFROM\s+)input\(\s*(?P<columns>'(?:[^'\\]|\\.)*')\s*\)"
    r"(?P<after>.*?)\bFORMAT\s+(?P<format>\w+)\s*;?\s*\Z",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class DataInsert:
    """An INSERT whose rows follow it in a named format."""

    statement: str
    """Without the FORMAT clause, as the engine wants it."""
    format: str
    length: int
    """Bytes of the statement with its FORMAT clause; the rows begin there."""


@dataclass(frozen=True, slots=True)
class InputInsert:
    """An INSERT … SELECT … FROM input(…), whose rows come beside it in a named format."""

    before: str
    columns: str
    """The structure of the rows, as a literal."""
    after: str
    format: str

    def reading(self, path: str, compression: str) -> str:
        """The same, reading a file in place of its input: the engine knows no other way."""
        file = f"file('{path}', '{self.format}', {self.columns}, '{compression}')"
        return f"{self.before}{file}{self.after}"


def input_insert(statement: str) -> InputInsert | None:
    """The parts of an INSERT that reads its input, None where it is another kind of statement."""
    found = _INSERT_OF_INPUT.match(statement)
    if found is None:
        return None
    return InputInsert(found["before"], found["columns"], found["after"], found["format"])


def data_insert(head: bytes) -> DataInsert | None:
    """The INSERT at the beginning of a body, None where it is another kind of statement."""
    found = INSERT_OF_DATA.match(head)
    if found is None:
        return None
    statement = found["statement"].decode("utf-8", "surrogateescape")
    return DataInsert(statement.rstrip(), found["format"].decode(), found.end())


def output_format(statement: str) -> str | None:
    """The format that the statement itself asks for."""
    found = _TRAILING_FORMAT.search(statement)
    return None if found is None or _BEGINS_INSERT.match(statement) else found[1]


def can_stream(statement: str) -> bool:
    """The engine streams SELECTs only, and formats that are the same block by block."""
    return (
        output_format(statement) in STREAMABLE_FORMATS
        and _BEGINS_SELECT.match(statement) is not None
    )


def has_more_than_one(statement: str) -> bool:
    """The engine would run all of `a; b`, where a server refuses: what follows may be foreign."""
    for token in _TOKEN.finditer(statement):
        if token[0] == ";":
            rest = _COMMENTS.sub("", statement[token.end() :])
            return bool(rest.replace(";", "").strip())
    return False
