"""The partitions that a run is for: one, a range, or none, and what is said where one without asks for assets by day."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

import dagster as dg

# Of dagster.AssetExecutionContext and dagster.AssetCheckExecutionContext, which have no common type.
Context = dg.AssetExecutionContext | dg.AssetCheckExecutionContext


class PartitionsMissingError(ValueError):
    """A run asks for what is kept by day and names no day; the message names it and what to do."""

    def __init__(self, by_day: Collection[str], instead: str) -> None:
        super().__init__(
            f"{', '.join(sorted(by_day))}: kept by day, and this run names none. Choose days in the dialog that"
            f' "Materialize" opens, or {instead}'
        )


class SeveralPartitionsError(ValueError):
    """A run names a range of days where one takes a single day; the message names them and what to do."""


def partition_keys(context: Context) -> tuple[str, ...]:
    """The partitions that a run names, none where it has none (Dagster raises there)."""
    op = context.op_execution_context
    return tuple(op.partition_keys) if op.has_partition_key or op.has_partition_key_range else ()


def named_day(context: Context, by_day: str, instead: str) -> date:
    """The one day that a run names, which asks for `by_day`.

    Raises PartitionsMissingError for none, SeveralPartitionsError for a range.
    """
    keys = partition_keys(context)
    if not keys:
        raise PartitionsMissingError([by_day], instead)
    if len(keys) > 1:
        raise SeveralPartitionsError(
            f"{by_day}: one run takes one day, and this one names {keys[0]} to {keys[-1]}. Launch it as a backfill,"
            " a run for each day"
        )
    return date.fromisoformat(keys[0])
