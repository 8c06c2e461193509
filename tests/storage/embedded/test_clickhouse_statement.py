"""What the front reads out of a statement."""

import pytest

from aforo.storage.embedded.clickhouse_statement import (
    can_stream,
    data_insert,
    has_more_than_one,
    input_insert,
    output_format,
)


@pytest.mark.parametrize(
    ("head", "statement", "data_format", "rest"),
    [
        (b"INSERT INTO t FORMAT Native\n\x01\x02", "INSERT INTO t", "Native", b"\x01\x02"),
        (b'insert into `a b`."t" (`x`, y) format CSV\r\n1,2', None, "CSV", b"1,2"),
        (b"INSERT INTO TABLE t (`FORMAT x (`) FORMAT Native \n\n", None, "Native", b"\n"),
        (b"INSERT INTO t SETTINGS async_insert=0, a='b' FORMAT TSV\n1", None, "TSV", b"1"),
        (b"INSERT INTO t FORMAT Native", None, "Native", b""),
    ],
)
def test_an_insert_is_cut_where_its_rows_begin(
    head: bytes, statement: str | None, data_format: str, rest: bytes
) -> None:
    found = data_insert(head)
    assert found is not None
    assert found.format == data_format
    assert head[found.length :] == rest
    assert statement is None or found.statement == statement


@pytest.mark.parametrize(
    "head",
    [
        b"INSERT INTO t VALUES (1, 'FORMAT Native')",
        b"INSERT INTO t FORMAT Values (1)",
        b"INSERT INTO t SELECT 1 FORMAT Native\n",
        b"SELECT 1 FORMAT Native\n",
    ],
)
def test_other_statements_are_no_insert_of_data(head: bytes) -> None:
    assert data_insert(head) is None


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 1 FORMAT JSON", "JSON"),
        ("SELECT 1 FORMAT JSON SETTINGS max_threads = 1;\n", "JSON"),
        ("SELECT 1", None),
        ("SELECT 'FORMAT JSON'", None),
        ("INSERT INTO t FORMAT CSV", None),
    ],
)
def test_the_format_of_the_answer_is_the_last_clause(statement: str, expected: str | None) -> None:
    assert output_format(statement) == expected


@pytest.mark.parametrize(
    ("statement", "streams"),
    [
        ("SELECT 1 FORMAT Native", True),
        ("-- why\n WITH 1 AS x SELECT x FORMAT TSV", True),
        ("(SELECT 1) FORMAT Native", True),
        ("SELECT 1 FORMAT JSON", False),
        ("SHOW TABLES FORMAT Native", False),
        ("SELECT 1", False),
    ],
)
def test_only_selects_in_simple_formats_stream(statement: str, streams: bool) -> None:
    assert can_stream(statement) is streams


@pytest.mark.parametrize(
    ("statement", "more"),
    [
        ("SELECT 1; DROP TABLE t", True),
        ("SELECT ';' ; -- the end\n /* ; */ ;", False),
        ("SELECT ';'", False),
        ("SELECT 'it\\'s; fine'", False),
        ("SELECT 'it''s; fine'", False),
        ('SELECT 1 AS "a;b"', False),
        ("SELECT 1 AS `a;b`; SELECT 2", True),
        ("SELECT '\\\\'; DROP TABLE t", True),
    ],
)
def test_a_second_statement_is_seen_outside_of_quotes_and_comments(
    statement: str, more: bool
) -> None:
    assert has_more_than_one(statement) is more


def test_an_insert_of_input_reads_a_file_in_its_place() -> None:
    found = input_insert(
        "\n INSERT INTO t (a)\n SELECT 'FORMAT x', n FROM input('n UInt8, d DateTime(\\'UTC\\')')\n"
        " WHERE n > 0 SETTINGS x = 1 FORMAT JSONEachRow\n"
    )
    assert found is not None
    expected = (
        "INSERT INTO t (a) SELECT 'FORMAT x', n FROM file('/dev/fd/7', 'JSONEachRow', "
        "'n UInt8, d DateTime(\\'UTC\\')', 'zstd') WHERE n > 0 SETTINGS x = 1"
    )
    assert " ".join(found.reading("/dev/fd/7", "zstd").split()) == expected


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO t FORMAT Native",
        "INSERT INTO t SELECT * FROM input('n UInt8')",
        "SELECT * FROM input('n UInt8') FORMAT CSV",
    ],
)
def test_other_statements_read_no_input(statement: str) -> None:
    assert input_insert(statement) is None
