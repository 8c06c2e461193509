"""The front, asked by the client that Aforo uses, and by hand where the client would hide it."""

import gzip
import os
import signal
import socket
import sys
import threading
import uuid
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation, localcontext
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import quote, urlsplit

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from aforo.storage.embedded.clickhouse import ClickHouse

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

WIDE = Decimal("1234567890123456789012345678901234567890123456.123456789012345678901234567891")
COLUMNS = ["id", "name", "amount", "at"]
MOMENT = datetime(2026, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)


@pytest.fixture
def table(client: Client) -> str:
    """An empty table in the shape of events."""
    client.command(
        "CREATE OR REPLACE TABLE things (id UInt64, name LowCardinality(String),"
        " amount Decimal(76, 30), at DateTime64(6, 'UTC')) ENGINE = MergeTree ORDER BY id"
        " SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"
    )
    return "things"


class Raw:
    """HTTP without a client's help."""

    def __init__(self, front: ClickHouse) -> None:
        parts = urlsplit(front.url)
        assert parts.hostname is not None
        self._place = (parts.hostname, parts.port)
        self._login = f"{parts.username}:{parts.password}"

    def ask(
        self,
        sql: str,
        *,
        method: str = "POST",
        login: str | None = None,
        headers: dict[str, str] | None = None,
        **fields: str,
    ) -> tuple[HTTPResponse, bytes]:
        address = "/?" + "&".join(f"{name}={quote(value)}" for name, value in fields.items())
        if method == "GET":
            address, body = f"{address}&query={quote(sql)}", None
        else:
            body = sql.encode()
        connection = HTTPConnection(*self._place, timeout=30)
        basic = b64encode((self._login if login is None else login).encode()).decode()
        connection.request(
            method,
            address,
            body,
            headers if headers is not None else {"Authorization": f"Basic {basic}"},
        )
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response, answer

    def half_an_insert(self, statement: str) -> None:
        """Begin to send rows, and go away."""
        basic = b64encode(self._login.encode()).decode()
        with socket.create_connection(self._place) as connection:
            connection.sendall(
                f"POST /?query={quote(statement)} HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Basic {basic}\r\nTransfer-Encoding: chunked\r\n\r\n"
                "a\r\n1,a,1,100\n\r\n".encode()
            )


@pytest.fixture
def raw(front: ClickHouse) -> Iterator[Raw]:
    return Raw(front)


def test_the_client_meets_a_server_it_knows(front: ClickHouse, client: Client) -> None:
    assert client.ping()
    assert int(client.server_version.split(".")[0]) >= 26
    assert str(client.server_tz) == "UTC"
    parts = urlsplit(front.url)
    with clickhouse_connect.get_client(
        host=parts.hostname,
        port=parts.port,
        username=parts.username,
        password=parts.password or "",
        database="aforo",
    ) as other:
        assert other.command("SELECT currentDatabase()") == "aforo"


def test_what_is_inserted_is_what_is_read(client: Client, table: str) -> None:
    rows = [(1, "a", WIDE, MOMENT), (2, "b\t'\\\n", Decimal("-0.5"), MOMENT)]
    summary = client.insert(table, rows, column_names=COLUMNS)
    assert summary.written_rows == 2
    found = client.query(f"SELECT * FROM {table} ORDER BY id", tz_mode="aware")
    assert [tuple(row) for row in found.result_rows] == rows


def test_a_sum_in_decimal256_keeps_every_digit(client: Client, table: str) -> None:
    rows = [(n, "a", WIDE, MOMENT) for n in range(5)]
    client.insert(table, rows, column_names=COLUMNS)
    total = client.query(f"SELECT sum(toDecimal256(amount, 30)) FROM {table}").first_row[0]
    with localcontext(prec=120):
        assert total == WIDE * 5


@pytest.mark.parametrize(
    "value", ["", "it's", "a\\b", "a\nb\tc\rd", "ü{x:String}", "\\N", "'; DROP TABLE things; --"]
)
def test_a_parameter_arrives_as_it_was_sent(client: Client, value: str) -> None:
    found = client.query("SELECT {value:String} AS v", parameters={"value": value})
    assert found.first_row == (value,)


def test_parameters_too_long_for_an_address_come_as_a_form(client: Client) -> None:
    names = [f"é'{n}\n" for n in range(5_000)]
    found = client.query(
        "SELECT {names:Array(String)} AS n, length({text:String})",
        parameters={"names": names, "text": "ü" * 100_000},
    )
    assert found.first_row == (names, 200_000)


def test_a_statement_that_is_longer_than_what_is_looked_at_first_arrives_whole(
    client: Client,
) -> None:
    text = "0123456789" * 30_000
    sent = client.query(f"SELECT '{text}' AS text", settings={"max_query_size": 1_000_000})
    assert sent.result_rows == [(text,)]


def test_a_view_gives_rows_only_to_who_names_a_tenant(client: Client) -> None:
    client.command("CREATE OR REPLACE TABLE owned (tenant UUID, n UInt8) ENGINE = Memory")
    client.command(
        "CREATE OR REPLACE VIEW owned_of AS SELECT * FROM owned WHERE tenant = {tenant:UUID}"
    )
    mine, other = uuid.uuid4(), uuid.uuid4()
    client.insert("owned", [[mine, 1], [other, 2]], column_names=["tenant", "n"])
    found = client.query(
        "SELECT n FROM owned_of(tenant = {tenant:UUID})", parameters={"tenant": str(mine)}
    )
    assert found.result_rows == [(1,)]
    for statement in ("SELECT * FROM owned_of", "SELECT count() FROM owned_of()"):
        with pytest.raises(DatabaseError):
            client.query(statement)


def test_the_first_segment_wins_and_a_partition_is_replaced_as_a_whole(client: Client) -> None:
    client.command(
        "CREATE OR REPLACE TABLE deduplicated (key UInt64, segment UInt64, part UInt8,"
        " version UInt64 MATERIALIZED 18446744073709551615 - segment)"
        " ENGINE = ReplacingMergeTree(version) PARTITION BY part ORDER BY key"
    )
    client.command("CREATE OR REPLACE TABLE staging AS deduplicated")
    for segment in (3, 1, 2):
        client.insert("deduplicated", [[7, segment, 0]], column_names=["key", "segment", "part"])
    found = client.query("SELECT key, segment FROM deduplicated FINAL")
    assert found.result_rows == [(7, 1)]
    client.insert("staging", [[8, 5, 0]], column_names=["key", "segment", "part"])
    client.command("ALTER TABLE deduplicated REPLACE PARTITION 0 FROM staging")
    assert client.query("SELECT key FROM deduplicated FINAL").result_rows == [(8,)]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "lz4", None])
def test_rows_come_in_any_format_and_compression(
    front: ClickHouse, table: str, compression: str | None
) -> None:
    compressing: bool | str = compression or False
    with clickhouse_connect.get_client(dsn=front.url, compress=compressing) as client:
        client.insert(table, [(1, "a", WIDE, MOMENT)], column_names=COLUMNS)
        client.raw_insert(table, COLUMNS, "2,b,1.5,1700000000\n", fmt="CSV")
        assert client.command(f"SELECT count() FROM {table}") == 2


def test_a_command_without_a_result_is_told_from_one_with_an_empty_result(
    client: Client, table: str
) -> None:
    assert client.command(f"SELECT name FROM {table}") == ""
    assert not isinstance(client.command(f"OPTIMIZE TABLE {table}"), (str, int, list))
    assert client.command("SELECT 1, 'a'") == ["1", "a"]
    assert client.query(f"SELECT id, name FROM {table} LIMIT 0").column_names == ("id", "name")


def test_settings_hold_for_one_request_only(client: Client) -> None:
    asked = "SELECT getSetting('max_threads')"
    assert client.query(asked, settings={"max_threads": 1}).first_row == (1,)
    with pytest.raises(DatabaseError, match="readonly"):
        client.command("CREATE TABLE no (n UInt8) ENGINE = Memory", settings={"readonly": 1})
    client.command("CREATE OR REPLACE TABLE yes (n UInt8) ENGINE = Memory")
    with pytest.raises(DatabaseError, match="UNKNOWN_SETTING"):
        client.query(asked, settings={"no_such_setting": 1})


def test_a_read_only_request_reads_no_files(client: Client) -> None:
    with pytest.raises(DatabaseError, match="READONLY"):
        client.query("SELECT * FROM file('/etc/hosts', 'LineAsString')", settings={"readonly": 1})


def test_an_error_carries_the_code_and_leaks_no_row_into_the_next_result(client: Client) -> None:
    for number in range(20):
        with pytest.raises(DatabaseError) as error:
            client.query("SELECT number, throwIf(number = 3) FROM numbers(10)")
        assert error.value.code == 395
        found = client.query("SELECT {n:UInt8} AS n", parameters={"n": number})
        assert found.result_rows == [(number,)]


def test_an_error_in_the_middle_of_a_stream_is_an_error(client: Client) -> None:
    sql = "SELECT number, throwIf(number = 3000000) FROM numbers(10000000)"
    rows, told = 0, ""
    with client.query_row_block_stream(sql) as blocks:
        try:
            for block in blocks:
                rows += len(block)
        except StreamFailureError as error:
            told = str(error)
    assert "FUNCTION_THROW_IF" in told
    assert 0 < rows < 3_000_001
    with client.query_rows_stream("SELECT number FROM numbers(2000000)") as stream:
        assert sum(row[0] for row in stream) == 1_999_999 * 1_000_000


def test_memory_time_and_results_have_limits(client: Client) -> None:
    names = ["max_memory_usage", "max_result_rows", "max_result_bytes", "max_execution_time"]
    limits = client.query("SELECT " + ", ".join(f"getSetting('{name}')" for name in names))
    assert all(int(limit) > 0 for limit in limits.first_row)
    with pytest.raises(DatabaseError, match="TOO_MANY_ROWS_OR_BYTES"):
        client.query("SELECT number FROM numbers(6000000)")
    with pytest.raises(DatabaseError, match="MEMORY_LIMIT_EXCEEDED"):
        client.query(
            "SELECT uniqExact(number) FROM numbers(10000000)",
            settings={"max_memory_usage": 50_000_000},
        )


def inserted_from_input(client: Client, table: str, lines: bytes, encoding: str) -> None:
    client.command(
        f"INSERT INTO {table} (id, name) SELECT {{first:UInt64}} + rowNumberInAllBlocks(), text "
        "FROM input('text String') SETTINGS input_format_parallel_parsing = 0, max_threads = 1 "
        "FORMAT JSONEachRow",
        parameters={"first": 7},
        data=lines,
        transport_settings={"Content-Encoding": encoding},
    )


@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd"])
def test_an_insert_may_select_from_its_input(client: Client, table: str, encoding: str) -> None:
    pack = {"identity": bytes, "gzip": gzip.compress, "zstd": zstd.compress}[encoding]
    # Several frames one behind the other are all read.
    parts = [b'{"text": "a\\"\\u00e4"}\n{"text": "b", "more": 1}\n', b'{"text": "c"}\n']
    inserted_from_input(client, table, b"".join(pack(part) for part in parts), encoding)
    found = client.query(f"SELECT id, name FROM {table} ORDER BY id").result_rows
    assert [tuple(row) for row in found] == [(7, 'a"ä'), (8, "b"), (9, "c")]


@pytest.mark.parametrize(
    ("lines", "encoding", "told"),
    [
        (b'{"text": "a"}\n{"text": ', "identity", "JSONEachRow"),
        (b'{"text": "a"}\n', "zstd", "ZSTD"),
        (b'{"text": "a"}\n', "br", "Content-Encoding 'br'"),
    ],
    ids=["half a line", "no frame", "another encoding"],
)
def test_an_insert_from_broken_input_writes_nothing(
    client: Client, table: str, lines: bytes, encoding: str, told: str
) -> None:
    with pytest.raises(DatabaseError, match=told):
        inserted_from_input(client, table, lines, encoding)
    assert client.command(f"SELECT count() FROM {table}") == 0


def test_an_insert_from_input_is_one_statement(client: Client, table: str) -> None:
    with pytest.raises(DatabaseError, match="Multi-statements"):
        client.command(
            f"INSERT INTO {table} (id) SELECT n FROM input('n UInt64'); "
            f"DROP TABLE {table} FORMAT JSONEachRow",
            data=b'{"n": 1}\n',
        )
    assert client.command(f"SELECT count() FROM {table}") == 0


def test_a_broken_insert_writes_nothing(client: Client, table: str, raw: Raw) -> None:
    with pytest.raises(DatabaseError, match="CANNOT_PARSE"):
        client.raw_insert(table, COLUMNS, "1,a,1.5,1700000000\n2,b,x,1\n", fmt="CSV")
    raw.half_an_insert(f"INSERT INTO {table} FORMAT CSV")
    with pytest.raises(InvalidOperation):
        client.insert(table, [(1, "a", "no number", MOMENT)], column_names=COLUMNS)
    assert client.command(f"SELECT count() FROM {table}") == 0


def test_eight_threads_get_their_own_answers(client: Client) -> None:
    wrong: list[object] = []

    def ask(thread: int) -> None:
        for turn in range(25):
            found = client.query(
                "SELECT {t:UInt8}, {n:UInt8}, number FROM numbers(2000)",
                parameters={"t": thread, "n": turn},
            ).result_rows
            if len(found) != 2000 or found[-1] != (thread, turn, 1999):
                wrong.append(found[-1:])
            with pytest.raises(DatabaseError):
                client.query("SELECT throwIf(number = 5) FROM numbers(10)")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_rows_are_there_after_a_kill_right_behind_the_acknowledgement(
    front: ClickHouse, client: Client, table: str
) -> None:
    rows = [(n, "a", Decimal(n), MOMENT) for n in range(50_000)]
    client.insert(table, rows, column_names=COLUMNS)
    pid = front.supervisor.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    # The next question waits in the socket's queue until the new child answers it.
    found = client.query(f"SELECT count(), sum(id), uniqExact(id) FROM {table}").first_row
    assert found == (50_000, sum(range(50_000)), 50_000)
    assert front.supervisor.pid != pid


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELECT nonsense", 404, "47"),
        ("SELECT * FROM nowhere", 404, "60"),
        ("SELEC 1", 400, "62"),
        ("SELECT 1; SELECT 2", 400, "62"),
        ("SELECT throwIf(1)", 500, "395"),
        ("SELECT {x:UInt8}", 500, "456"),
    ],
)
def test_an_error_has_the_status_and_the_text_of_a_server(
    raw: Raw, sql: str, status: int, code: str
) -> None:
    response, body = raw.ask(sql)
    assert response.status == status
    assert response.headers["X-ClickHouse-Exception-Code"] == code
    assert body.startswith(f"Code: {code}. DB::Exception: ".encode())


def test_an_answer_names_its_query_its_format_and_what_it_read(raw: Raw) -> None:
    response, body = raw.ask("SELECT 1 AS a FORMAT JSONEachRow", query_id="mine")
    assert body == b'{"a":1}\n'
    assert response.headers["X-ClickHouse-Query-Id"] == "mine"
    assert response.headers["X-ClickHouse-Format"] == "JSONEachRow"
    response, body = raw.ask("SELECT 'a' AS a", default_format="JSONCompactEachRow")
    assert body == b'["a"]\n'
    assert '"read_rows": "1"' in response.headers["X-ClickHouse-Summary"]


def test_a_get_only_reads(raw: Raw) -> None:
    assert raw.ask("SELECT 1", method="GET")[1] == b"1\n"
    response, body = raw.ask("CREATE TABLE got (n UInt8) ENGINE = Memory", method="GET")
    assert response.status == 500
    assert b"READONLY" in body


@pytest.mark.parametrize("login", ["aforo:wrong", "aforo:", "default:", "nobody:\xe4"])
def test_nobody_gets_in_without_the_password(raw: Raw, login: str) -> None:
    response, body = raw.ask("SELECT 1", login=login)
    assert response.status == 403
    assert response.headers["X-ClickHouse-Exception-Code"] == "516"
    assert body != b"1\n"


def test_a_login_may_come_in_the_headers_of_clickhouse(raw: Raw, front: ClickHouse) -> None:
    parts = urlsplit(front.url)
    key = {"X-ClickHouse-User": "aforo", "X-ClickHouse-Key": parts.password or ""}
    assert raw.ask("SELECT 1", headers=key)[0].status == 200
    assert raw.ask("SELECT 1", headers={})[0].status == 403
