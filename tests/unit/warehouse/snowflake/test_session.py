"""What a refusal of Snowflake is called, and that nothing is sent while a setting is missing."""

import pytest
from pydantic import ValidationError
from snowflake.connector.errors import DatabaseError, OperationalError, ProgrammingError

from warehouse.snowflake.session import (
    AccountUnreachableError,
    PrivilegeMissingError,
    RoleRefusedError,
    SettingsMissingError,
    SignInRefusedError,
    StatementFailedError,
    StatementTimeoutError,
    WarehouseUnavailableError,
    named_error,
    open_snowflake,
)
from warehouse.snowflake.settings import SnowflakeSettings

SETTINGS = SnowflakeSettings(
    account="org-account",
    user="INGESTION_SERVICE",
    role="DEV__INGESTION__B_ROLE",
    warehouse="DEV__LOADING_WH",
    database="DEV__PETWELLNESS",
)


@pytest.mark.parametrize(
    ("number", "message", "kind", "fix"),
    [
        (390144, "JWT token is invalid.", SignInRefusedError, "rsa_public_key"),
        (394304, "JWT token public key fingerprint mismatch.", SignInRefusedError, "rsa_public_key"),
        (390100, "Incorrect username or password was specified.", SignInRefusedError, "describe user"),
        (390114, "Authentication token has expired.", SignInRefusedError, "start again"),
        (
            390189,
            "Role specified in the connect string is not granted.",
            RoleRefusedError,
            "show grants to user",
        ),
        (390201, "The requested warehouse does not exist.", WarehouseUnavailableError, "grant usage"),
        (
            390201,
            "The requested database does not exist.",
            PrivilegeMissingError,
            "infrastructure.snowflake plan",
        ),
        (606, "No active warehouse selected in the current session.", WarehouseUnavailableError, "WAREHOUSE"),
        (90073, "cannot be resumed because resource monitor", WarehouseUnavailableError, "quota"),
        (2003, "Object does not exist or not authorized.", PrivilegeMissingError, "apply"),
        (3001, "Insufficient privileges to operate on table.", PrivilegeMissingError, "apply"),
        (
            630,
            "Statement reached its statement or warehouse timeout",
            StatementTimeoutError,
            "STATEMENT_TIMEOUT_S",
        ),
        (250001, "Could not connect to Snowflake backend", AccountUnreachableError, "network policy"),
        (100038, "Numeric value 'x' is not recognized", StatementFailedError, "not recognized"),
    ],
)
def test_each_refusal_is_named_with_its_fix(number, message, kind, fix):
    for raised in (ProgrammingError, DatabaseError, OperationalError):
        named = named_error(raised(msg=message, errno=number), SETTINGS)
        assert type(named) is kind
        assert named.number == number
        assert fix in str(named)
        assert message in str(named)


def test_the_thing_is_named():
    assert "DEV__LOADING_WH" in str(named_error(ProgrammingError(msg="x", errno=606), SETTINGS))
    assert "DEV__INGESTION__B_ROLE" in str(named_error(DatabaseError(msg="x", errno=390189), SETTINGS))
    assert "org-account" in str(named_error(OperationalError(msg="x", errno=250001), SETTINGS))


def test_missing_settings_are_named_before_anything_is_sent():
    with (
        pytest.raises(SettingsMissingError, match="PETWELLNESS_SNOWFLAKE_PRIVATE_KEY_PATH"),
        open_snowflake(SETTINGS, {}),
    ):
        pass


def test_an_emulator_needs_no_key_role_or_warehouse():
    emulator = SnowflakeSettings(
        account="x", user="x", database="x", host="127.0.0.1", protocol="http", password="x"
    )
    assert emulator.missing == ()


def test_a_key_that_cannot_be_read_is_named_and_not_quoted(tmp_path):
    key = tmp_path / "key.p8"
    key.write_text("not a key, but secret")
    settings = SETTINGS.model_copy(update={"private_key_path": key})
    with (
        pytest.raises(SettingsMissingError, match=r"key\.p8.*PASSPHRASE") as raised,
        open_snowflake(settings, {}),
    ):
        pass
    assert "secret" not in str(raised.value)


def test_passwords_do_not_cross_the_network_in_the_clear():
    with pytest.raises(ValidationError, match="127"):
        SnowflakeSettings(host="snowflake.example", protocol="http", password="hunter2")
