"""Brings a database to the schema this version of the program needs, and refuses one it must not run on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, pool
from sqlalchemy import exc as sqlalchemy_errors

from metafield_sync.errors import AppError

if TYPE_CHECKING:
    from collections.abc import Callable

POSTGRES_VERSION_MIN = 15
CONNECT_TIMEOUT_S = 10
APP_ROLE = "metafield_sync_app"


class DatabaseUnusable(AppError):
    """The database cannot be reached, is too old, or would run us with more rights than we may have."""

    code = "database_unusable"
    status = 503
    exit_status = 2


def migration_config() -> Config:
    """Alembic's settings, without a file: where the steps are."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def head_revision() -> str:
    """The newest step this program knows."""
    head = ScriptDirectory.from_config(migration_config()).get_current_head()
    assert head is not None, "the package carries at least one migration"  # noqa: S101 - a broken build, not input
    return head


def connect(conninfo: str) -> psycopg.Connection:
    """Open one plain connection.

    Raises:
        DatabaseUnusable: it cannot be reached, or is older than PostgreSQL 15; the detail names host and cure, never
            the password.
    """
    try:
        conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        # What libpq says about an address it cannot read quotes it, password and all; so neither its text nor its
        # traceback goes further.
        raise DatabaseUnusable(
            "DATABASE_URL or DATABASE_OWNER_URL is no address of a database. It has the form "
            "postgresql://user:password@host:5432/database, other characters in it written as %XX."
        ) from None
    try:
        # Nothing prepared: a pooler in between may give each transaction another session.
        conn = psycopg.connect(conninfo, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        raise DatabaseUnusable(
            f"PostgreSQL cannot be reached: {_one_line(error)}. Check DATABASE_URL and that the server is running."
        ) from error
    major = conn.info.server_version // 10_000
    if major < POSTGRES_VERSION_MIN:
        conn.close()
        raise DatabaseUnusable(
            f"PostgreSQL {major} is too old: version {POSTGRES_VERSION_MIN} or later is needed. "
            "Point DATABASE_URL at a newer server, or unset it to use the embedded one."
        )
    return conn


def migrate(owner_url: str, app_url: str) -> list[str]:
    """Apply every pending step, as `owner_url`, and let the login of `app_url` take the application's role.

    Safe to call from any number of starts at once (an advisory lock lets one in), and free when nothing is pending.

    Returns:
        The revisions applied now, oldest first; empty when the schema was current.

    Raises:
        DatabaseUnusable: unreachable, too old, newer than this program, not allowed to create what is needed, or
            the role the application would run as is too powerful.
    """
    with connect(owner_url) as conn:
        before = current_revision(conn)
    known = [step.revision for step in ScriptDirectory.from_config(migration_config()).walk_revisions()][::-1]
    if before is not None and before not in known:
        raise DatabaseUnusable(
            f"The database is at schema {before}, which this version does not know. "
            "Run the newer version of metafield-sync."
        )
    applied = known[known.index(before) + 1 :] if before else known
    if applied:
        _upgrade(owner_url)
    _let_login_take_role(owner_url, app_url)
    check_role(app_url)
    return applied


def current_revision(conn: psycopg.Connection) -> str | None:
    """The step a database is at; None when it is empty."""
    if conn.execute("select to_regclass('public.alembic_version')").fetchone() == (None,):
        return None
    row = conn.execute("select version_num from public.alembic_version").fetchone()
    return None if row is None else row[0]


def check_role(app_url: str) -> None:
    """Refuse to run with rights that would make row-level security and the ledger's grants mean nothing.

    Raises:
        DatabaseUnusable: the role each transaction takes is a superuser, bypasses row-level security, owns tables, or
            may not be taken at all.
    """
    with connect(app_url) as conn:
        try:
            with conn.transaction():
                conn.execute("select act_for_shop(0)")
                powers = conn.execute(ROLE_POWERS).fetchone()
        except psycopg.Error as error:
            raise DatabaseUnusable(
                f"The login {conn.info.user!r} may not take the role {APP_ROLE}: {_one_line(error)}. "
                f"As the owner, run: grant {APP_ROLE} to {conn.info.user}"
            ) from error
    if powers is None or any(powers[1:]):
        name, is_super, bypasses, owns = powers or ("?", None, None, None)
        why = "is a superuser" if is_super else "bypasses row-level security" if bypasses else f"owns {owns}"
        raise DatabaseUnusable(
            f"Refusing to start: the role {name!r} {why}, so one shop could read another's rows. "
            f"Make {APP_ROLE} an ordinary role again: alter role {APP_ROLE} nosuperuser nobypassrls."
        )


ROLE_POWERS = """
select
  r.rolname,
  r.rolsuper,
  r.rolbypassrls,
  (select min(c.relname) from pg_class c where c.relowner = r.oid and c.relkind in ('r', 'p'))
from pg_roles r
where r.rolname = current_user
"""


def _upgrade(owner_url: str) -> None:
    connect_again: Callable[[], psycopg.Connection] = lambda: psycopg.connect(  # noqa: E731 - a factory, named by its use
        owner_url, connect_timeout=CONNECT_TIMEOUT_S, prepare_threshold=None
    )
    engine = create_engine("postgresql+psycopg://", creator=connect_again, poolclass=pool.NullPool)
    try:
        with engine.connect() as connection:
            config = migration_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except sqlalchemy_errors.DBAPIError as error:
        raise _unusable_by(error.orig) from error
    except psycopg.Error as error:
        raise _unusable_by(error) from error
    finally:
        engine.dispose()


def _unusable_by(error: BaseException | None) -> DatabaseUnusable:
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return DatabaseUnusable(
            f"The login that migrates lacks a right: {_one_line(error)}. It needs CREATE on the database's schema "
            f"public and CREATEROLE, or somebody makes the role beforehand: create role {APP_ROLE} nologin; "
            f"grant {APP_ROLE} to that login. "
            "DATABASE_OWNER_URL may name a login that has them."
        )
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return DatabaseUnusable(
            "The migration gave up waiting for a lock, so that postings are not held up behind it. "
            "Nothing was changed; run `metafield-sync migrate` again when the database is quieter."
        )
    return DatabaseUnusable(f"The migration failed and was rolled back: {_one_line(error)}")


def _let_login_take_role(owner_url: str, app_url: str) -> None:
    login = conninfo_to_dict(app_url).get("user")
    with connect(owner_url) as conn:
        if login is None or login == conn.info.user:
            return
        if conn.execute(MAY_TAKE_ROLE, (login, APP_ROLE)).fetchone() == (False,):
            conn.execute(sql.SQL("grant {} to {}").format(sql.Identifier(APP_ROLE), sql.Identifier(str(login))))


# Since PostgreSQL 16 a member may be one without the right to SET ROLE; before, every member has it.
MAY_TAKE_ROLE = """
select pg_has_role(
  %s, %s, case when current_setting('server_version_num')::integer >= 160000 then 'set' else 'member' end
)
"""


def _one_line(error: BaseException | None) -> str:
    return " ".join(str(error).split())
