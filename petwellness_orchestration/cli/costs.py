"""`petwellness costs`: what the environment's Snowflake account cost, by warehouse, asset, node and table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from petwellness_orchestration.cli.console import mebibytes, thousands
from petwellness_orchestration.settings import load_settings

if TYPE_CHECKING:
    from governance.account_usage.budgets import BudgetVerdict
    from governance.account_usage.costs import CostReport, Total

FORMATS = ("table", "json")
# The dearest; JSON has them all.
ROWS_SHOWN = 15


def show_costs(days: int, output: str) -> int:
    """Print the report on the last `days` UTC days, today included; exit code 1 when a day is over its budget."""
    from governance.account_usage.budgets import BudgetLevel
    from governance.account_usage.costs import as_json
    from lake.landing import utc_now
    from petwellness_orchestration import names
    from petwellness_orchestration.account import COMMAND
    from petwellness_orchestration.account_usage import budget_verdicts, operations_session, read_costs

    settings = load_settings()
    with operations_session(settings, names.COSTS.to_user_string(), COMMAND) as con:
        report = read_costs(settings, con, utc_now().date(), days)
    verdicts = budget_verdicts(settings, report)
    print(json.dumps(as_json(report), indent=1) if output == "json" else as_text(report, verdicts))
    return 1 if any(verdict.level is BudgetLevel.EXCEEDED for verdict in verdicts) else 0


def as_text(report: CostReport, verdicts: Sequence[BudgetVerdict]) -> str:
    """The report for people."""
    from governance.account_usage.costs import asset_name, node_name, totals, warehouse_name

    price = report.prices.credit
    parts = [
        f"Snowflake, {report.environment}, {report.first_day} to {report.last_day} (UTC; hours lag up to six):"
        f" {report.credits:.3f} credits, {report.credits * price:.2f} dollars at {price} a credit",
        _table(
            ("day", "dollars", "budget"),
            [
                (f"{one.day}", f"{one.spent:.2f}", f"{one.budget:.2f} {one.level.name.lower()}")
                for one in verdicts
            ],
        ),
        *(
            _table((title, "credits", "dollars", "statements", "seconds", "scanned"), _rows(found, price))
            for title, found in (
                ("warehouse", totals(report.lines, warehouse_name)),
                ("asset", totals(report.lines, asset_name)),
                ("node", totals(report.lines, node_name)),
            )
        ),
        _table(
            ("table", "size", "kept for recovery", "dollars a month"),
            [
                (
                    f"{one.schema}.{one.table}",
                    mebibytes(one.active_bytes),
                    mebibytes(one.kept_bytes),
                    f"{report.storage_dollars(one):.2f}",
                )
                for one in sorted(report.storage, key=lambda one: -(one.active_bytes + one.kept_bytes))[
                    :ROWS_SHOWN
                ]
            ],
        ),
    ]
    return "\n\n".join(parts)


def _rows(found: Sequence[Total], price: Decimal) -> list[tuple[str, ...]]:
    return [
        (
            one.name,
            f"{one.credits:.4f}",
            f"{one.credits * price:.2f}",
            thousands(one.statements),
            thousands(float(one.seconds)),
            mebibytes(one.bytes_scanned),
        )
        for one in found[:ROWS_SHOWN]
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width: the first to the left, the others, numbers, to the right."""
    lines = [head, *rows] if rows else [head, ["nothing", *[""] * (len(head) - 1)]]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for line in lines
    )
