"""Files as batches: what each format holds, and what is wrong with a row or with a file."""

import json
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aforo.importing.mapping import Wanted
from aforo.importing.reading import Progress, Source, batches, digest_of, format_of, key_of
from aforo.importing.shapes import BATCH_BYTES_MAX, Batch, Format
from aforo.sdk.errors import Invalid
from tests.importing.conftest import source

HEADER = "type,customer,occurredAt,tokens\n"
WHEN = "2026-11-20T10:00:00Z"


def read(given: Source, progress: Progress | None = None) -> list[Batch]:
    return list(batches(given, digest_of(given.path), progress or Progress()))


def events(given: Source) -> list[tuple[int, dict[str, Any]]]:
    return [(row.line, json.loads(row.text)) for batch in read(given) for row in batch.rows]


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_name_says_the_format() -> None:
    known = {".csv": "csv", ".NDJSON": "ndjson", ".jsonl": "ndjson", ".Parquet": "parquet"}
    assert {end: format_of(Path(f"x{end}")) for end in known} == known
    for other in ("x.txt", "x", "x.csv.gz"):
        with pytest.raises(Invalid, match="say --format"):
            format_of(Path(other))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_with_quotes_blank_lines_and_any_line_end(tmp_path: Path, end: str, mark: str) -> None:
    lines = [
        "type,customer,occurredAt,note",
        f'a,"ac,me",{WHEN},"one',
        'two ""x"""',
        "",
        f"b,globex,{WHEN},",
    ]
    path = written(tmp_path / "x.csv", mark + end.join(lines))
    (first, one), (second, two) = events(source(path))
    assert (first, second) == (2, 5)
    assert (one["customer"], one["properties"]) == ("ac,me", {"note": f'one{end}two "x"'})
    assert (two["customer"], "properties" in two) == ("globex", False)
    digest = digest_of(path)
    assert [one["idempotencyKey"], two["idempotencyKey"]] == [key_of(digest, 1), key_of(digest, 2)]


def test_csv_numbers_are_texts_to_the_last_character(tmp_path: Path) -> None:
    cells = ["0.10", "1e400", "00012", "123456789012345678901234567890.123", "NaN", " 1"]
    path = written(
        tmp_path / "x.csv", HEADER + "".join(f"a,acme,{WHEN},{cell}\n" for cell in cells)
    )
    assert [event["properties"]["tokens"] for _, event in events(source(path))] == cells


def test_csv_of_another_delimiter_and_encoding(tmp_path: Path) -> None:
    for encoding in ("latin-1", "utf-16"):
        text = f"type;customer;occurredAt\na;né;{WHEN}\nb;né;{WHEN}\n"
        path = written(tmp_path / "x.csv", text.encode(encoding))
        given = source(path, delimiter=";", encoding=encoding)
        found = [(line, event["customer"]) for line, event in events(given)]
        assert found == [(2, "né"), (3, "né")]


def test_a_row_of_the_wrong_width_is_refused_alone(tmp_path: Path) -> None:
    rows = [f"a,acme,{WHEN},1", f"a,acme,{WHEN}", f"a,acme,{WHEN},1,2", f"b,acme,{WHEN},2"]
    path = written(tmp_path / "x.csv", HEADER + "\n".join(rows))
    [batch] = read(source(path))
    assert [row.line for row in batch.rows] == [2, 5]
    assert [(one.line, one.code) for one in batch.refused] == [(3, "BAD_VALUE"), (4, "BAD_VALUE")]
    assert "3 cells, and the first line has 4" in batch.refused[0].message
    # Whatever is refused, a row has the key of its number.
    assert json.loads(batch.rows[1].text)["idempotencyKey"].endswith("-4")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is empty"),
        (HEADER.encode() + b"a,\xff,x,1\n", "not in utf-8, from line"),
        (HEADER.encode() + b'a,"acme,x,1\n', "the record that begins in line 2 is no CSV"),
        (HEADER.encode() + b'a,"ac"me,x,1\n', "line 2 is no CSV"),
        (HEADER.encode() + b"a," + b"x" * 200_000, "field larger"),
    ],
)
def test_a_file_that_is_no_csv_is_named_with_the_place(
    tmp_path: Path, text: bytes, said: str
) -> None:
    with pytest.raises(Invalid, match=said):
        read(source(written(tmp_path / "x.csv", text)))
    with pytest.raises(Invalid, match="cannot be read"):
        digest_of(tmp_path / "none.csv")
    with pytest.raises(Invalid, match="--encoding klingon"):
        read(source(written(tmp_path / "y.csv", HEADER), encoding="klingon"))


def test_lines_of_json_are_sent_byte_by_byte(tmp_path: Path) -> None:
    lines = [
        b'{"idempotencyKey": "k",  "properties": {"n": 1.10e5, "t": "\\u00e9"}}',
        b'{"type":"a","properties":{"n":123456789012345678901234567890.10}}',
        b"  ",
        b'{"idempotencyKey":null,"type":"b"}\r',
        b"{broken",
        b"[1]",
        b"\xff",
        b'{"a":"\xff"}',
    ]
    path = written(tmp_path / "x.ndjson", b"\xef\xbb\xbf" + b"\n".join(lines))
    [batch] = read(source(path))
    digest = digest_of(path)
    key = f'"idempotencyKey":"{key_of(digest, 2)}"'.encode()
    assert [(row.line, row.text) for row in batch.rows] == [
        (1, lines[0]),
        (2, b'{"type":"a","properties":{"n":123456789012345678901234567890.10},' + key + b"}"),
        (4, b'{"idempotencyKey":"%s","type":"b"}' % key_of(digest, 3).encode()),
        (5, b"{broken"),
        (6, b"[1]"),
        (7, b"\xff"),
        (8, lines[7][:-1] + b',"idempotencyKey":"%s"}' % key_of(digest, 7).encode()),
    ]


def test_batches_have_so_many_rows_and_so_many_bytes(tmp_path: Path) -> None:
    line = b'{"idempotencyKey":"k","x":"' + b"x" * 3_000_000 + b'"}\n'
    huge = b'"' + b"x" * BATCH_BYTES_MAX + b'"\n'
    path = written(tmp_path / "x.ndjson", line * 5 + huge + b"1\n")
    found = read(source(path))
    assert [batch.number for batch in found] == list(range(len(found)))
    assert [len(batch.rows) for batch in found][:2] == [2, 2]
    assert sum(len(batch.rows) for batch in found) == 6
    assert [one.line for batch in found for one in batch.refused] == [6]
    assert all(len(batch.body) <= BATCH_BYTES_MAX for batch in found)
    path = written(tmp_path / "y.ndjson", b"1\n" * 2_500)
    progress = Progress()
    assert [len(batch.rows) for batch in read(source(path), progress)] == [1_000, 1_000, 500]
    assert progress.share == 1
    assert [len(batch.rows) for batch in read(source(path, batch_rows=2_400))] == [2_400, 100]


def test_parquet_is_read_to_the_last_digit(tmp_path: Path) -> None:
    moment = datetime(2026, 11, 20, 10, 0, 0, 123456, tzinfo=UTC)
    table = pa.table(
        {
            "type": ["a", "a"],
            "customer": ["acme", None],
            "occurredAt": pa.array([moment, moment], pa.timestamp("ns", tz="Europe/Berlin")),
            "exact": pa.array(
                [Decimal("12345678901234567890.123456789012345678"), None], pa.decimal128(38, 18)
            ),
            "whole": pa.array([2**62 + 1, 0], pa.int64()),
            "half": pa.array([0.1, 1e-7], pa.float32()),
            "double": pa.array([0.1, float("nan")], pa.float64()),
            "yes": [True, False],
            "deep": [{"list": [1, 2]}, None],
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    (first, one), (second, two) = events(source(tmp_path / "x.parquet"))
    assert (first, second) == (1, 2)
    assert one["occurredAt"] == "2026-11-20T10:00:00.123456+00:00"
    assert one["properties"] == {
        "exact": "12345678901234567890.123456789012345678",
        "whole": str(2**62 + 1),
        "half": "0.1",
        "double": "0.1",
        "yes": True,
        "deep": {"list": ["1", "2"]},
    }
    assert "customer" not in two
    assert two["properties"] == {
        "whole": "0",
        "half": "0.0000001",
        "double": "NaN",
        "yes": False,
    }


def test_parquet_that_is_none_or_holds_bytes_is_said(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be read as Parquet"):
        read(source(written(tmp_path / "x.parquet", "type,customer")))
    table = pa.table({"type": ["a"], "customer": ["acme"], "occurredAt": [WHEN], "raw": [b"\xff"]})
    pq.write_table(table, tmp_path / "y.parquet")
    [batch] = read(source(tmp_path / "y.parquet"))
    assert (batch.rows, batch.refused[0].line) == ([], 1)
    assert "the column raw holds bytes" in batch.refused[0].message
    good = read(source(tmp_path / "y.parquet", Wanted({}, {}, ["type"])))
    assert len(good[0].rows) == 1


def test_without_pyarrow_parquet_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "x.parquet", "")
    monkeypatch.setitem(sys.modules, "aforo.importing.parquet", None)
    with pytest.raises(Invalid, match=r"pip install 'aforo\[parquet\]'"):
        read(Source(tmp_path / "x.parquet", Format.PARQUET, Wanted({}, {})))
