"""Wiring of costs and audit: which columns, which budget, what was told; no account."""

from datetime import date
from decimal import Decimal

import pytest

from governance.account_usage.budgets import BudgetLevel
from petwellness_orchestration.account import account_names
from petwellness_orchestration.account_usage import (
    daily_budget,
    personal_columns,
    told_levels,
)
from petwellness_orchestration.settings import load_settings
from warehouse.environments import NotOnThisWarehouseError

DAY = date(2026, 11, 26)


def model(schema: str, alias: str, layer: str, **columns: bool) -> dict:
    tagged = {name: {"config": {"meta": {"pii": is_pii}}} for name, is_pii in columns.items()}
    return {
        "resource_type": "model",
        "schema": schema,
        "alias": alias,
        "columns": tagged,
        "config": {"schema": layer},
    }


def test_personal_columns_are_those_of_the_layers_and_of_what_raw_holds_of_them() -> None:
    nodes = {
        "a": model("stg", "owners", "stg", name=True, district=False),
        "b": model("cur", "owners", "cur", name=True),
        "c": model("anl", "pets", "anl", pet_id=False),
        "d": {"resource_type": "test"},
    }
    expected = {"stg.owners": {"name"}, "raw.owners": {"name", "payload"}, "cur.owners": {"name"}}
    assert personal_columns({"nodes": nodes}) == expected
    # A developer's schema takes all layers; the audit is about the layers.
    own = {
        "a": model("dev_anna", "stg_owners", "stg", name=True),
        "b": model("dev_anna", "cur_owners", "cur", name=True),
    }
    assert personal_columns({"nodes": own}) == expected


def test_a_budget_is_the_settings_else_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_ENVIRONMENT", "ci")
    assert daily_budget(load_settings()) == 50
    monkeypatch.setenv("PETWELLNESS_COST_DAILY_BUDGET_DOLLARS", "12.5")
    assert daily_budget(load_settings()) == Decimal("12.5")


def test_without_an_account_there_is_nothing_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_ENVIRONMENT", "embedded")
    for ask in (account_names, daily_budget):
        with pytest.raises(NotOnThisWarehouseError, match="'embedded' has no Snowflake account"):
            ask(load_settings())


def test_what_was_told_is_read_from_the_last_report() -> None:
    told = {"2026-11-26": 1, "2026-11-20": 2}
    assert told_levels({"told": told}, [DAY]) == {DAY: BudgetLevel.WARNING}
    assert told_levels({}, [DAY]) == {}
