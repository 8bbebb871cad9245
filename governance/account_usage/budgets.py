"""What an environment may cost a day, and what is to be told of a day that nears it or exceeds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import IntEnum
from types import MappingProxyType
from typing import assert_never

from governance.account_usage.costs import CostReport, asset_name, totals
from warehouse.environments import EnvironmentName

WARNING_SHARE = Decimal("0.8")
# What is dearest is named, so that whoever reads it knows where to look.
DEAREST_SHOWN = 3
RUNBOOK = "docs/runbooks/costs.md"


class BudgetLevel(IntEnum):
    """How a day stands; a higher one says more."""

    WITHIN = 0
    WARNING = 1
    EXCEEDED = 2


def _daily_budget(name: EnvironmentName) -> Decimal | None:
    """Dollars; None where nothing is metered. The resource monitors' credits are the same at two dollars a credit."""
    match name:
        case EnvironmentName.EMBEDDED:
            return None
        case EnvironmentName.DEV:
            return Decimal(20)
        case EnvironmentName.CI:
            return Decimal(50)
        case EnvironmentName.PROD:
            # Document 003: a day above 500 dollars is critical.
            return Decimal(500)
        case _:
            assert_never(name)


DAILY_BUDGETS: Mapping[EnvironmentName, Decimal | None] = MappingProxyType(
    {name: _daily_budget(name) for name in EnvironmentName}
)


@dataclass(frozen=True)
class BudgetVerdict:
    """Dollars of one day's credits against what they may be."""

    environment: str
    day: date
    spent: Decimal
    budget: Decimal
    dearest: tuple[str, ...]

    @property
    def level(self) -> BudgetLevel:
        if self.spent >= self.budget:
            return BudgetLevel.EXCEEDED
        if self.spent >= self.budget * WARNING_SHARE:
            return BudgetLevel.WARNING
        return BudgetLevel.WITHIN

    def __str__(self) -> str:
        share = self.spent / self.budget * 100
        level = "over its budget" if self.level is BudgetLevel.EXCEEDED else "near its budget"
        return (
            f"Snowflake, {self.environment}: {self.day} is {level}, {self.spent:.2f} of {self.budget:.2f} dollars"
            f" ({share:.0f} %); dearest: {', '.join(self.dearest)}; {RUNBOOK}"
        )


def verdicts(report: CostReport, budget: Decimal) -> list[BudgetVerdict]:
    """One for every day with credits, the oldest first. Storage is no part of it: it does not spike."""
    found = []
    for day, spent in report.by_day().items():
        lines = [line for line in report.lines if line.day == day]
        dearest = tuple(
            f"{total.name} {total.credits * report.prices.credit:.2f}"
            for total in totals(lines, asset_name)[:DEAREST_SHOWN]
        )
        found.append(BudgetVerdict(report.environment, day, spent, budget, dearest))
    return found


def untold(found: Iterable[BudgetVerdict], told: Mapping[date, BudgetLevel]) -> list[BudgetVerdict]:
    """Those that are to be told: near or over the budget, and of a higher level than was told of their day."""
    return [verdict for verdict in found if verdict.level > told.get(verdict.day, BudgetLevel.WITHIN)]
