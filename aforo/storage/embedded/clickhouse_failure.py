"""How ClickHouse says that a query failed: a number, a text, and a status over HTTP. Pure."""

import re

UNKNOWN_SETTING = 115
INCORRECT_DATA = 117
NOT_IMPLEMENTED = 48
SYNTAX_ERROR = 62
TOO_MANY_SIMULTANEOUS_QUERIES = 202
UNKNOWN_EXCEPTION = 1002
AUTHENTICATION_FAILED = 516

# ClickHouse, src/Server/HTTP/exceptionCodeToHTTPStatus.cpp.
BAD_REQUEST = frozenset(
    {6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223}
    | {321, 376, 427, 441, 675, 676}
)
NOT_FOUND = frozenset({46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511})
FORBIDDEN = frozenset({192, 193, 516})
OTHER_STATUS = {194: 401, 229: 413, 48: 501, 76: 503, 209: 503, 439: 503, 159: 408}

_CODE = re.compile(r"Code: (\d+)")


class QueryFailed(Exception):
    """ClickHouse's own words about a failure, and its number for it."""

    def __init__(self, message: str) -> None:
        found = _CODE.search(message)
        text = message[found.start() :] if found else f"Code: {UNKNOWN_EXCEPTION}. {message}"
        super().__init__(text.strip())
        self.code = int(found[1]) if found else UNKNOWN_EXCEPTION

    @property
    def status(self) -> int:
        """The HTTP status that a server answers with."""
        if self.code in BAD_REQUEST:
            return 400
        if self.code in NOT_FOUND:
            return 404
        if self.code in FORBIDDEN:
            return 403
        return OTHER_STATUS.get(self.code, 500)

    def worded(self, version: str) -> str:
        """The text as a server of this version ends it."""
        text = str(self)
        return text if "(version " in text else f"{text} (version {version} (official build))"


def failure(code: int, text: str) -> QueryFailed:
    """A failure of the front's own, in ClickHouse's form."""
    return QueryFailed(f"Code: {code}. DB::Exception: {text}")
