"""A session of Snowflake: signing in, running statements, and what its refusals mean.

Every refusal becomes an error that names what is wrong and what to do; the
vendor's numbers for them are known here and nowhere else. What is loaded is
`snowflake.raw`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

    from warehouse.snowflake.settings import SnowflakeSettings

PREFIX = "PETWELLNESS_SNOWFLAKE_"

SCHEMA = "RAW"

# The vendor's limit.
TAG_CHARACTERS = 2000


class SnowflakeError(RuntimeError):
    """Snowflake refused or failed; the message names the thing and the fix. `number` is Snowflake's own."""

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.number = number


class SettingsMissingError(SnowflakeError):
    """A setting is missing or unusable, so that nothing was asked of Snowflake."""


class AccountUnreachableError(SnowflakeError):
    """Nothing answers under the account's address, or the network is not let in."""


class SignInRefusedError(SnowflakeError):
    """The user or its key is not accepted: unknown, locked, rotated or expired."""


class RoleRefusedError(SnowflakeError):
    """The role does not exist or the user may not take it."""


class WarehouseUnavailableError(SnowflakeError):
    """The warehouse does not exist, may not be used, or may not resume."""


class PrivilegeMissingError(SnowflakeError):
    """An object does not exist, or the role has no grant on it; Snowflake does not say which."""


class StatementTimeoutError(SnowflakeError):
    """A statement ran longer than the session or the warehouse allows, and was cancelled."""


class StatementFailedError(SnowflakeError):
    """Snowflake refused a statement for any other reason."""


# Numbers of the vendor, by what they mean to who has to mend it.
_SIGN_IN = {390100, 390101, 390102, 390144, *range(394300, 394308)}
_SESSION_OVER = {390111, 390112, 390114, 390195}
_NETWORK = {250001, 250003, 250005, 251011, 290403, 290404, 390422, 390432}
_ROLE = {390186, 390189}
_REQUESTED_OBJECT = {390201}
_WAREHOUSE = {606, 90073}
# The last two: the session's database or schema is not there, or hidden.
_PRIVILEGE = {2003, 2043, 3001, 3041, 90105, 90106}
_TIMEOUT = {604, 630}


@contextmanager
def open_snowflake(settings: SnowflakeSettings, tag: Mapping[str, str]) -> Iterator[SnowflakeConnection]:
    """A session of the loader's user, closed at the end; times are UTC, every statement its own transaction
    unless `transaction` says otherwise.

    `tag` (run, asset, ...) is what account usage shows of its statements, as JSON.

    Raises SettingsMissingError, AccountUnreachableError, SignInRefusedError,
    RoleRefusedError, WarehouseUnavailableError or PrivilegeMissingError.
    """
    if settings.missing:
        raise SettingsMissingError(f"set {', '.join(settings.missing)} (docs/snowflake.md)")
    import snowflake.connector
    from snowflake.connector.errors import Error

    try:
        con = snowflake.connector.connect(**_arguments(settings, tag))
    except Error as error:
        raise named_error(error, settings) from error
    except (
        OSError,
        TypeError,
        ValueError,
    ) as error:  # What reading a key raises; its text may quote the key.
        raise SettingsMissingError(
            f"cannot read the private key {settings.private_key_path} ({type(error).__name__}): it has to be PEM"
            f" (PKCS 8), its passphrase in {PREFIX}PRIVATE_KEY_PASSPHRASE"
        ) from None
    try:
        yield con
    finally:
        con.close()


def _arguments(settings: SnowflakeSettings, tag: Mapping[str, str]) -> dict[str, Any]:
    query_tag = json.dumps(dict(tag), sort_keys=True)
    if len(query_tag) > TAG_CHARACTERS:
        raise ValueError(f"a query tag has at most {TAG_CHARACTERS} characters, this one {len(query_tag)}")
    arguments: dict[str, Any] = {
        "account": settings.account,
        "user": settings.user,
        "database": settings.database,
        "schema": SCHEMA,
        "role": settings.role or None,
        "warehouse": settings.warehouse or None,
        "login_timeout": settings.login_timeout_s,
        "network_timeout": settings.statement_timeout_s + settings.login_timeout_s,
        "session_parameters": {
            "TIMEZONE": "UTC",
            "QUERY_TAG": query_tag,
            "STATEMENT_TIMEOUT_IN_SECONDS": settings.statement_timeout_s,
        },
    }
    if settings.private_key_path is not None:
        passphrase = settings.private_key_passphrase
        arguments |= {
            "authenticator": "SNOWFLAKE_JWT",
            "private_key_file": str(settings.private_key_path.expanduser()),
            "private_key_file_pwd": passphrase.get_secret_value() if passphrase else None,
        }
    elif settings.password is not None:
        arguments["password"] = settings.password.get_secret_value()
    if settings.host:
        arguments |= {"host": settings.host, "port": settings.port, "protocol": settings.protocol}
    else:
        # A role or warehouse that may not be used is an error now, not at some statement.
        arguments["validate_default_parameters"] = True
    return arguments


def run(con: SnowflakeConnection, sql: str, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
    """The rows of one statement, whose `%s` stand for `values`. Raises SnowflakeError."""
    from snowflake.connector.errors import Error

    try:
        with con.cursor() as cursor:
            cursor.execute(sql, tuple(values) if values is not None else None)
            return [tuple(row) for row in cursor.fetchall()]
    except Error as error:
        raise named_error(error) from error


def run_many(con: SnowflakeConnection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """One `insert ... values (%s, ...)` for each of `rows`, sent together. Raises SnowflakeError."""
    from snowflake.connector.errors import Error

    if not rows:
        return
    try:
        with con.cursor() as cursor:
            cursor.executemany(sql, [tuple(row) for row in rows])
    except Error as error:
        raise named_error(error) from error


@contextmanager
def transaction(con: SnowflakeConnection) -> Iterator[None]:
    """Everything inside, or nothing. Statements that create or alter must stay outside: they commit."""
    run(con, "begin transaction")
    try:
        yield
        run(con, "commit")
    except BaseException:
        run(con, "rollback")
        raise


def named_error(error: Exception, settings: SnowflakeSettings | None = None) -> SnowflakeError:
    """What a refusal of the connector means, with its fix. Its text is kept, without the statement."""
    number = getattr(error, "errno", None)
    said = " ".join((getattr(error, "msg", None) or str(error)).split())[:500]
    seen = f" (Snowflake {number}: {said})"
    role = f"role {settings.role}" if settings else "the session's role"
    warehouse = f"warehouse {settings.warehouse}" if settings else "the session's warehouse"
    if number in _SIGN_IN:
        user = f"user {settings.user}" if settings else "the user"
        return SignInRefusedError(
            f"{user} is not let in: compare the key of {PREFIX}PRIVATE_KEY_PATH with `describe user` (rotated or"
            f" expired: `alter user ... set rsa_public_key`), unlock it, and check this machine's clock{seen}",
            number,
        )
    if number in _SESSION_OVER:
        return SignInRefusedError(
            f"the session is over: start again, what was not committed is undone{seen}", number
        )
    if number in _ROLE:
        return RoleRefusedError(
            f"{role} does not exist or is not granted to the user: check {PREFIX}ROLE, `show grants to user`,"
            f" then `python -m infrastructure.snowflake plan`{seen}",
            number,
        )
    if number in _WAREHOUSE or (number in _REQUESTED_OBJECT and "warehouse" in said.lower()):
        return WarehouseUnavailableError(
            f"{warehouse} cannot be used: check {PREFIX}WAREHOUSE and `grant usage`; where a resource monitor"
            f" suspended it, raise its quota or wait for its next interval{seen}",
            number,
        )
    if number in _PRIVILEGE | _REQUESTED_OBJECT:
        return PrivilegeMissingError(
            f"{role} does not see an object or may not do this to it: `python -m infrastructure.snowflake plan` shows"
            f" what the account lacks, `apply` makes it{seen}",
            number,
        )
    if number in _TIMEOUT:
        return StatementTimeoutError(
            f"a statement was cancelled: raise {PREFIX}STATEMENT_TIMEOUT_S or the warehouse's limit or size{seen}",
            number,
        )
    if number in _NETWORK:
        where = (settings.host or settings.account) if settings else "the account"
        return AccountUnreachableError(
            f"{where} does not answer: check {PREFIX}ACCOUNT (organisation-account), the network and the account's"
            f" network policy{seen}",
            number,
        )
    return StatementFailedError(f"Snowflake refused a statement{seen}", number)
