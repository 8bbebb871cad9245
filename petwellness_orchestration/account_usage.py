"""Costs and the access audit of the environment's account: `governance.account_usage` with settings, session and manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from petwellness_orchestration.account import account_names, account_session
from petwellness_orchestration.published import is_pii, layer
from petwellness_orchestration.settings import PlatformSettings

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

    from governance.account_usage.budgets import BudgetLevel, BudgetVerdict
    from governance.account_usage.costs import CostReport

# Who asks, and where: a role of config/business_role.yaml and a warehouse that it may use.
ROLE, WAREHOUSE = "operations", "dev_wh"
# What landed says again, whatever the typed columns are.
PAYLOAD = "payload"


@contextmanager
def operations_session(settings: PlatformSettings, asset: str, run: str) -> Iterator[SnowflakeConnection]:
    """A session with the rights of operations. Raises NotOnThisWarehouseError and what `open_snowflake` raises."""
    with account_session(settings, ROLE, WAREHOUSE, asset, run) as con:
        yield con


def read_costs(settings: PlatformSettings, con: SnowflakeConnection, last_day: date, days: int) -> CostReport:
    """What the environment cost on the `days` UTC days up to and with `last_day`."""
    from governance.account_usage.costs import Prices, cost_report
    from governance.account_usage.questions import read_usage
    from warehouse.snowflake.session import run

    usage = read_usage(
        lambda sql: run(con, sql), account_names(settings), last_day - timedelta(days=days - 1), last_day
    )
    prices = Prices(settings.costs.credit_dollars, settings.costs.terabyte_month_dollars)
    return cost_report(settings.environment.name, usage, prices)


def daily_budget(settings: PlatformSettings) -> Decimal:
    """Dollars that a day may cost: the setting, else the environment's. Raises NotOnThisWarehouseError."""
    from governance.account_usage.budgets import DAILY_BUDGETS

    account_names(settings)
    budget = settings.costs.daily_budget_dollars or DAILY_BUDGETS[settings.environment.name]
    assert budget is not None, "an environment with an account has a budget"
    return budget


def budget_verdicts(settings: PlatformSettings, report: CostReport) -> list[BudgetVerdict]:
    """How the report's days stand against the budget, the oldest first."""
    from governance.account_usage.budgets import verdicts

    return verdicts(report, daily_budget(settings))


def personal_columns(manifest: Mapping[str, Any]) -> dict[str, set[str]]:
    """By `schema.table` of the layers: columns tagged as personal in dbt's YAML, and those of raw that they were made
    of."""
    from petwellness_orchestration.defs.warehouse.translator import table_name

    found: dict[str, set[str]] = {}
    for props in manifest["nodes"].values():
        if props["resource_type"] != "model":
            continue
        columns = {name for name, column in props["columns"].items() if is_pii(column)}
        if columns:
            found[f"{layer(props)}.{table_name(props)}"] = columns
            if layer(props) == "stg":
                found[f"raw.{table_name(props)}"] = {*columns, PAYLOAD}
    return found


def write_audit(
    settings: PlatformSettings,
    con: SnowflakeConnection,
    manifest: Mapping[str, Any],
    day: date,
    now: datetime,
) -> int:
    """Write the access audit of a UTC day anew; gives its rows. Raises DayNotOverError and SnowflakeError."""
    from governance.account_usage.access_audit import TABLE, audit_statements
    from warehouse.snowflake.session import run, transaction

    names = account_names(settings)
    emptying, filling = audit_statements(names, personal_columns(manifest), day, now)
    with transaction(con):
        run(con, emptying)
        run(con, filling)
    [(rows,)] = run(con, f"select count(*) from {names.database}.{TABLE} where access_date = date '{day}'")
    return int(rows)


def told_levels(metadata: Mapping[str, Any], days: Sequence[date]) -> dict[date, BudgetLevel]:
    """What an earlier report told of these days, from its metadata."""
    from governance.account_usage.budgets import BudgetLevel

    said = metadata.get("told") or {}
    return {day: BudgetLevel(int(said[day.isoformat()])) for day in days if day.isoformat() in said}
