"""The command `aforo import`: a file of usage events goes in, and what did not is listed."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from aforo.sdk.errors import Invalid

if TYPE_CHECKING:
    from aforo.importing.mapping import Wanted
    from aforo.importing.reading import Source
    from aforo.importing.run import Report, Target
    from aforo.importing.shapes import Format

KEY_VARIABLE = "AFORO_API_KEY"
NOT_ALL_WENT_IN = 3
INTERRUPTED = 130
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

FIELDS = "idempotencyKey, type, customer, apiKey, occurredAt"


Columns = Annotated[
    list[str] | None,
    typer.Option("--map", help=f"<field>=<column>, with a field of {FIELDS}; repeat it."),
]
Values = Annotated[
    list[str] | None,
    typer.Option("--set", help="<field>=<value> for every row; repeat it."),
]
Properties = Annotated[
    str | None,
    typer.Option(help="Columns that become properties, with commas; else all other columns."),
]
Backfill = Annotated[
    str | None, typer.Option(help="The name of the open backfill that the rows are added to.")
]


def import_file(
    file: Annotated[Path, typer.Argument(help="A .csv, .ndjson, .jsonl or .parquet file.")],
    *,
    url: Annotated[
        str, typer.Option(envvar="AFORO_URL", help="The origin of the API.")
    ] = "http://127.0.0.1:8080",
    key_file: Annotated[
        Path | None, typer.Option(help=f"A file with the API key; else ${KEY_VARIABLE} has it.")
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="csv, ndjson or parquet, whatever its name says.")
    ] = None,
    map_: Columns = None,
    set_: Values = None,
    properties: Properties = None,
    delimiter: Annotated[str, typer.Option(help="Between the cells of a CSV file.")] = ",",
    encoding: Annotated[str, typer.Option(help="Of a CSV file.")] = "utf-8",
    batch: Annotated[int, typer.Option(min=1, max=1_000, help="Rows at once.")] = 1_000,
    parallel: Annotated[int, typer.Option(min=1, max=16, help="Batches under way at once.")] = 4,
    packing: Annotated[str, typer.Option(help="zstd, gzip or none.")] = "zstd",
    backfill: Backfill = None,
    give_up_after: Annotated[
        float, typer.Option(min=1, help="Seconds in which no batch had an answer.")
    ] = 600.0,
    state: Annotated[
        Path | None, typer.Option(help="Where the progress is kept; else beside the file.")
    ] = None,
    not_taken: Annotated[
        Path | None, typer.Option(help="Where rows that did not go in are listed; else beside it.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Read and map everything, and send nothing.")
    ] = False,
    allow_http: Annotated[
        bool, typer.Option("--allow-http", help="Send the key unencrypted to another machine.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Report in JSON.")] = False,
) -> None:
    """Send a file of usage events; run it again to go on where it was interrupted.

    Exit code 0: every row is in. 3: some are not, and are listed. 1: it stopped before the end.
    """
    from aforo.importing.reading import Source
    from aforo.importing.run import Target, check_file
    from aforo.importing.sending import Packing

    wanted = _wanted(map_ or [], set_ or [], properties)
    chosen = _format(file, format_, wanted)
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise Invalid("--delimiter is one character, and neither a quote nor the end of a line")
    source = Source(file, chosen, wanted, delimiter, encoding, batch)
    listed = not_taken or file.with_name(f"{file.name}.aforo-not-taken.ndjson")
    if check:
        _tell(check_file(source, not_taken=listed), listed, as_json=as_json, checked=True)
        return
    if packing not in set(Packing):
        raise Invalid("--packing is zstd, gzip or none")
    target = Target(
        url=_origin(url, allow_http=allow_http),
        key=_key(key_file),
        packing=Packing(packing),
        parallel=parallel,
        give_up_seconds=give_up_after,
        backfill=backfill,
    )
    report = _sent(source, target, state, listed)
    _tell(report, listed, as_json=as_json, checked=False)


def _wanted(columns: list[str], fixed: list[str], properties: str | None) -> "Wanted":
    from aforo.importing.mapping import Wanted, pairs

    names = [each.strip() for each in properties.split(",")] if properties is not None else None
    named = None if names is None else [each for each in names if each]
    return Wanted(pairs(columns, "--map"), pairs(fixed, "--set"), named)


def _format(file: Path, given: str | None, wanted: "Wanted") -> "Format":
    from aforo.importing.reading import format_of
    from aforo.importing.shapes import Format

    if given is not None and given not in set(Format):
        raise Invalid("--format is csv, ndjson or parquet")
    chosen = Format(given) if given else format_of(file)
    if chosen is Format.NDJSON and (wanted.columns or wanted.fixed or wanted.properties):
        raise Invalid(
            "lines of JSON are events as they are: --map, --set and --properties are for CSV and "
            "Parquet"
        )
    return chosen


def _origin(url: str, *, allow_http: bool) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
        raise Invalid(f"--url {url} is no address such as https://aforo.example")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not allow_http:
        raise Invalid(
            f"{url} would send the key unencrypted over the network: use https, or say --allow-http"
        )
    return url.rstrip("/")


def _key(key_file: Path | None) -> str:
    try:
        given = key_file.read_text(encoding="ascii") if key_file else os.environ.get(KEY_VARIABLE)
    except (OSError, UnicodeError) as error:
        raise Invalid(f"{key_file} cannot be read as an API key") from error
    key = (given or "").strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise Invalid(f"no API key: put it into {KEY_VARIABLE}, or name its file with --key-file")
    return key


def _sent(source: "Source", target: "Target", state: Path | None, not_taken: Path) -> "Report":
    from aforo import process
    from aforo.importing import run
    from aforo.importing.journal import SUFFIX

    kept = state or source.path.with_name(f"{source.path.name}{SUFFIX}")
    reports: list[Report] = []

    async def work() -> None:
        reports.append(await run.import_file(source, target, state=kept, not_taken=not_taken))

    process.run(work)
    if not reports:
        print(f"aforo: interrupted; run the same command again to go on ({kept})", file=sys.stderr)
        sys.exit(INTERRUPTED)
    return reports[0]


def _tell(report: "Report", not_taken: Path, *, as_json: bool, checked: bool) -> None:
    listed = None if report.went_in else str(not_taken)
    if as_json:
        print(json.dumps({"rows": report.rows, **report.totals, "notTaken": listed}))
    elif checked:
        wrong = report.totals["rejected"]
        print(f"{report.rows:,} rows, {wrong:,} of them wrong; nothing was sent")
    else:
        print(f"{report.rows:,} rows")
        print("\n".join(f"{count:>14,} {name}" for name, count in report.totals.items()))
    if listed is None:
        return
    if not as_json:
        print(f"What is wrong with which line: {listed}")
    sys.exit(NOT_ALL_WENT_IN)
