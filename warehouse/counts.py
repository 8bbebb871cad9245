"""Rows of telemetry from layer to layer, each difference explained to the row.

The steps and what may explain them are listed here; who acts on a gap is
decided by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from contracts.registry import TELEMETRY_FEED
from lake.layout import REPLAYS

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class LayerStep:
    """One step between layers: rows before, rows after, and the rows set aside by reason."""

    name: str
    before: int
    after: int
    set_aside: dict[str, int]

    @property
    def unexplained(self) -> int:
        """Rows that vanished (positive) or appeared (negative) without a reason."""
        return self.before - self.after - sum(self.set_aside.values())


def layer_steps(con: duckdb.DuckDBPyConnection) -> list[LayerStep]:
    """Broker to raw to stg to anl for telemetry. Needs the tables of a finished dbt build."""
    # Replayed rejects came from the broker once, as rejects: what a replay settled is none any more.
    offsets, rows, rejected, dropped, gaps = con.execute(
        f"""
        with ranges as (
            select *, starts_with(stream_id, '{REPLAYS}') as is_replay
            from raw.load_history
            where feed = '{TELEMETRY_FEED}'
        )
        select
            coalesce(sum(end_offset - start_offset) filter (not is_replay), 0)::bigint as offset_count,
            coalesce(sum(row_count), 0)::bigint as row_count,
            coalesce(
                sum(if(is_replay, -row_count - consent_dropped_count, rejected_count)), 0
            )::bigint as rejected_count,
            coalesce(sum(consent_dropped_count), 0)::bigint as dropped_count,
            coalesce(sum(offset_gap_count) filter (not is_replay), 0)::bigint as gap_count
        from ranges
        """
    ).fetchone() or (0, 0, 0, 0, 0)
    raw = _count(con, "raw.telemetry_events")
    stg = _count(con, "stg.telemetry_events")
    repeats = _count(con, "stg.telemetry_duplicates")
    redacted, quarantined = con.execute(
        "select coalesce(sum(redacted_count), 0)::bigint, coalesce(sum(quarantined_count), 0)::bigint"
        " from raw.redacted_ranges where feed = 'telemetry_events'"
    ).fetchone() or (0, 0)
    anl = _count(con, "anl.telemetry_events")
    (cold,) = con.execute(
        "select coalesce(sum(row_count), 0)::bigint from raw.cold_days"
        " where table_name = 'anl.telemetry_events'"
    ).fetchone() or (0,)
    return [
        LayerStep(
            "broker to lake",
            offsets,
            rows,
            {"rejected": rejected, "dropped by consent": dropped, "offset gaps": gaps},
        ),
        LayerStep("lake to raw", rows, raw, {"redacted": redacted, "quarantined": quarantined}),
        LayerStep("raw to stg", raw, stg, {"duplicates": repeats}),
        LayerStep("stg to anl", stg, anl, {"in cold storage": cold}),
    ]


def _count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    row = con.execute(f"select count(*) from {table}").fetchone()
    return int(row[0]) if row else 0
