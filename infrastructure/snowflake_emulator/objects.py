"""What a database of the emulator has before anything is loaded, from the account's configuration.

The statements are SnowDDL's own plan for an empty account, under another database's
name. Policies and rights are `infrastructure.snowflake`'s and have no effect here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from infrastructure.snowflake.account import ENVIRONMENTS, example_account
from infrastructure.snowflake.planning import offline_plan
from lake import layout

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

PLANNED = "PROD__PETWELLNESS"
_KINDS = r"CREATE\s+(?:DATABASE|(?:TRANSIENT\s+)?(?:SCHEMA|TABLE)|FILE FORMAT|STAGE)\s"


def database_statements(database: str, landing_url: str) -> list[str]:
    """SQL that makes `database` with its schemas, tables, file format and stages.

    `landing_url` is the lake's landing prefix, with its slash: a folder (`file:///lake/landing/`) or
    `s3://bucket/landing/`; other prefixes of the lake are beside it. Raises ValueError for any other address.
    """
    if not landing_url.endswith(f"/{layout.LANDING}"):
        raise ValueError(f"'{landing_url}' is no landing prefix: it has to end in /{layout.LANDING}")
    planned_lake = example_account().landing_url.removesuffix(layout.LANDING)
    lake = landing_url.removesuffix(layout.LANDING)
    plan = offline_plan(ENVIRONMENTS["prod"]).suggested
    return [
        one.replace(f'"{PLANNED}"', f'"{database}"').replace(f"'{planned_lake}", f"'{lake}")
        for one in plan
        if re.match(_KINDS, one) and f'"{PLANNED}"' in one
    ]


def create_database(con: SnowflakeConnection, database: str, landing_url: str) -> None:
    """Make `database` (in upper case) as the account's configuration has it."""
    with con.cursor() as cursor:
        for statement in database_statements(database, landing_url):
            cursor.execute(statement)
