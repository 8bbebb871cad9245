"""Credits by asset and node: every credit that was metered is somebody's, and none is counted twice.

What a warehouse uses while it waits for the next statement (until it is suspended) is a
line of its own and is not spread over the statements: it depends on how long the
warehouse waits and on what else ran, not on the model, which would otherwise look dearer
on a quiet day; and whoever can change it changes the warehouse.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any

from governance.account_usage.questions import (
    MeteredDay,
    ServiceDay,
    StatementCosts,
    StatementRuns,
    TableStorage,
    Usage,
)

# Decimal, as storage is billed.
BYTES_PER_TERABYTE = 10**12
_NO_CREDITS = Decimal(0)


class CostKind(StrEnum):
    """What credits were used for."""

    STATEMENTS = "statements"
    # Metered compute less what was attributed to statements: waiting, and statements too short to be attributed.
    IDLE = "idle"
    # Compiling, metadata, signing in. Snowflake bills what exceeds a tenth of a day's compute.
    CLOUD_SERVICES = "cloud services"
    # Snowpipe and automatic clustering, which no warehouse runs.
    SERVERLESS = "serverless"


@dataclass(frozen=True)
class CostLine:
    """Credits of one kind on one warehouse (of a serverless one: the service, in brackets) and day. `asset` is a Dagster key such as anl/pets, `node` dbt's id, both
    None for statements without such a tag; `user` is a service or `questions.PEOPLE`, None but for statements."""

    day: date
    warehouse: str
    kind: CostKind
    credits: Decimal
    user: str | None = None
    asset: str | None = None
    node: str | None = None
    statements: int = 0
    seconds: Decimal = _NO_CREDITS
    bytes_scanned: int = 0


@dataclass(frozen=True)
class Prices:
    """Dollars for a credit, and for a terabyte (10^12 bytes) that is kept for a month."""

    credit: Decimal
    terabyte_month: Decimal


@dataclass(frozen=True)
class Total:
    """Sums of the lines that share a name."""

    name: str
    credits: Decimal
    statements: int
    seconds: Decimal
    bytes_scanned: int


@dataclass(frozen=True)
class CostReport:
    """What one environment cost from the first to the last day."""

    environment: str
    first_day: date
    last_day: date
    prices: Prices
    lines: tuple[CostLine, ...]
    storage: tuple[TableStorage, ...]

    @property
    def credits(self) -> Decimal:
        """As metered."""
        return sum((line.credits for line in self.lines), _NO_CREDITS)

    def by_day(self) -> dict[date, Decimal]:
        """Dollars of credits on every day that has any."""
        return {
            date.fromisoformat(total.name): total.credits * self.prices.credit
            for total in sorted(
                totals(self.lines, lambda line: line.day.isoformat()), key=lambda one: one.name
            )
        }

    def storage_dollars(self, table: TableStorage) -> Decimal:
        """What a table costs a month at its present size."""
        return (
            Decimal(table.active_bytes + table.kept_bytes) / BYTES_PER_TERABYTE * self.prices.terabyte_month
        )


def cost_report(environment: str, usage: Usage, prices: Prices) -> CostReport:
    """The report on what `read_usage` found."""
    return CostReport(
        environment,
        usage.first_day,
        usage.last_day,
        prices,
        tuple(attribute(usage.metered, usage.costs, usage.runs, usage.services)),
        usage.storage,
    )


def attribute(
    metered: Iterable[MeteredDay],
    costs: Iterable[StatementCosts],
    runs: Iterable[StatementRuns],
    services: Iterable[ServiceDay] = (),
) -> list[CostLine]:
    """Lines whose credits add up, by warehouse or service and day and so altogether, to what was metered.

    The line of idle credits is the rest. It can be below zero by as much as statements that ran over midnight used
    on the other day, or while a day is not metered yet: it is shown as it is.
    """
    ran = {(one.day, one.warehouse, one.user, one.tag): one for one in runs}
    credits = {(one.day, one.warehouse, one.user, one.tag): one.compute for one in costs}
    lines = []
    attributed: defaultdict[tuple[date, str], Decimal] = defaultdict(Decimal)
    for key in sorted({*ran, *credits}):
        day, warehouse, user, tag = key
        run = ran.get(key)
        asset, node = read_tag(tag)
        used = credits.get(key, _NO_CREDITS)
        attributed[day, warehouse] += used
        lines.append(
            CostLine(
                *(day, warehouse, CostKind.STATEMENTS, used, user, asset, node),
                statements=run.statements if run else 0,
                seconds=run.seconds if run else _NO_CREDITS,
                bytes_scanned=run.bytes_scanned if run else 0,
            )
        )
    compute: defaultdict[tuple[date, str], Decimal] = defaultdict(Decimal)
    cloud: defaultdict[tuple[date, str], Decimal] = defaultdict(Decimal)
    for one in metered:
        compute[one.day, one.warehouse] += one.compute
        cloud[one.day, one.warehouse] += one.cloud_services
    for day, warehouse in sorted({*compute, *attributed}):
        rest = compute[day, warehouse] - attributed[day, warehouse]
        lines.append(CostLine(day, warehouse, CostKind.IDLE, rest))
        lines.append(CostLine(day, warehouse, CostKind.CLOUD_SERVICES, cloud[day, warehouse]))
    return lines + [
        CostLine(one.day, f"({one.service})", CostKind.SERVERLESS, one.credits, asset=one.asset)
        for one in services
    ]


def read_tag(tag: str) -> tuple[str | None, str | None]:
    """Asset and node of a query tag; None for what it does not say. Anybody can set a tag to anything."""
    try:
        said = json.loads(tag)
    except ValueError:
        return None, None
    if not isinstance(said, dict):
        return None, None
    asset, node = said.get("asset"), said.get("node")
    return (
        asset if isinstance(asset, str) and asset else None,
        node if isinstance(node, str) and node else None,
    )


def totals(lines: Iterable[CostLine], name: Callable[[CostLine], str]) -> list[Total]:
    """Sums by name, the dearest first."""
    by_name: dict[str, list[CostLine]] = defaultdict(list)
    for line in lines:
        by_name[name(line)].append(line)
    found = [
        Total(
            one,
            sum((line.credits for line in same), _NO_CREDITS),
            sum(line.statements for line in same),
            sum((line.seconds for line in same), _NO_CREDITS),
            sum(line.bytes_scanned for line in same),
        )
        for one, same in by_name.items()
    ]
    return sorted(found, key=lambda total: (-total.credits, total.name))


def asset_name(line: CostLine) -> str:
    """The asset, and in brackets what has none: who ran it, or what the warehouse did."""
    if line.kind in (CostKind.IDLE, CostKind.CLOUD_SERVICES):
        return f"({line.kind})"
    return line.asset or f"({line.user})"


def node_name(line: CostLine) -> str:
    """dbt's node, and in brackets what has none."""
    return line.node or (line.warehouse if line.kind is CostKind.SERVERLESS else asset_name(line))


def warehouse_name(line: CostLine) -> str:
    return line.warehouse


def as_json(report: CostReport) -> dict[str, Any]:
    """The report as plain values: credits and dollars as decimal texts, days as ISO dates."""

    def rows(found: Sequence[Total]) -> list[dict[str, Any]]:
        return [{**asdict(total), "dollars": total.credits * report.prices.credit} for total in found]

    plain = {
        "environment": report.environment,
        "first_day": report.first_day,
        "last_day": report.last_day,
        "credits": report.credits,
        "dollars": report.credits * report.prices.credit,
        "dollars_by_day": {day.isoformat(): dollars for day, dollars in report.by_day().items()},
        "warehouses": rows(totals(report.lines, warehouse_name)),
        "assets": rows(totals(report.lines, asset_name)),
        "nodes": rows(totals(report.lines, node_name)),
        "tables": [
            {**asdict(table), "dollars_a_month": report.storage_dollars(table)} for table in report.storage
        ],
    }
    return json.loads(json.dumps(plain, default=str))
