"""Features, records and scores on the environment's warehouse, whichever it is, and what a training rests on.

What is learned and scored is `ml`'s; here is which of its warehouses an environment means, and in whose session.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from petwellness_orchestration.account import account_warehouse
from petwellness_orchestration.loading import is_on_snowflake, open_raw
from petwellness_orchestration.resources import PlatformResource

if TYPE_CHECKING:
    from ml.registry import DataSnapshot
    from ml.warehouse import Warehouse

# Of config/business_role.yaml and config/warehouse.yaml.
ROLE, WAREHOUSE = "ml", "dev_wh"

VISITS_FEED = "clinic_visits"


@dataclass(frozen=True)
class TrainingBasis:
    """What raw says of the moment of a training: the data's own present, the newest extract of visits, the ranges
    that were loaded."""

    as_of: datetime
    labels_until: datetime | None
    snapshot: DataSnapshot


def training_basis(platform: PlatformResource, run: str) -> TrainingBasis | None:
    """What a training now rests on; None before anything was loaded."""
    from ml.registry import DataSnapshot

    with open_raw(platform, run) as (con, raw):
        as_of = raw.data_time(con)
        if as_of is None:
            return None
        return TrainingBasis(
            as_of, raw.newest_extract_at(con, VISITS_FEED, as_of), DataSnapshot.of(raw.load_history_rows(con))
        )


@contextmanager
def open_warehouse(platform: PlatformResource, asset: dg.AssetKey, run: str) -> Iterator[Warehouse]:
    """The warehouse as `ml` sees it, on Snowflake with the rights of the role that learns. Raises there what
    `account_session` raises, and SnowflakeError for a refusal."""
    from ml.warehouse import DuckDBWarehouse

    if is_on_snowflake(platform):
        with account_warehouse(
            platform.settings(), ROLE, WAREHOUSE, asset.to_user_string(), run
        ) as warehouse:
            yield warehouse
    else:
        with platform.warehouse() as con:
            yield DuckDBWarehouse(con)
