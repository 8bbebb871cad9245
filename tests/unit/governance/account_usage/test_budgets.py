"""Budgets: who has which, when a day is told, once for each level, and what the message says."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from governance.account_usage.budgets import DAILY_BUDGETS, RUNBOOK, BudgetLevel, untold, verdicts
from governance.account_usage.costs import CostReport, Prices, attribute
from governance.account_usage.questions import MeteredDay, StatementCosts
from governance.settings import CostSettings
from infrastructure.snowflake.account import ENVIRONMENTS
from warehouse.environments import EnvironmentName

ROOT = Path(__file__).resolve().parents[4]
MONDAY, TUESDAY = date(2026, 11, 23), date(2026, 11, 24)
WAREHOUSE = "PROD__TRANSFORMING_WH"


def report_of(**credits_by_day: str) -> CostReport:
    days = {"monday": MONDAY, "tuesday": TUESDAY}
    lines = attribute(
        [
            MeteredDay(days[name], WAREHOUSE, Decimal(credits), Decimal(0))
            for name, credits in credits_by_day.items()
        ],
        [
            StatementCosts(
                days[name], WAREHOUSE, "DBT_SERVICE", '{"asset": "anl/pets"}', Decimal(credits) / 4
            )
            for name, credits in credits_by_day.items()
        ],
        [],
    )
    return CostReport("prod", MONDAY, TUESDAY, Prices(Decimal(2), Decimal(23)), tuple(lines), ())


def level(credits: str) -> BudgetLevel:
    [verdict] = verdicts(report_of(monday=credits), Decimal(500))
    return verdict.level


@pytest.mark.parametrize(
    ("credits", "expected"),
    [
        ("0", BudgetLevel.WITHIN),
        ("199.99", BudgetLevel.WITHIN),
        # 80 % of 500 dollars are 400, 200 credits.
        ("200", BudgetLevel.WARNING),
        ("249.99", BudgetLevel.WARNING),
        ("250", BudgetLevel.EXCEEDED),
        ("900", BudgetLevel.EXCEEDED),
    ],
)
def test_a_day_is_warned_of_at_80_percent_and_alerted_at_100(credits, expected):
    assert level(credits) is expected


def test_each_level_of_a_day_is_told_once():
    found = verdicts(report_of(monday="250", tuesday="210"), Decimal(500))
    assert [(one.day, one.level) for one in untold(found, {})] == [
        (MONDAY, BudgetLevel.EXCEEDED),
        (TUESDAY, BudgetLevel.WARNING),
    ]
    # Monday was warned of before; Tuesday's warning was told.
    told = {MONDAY: BudgetLevel.WARNING, TUESDAY: BudgetLevel.WARNING}
    assert [one.day for one in untold(found, told)] == [MONDAY]
    assert untold(found, {MONDAY: BudgetLevel.EXCEEDED, TUESDAY: BudgetLevel.WARNING}) == []
    assert untold(verdicts(report_of(monday="10"), Decimal(500)), {}) == []


def test_the_message_says_where_how_much_and_what_is_dearest():
    [exceeded] = verdicts(report_of(monday="260"), Decimal(500))
    assert str(exceeded) == (
        "Snowflake, prod: 2026-11-23 is over its budget, 520.00 of 500.00 dollars (104 %);"
        " dearest: (idle) 390.00, anl/pets 130.00, (cloud services) 0.00; docs/runbooks/costs.md"
    )
    assert (ROOT / RUNBOOK).exists()


def test_every_environment_with_an_account_has_the_budget_of_its_resource_monitor():
    price = CostSettings().credit_dollars
    assert {name for name, budget in DAILY_BUDGETS.items() if budget is not None} == {*ENVIRONMENTS}
    for name, environment in ENVIRONMENTS.items():
        quota = yaml.safe_load(environment.values_file.read_text())["daily_credit_quota"]
        assert DAILY_BUDGETS[EnvironmentName(name)] == quota * price
