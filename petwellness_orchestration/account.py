"""The environment's Snowflake account: its names, and sessions with one of its roles.

What is asked in a session is its caller's: `loading`, `building`, `learning`, `account_usage`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from petwellness_orchestration.settings import PlatformSettings
from warehouse.environments import ENVIRONMENTS, NotOnThisWarehouseError, SnowflakeNames

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

    from ml.warehouse import SnowflakeWarehouse

# What stands for a run in the query tags of a command.
COMMAND = "command"

# Of what is past raw, which redacted rows went into.
OWNING_ROLE, OWNING_WAREHOUSE = "transformer", "transforming_wh"


def account_names(settings: PlatformSettings) -> SnowflakeNames:
    """Names in the environment's account. Raises NotOnThisWarehouseError where there is none."""
    if settings.environment.snowflake is None:
        raise NotOnThisWarehouseError(
            f"the environment '{settings.environment.name}' has no Snowflake account; set PETWELLNESS_ENVIRONMENT to"
            f" one that has: {', '.join(one.name for one in ENVIRONMENTS.values() if one.snowflake)}"
        )
    return settings.environment.snowflake


@contextmanager
def account_session(
    settings: PlatformSettings, role: str, warehouse: str, asset: str, run: str
) -> Iterator[SnowflakeConnection]:
    """A session in the environment's database, with a role and a warehouse as the configuration calls them.

    Raises NotOnThisWarehouseError and what `open_snowflake` raises.
    """
    from warehouse.snowflake.session import open_snowflake
    from warehouse.snowflake.settings import SnowflakeSettings

    names = account_names(settings)
    in_environment = {
        "database": names.database,
        "role": names.role(role),
        "warehouse": names.warehouse(warehouse),
    }
    signing_in = SnowflakeSettings().model_copy(update=in_environment)
    with open_snowflake(signing_in, {"app": "petwellness", "asset": asset, "run": run}) as con:
        yield con


@contextmanager
def account_warehouse(
    settings: PlatformSettings, role: str, warehouse: str, asset: str, run: str
) -> Iterator[SnowflakeWarehouse]:
    """Such a session as `ml` sees a warehouse. Raises what `account_session` raises, and SnowflakeError for whatever
    is refused inside."""
    from snowflake.connector.errors import Error

    from ml.warehouse import SnowflakeWarehouse
    from warehouse.snowflake.session import named_error

    with account_session(settings, role, warehouse, asset, run) as con:
        try:
            yield SnowflakeWarehouse(con)
        except Error as error:
            raise named_error(error) from error
