"""The figures of a run, read back from lake and warehouse: one dictionary for people and programs.

Counting happens here, printing in `cli.demo`.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petwellness_orchestration.settings import PlatformSettings

if TYPE_CHECKING:
    from lake.landing import Manifest
    from lake.store import ObjectStore

LAYERS = ("raw", "stg", "cur", "anl", "ml")

# Bookkeeping of the platform itself, not data of a layer.
BOOKKEEPING = frozenset(
    {
        "raw.load_history",
        "raw.build_marks",
        "raw.lake_files",
        "raw.redacted_ranges",
        "raw.redactions",
        "raw.hash_salt",
        "raw.rebuilt_days",
        "raw.cold_days",
        "raw.kept_days",
        "raw.partition_progress",
        "raw.watermark",
        "cur.applied_inputs",
        "cur.day_inputs",
        "cur.record_days",
    }
)


def lake_figures(store: ObjectStore, manifests: list[Manifest]) -> dict[str, Any]:
    """Files, bytes and ranges of the lake, and what was set aside while landing."""
    from contracts.registry import TELEMETRY_FEED
    from lake.layout import REJECTS, is_replay

    rejects = [info.size for info in store.list(REJECTS)]
    telemetry = [m for m in manifests if m.feed == TELEMETRY_FEED]
    rejected: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for manifest in manifests:
        rejected.update(manifest.rejected_by_reason)
        dropped.update(manifest.consent_dropped_by_reason)
    return {
        "files": len(manifests),
        "bytes": sum(m.bytes for m in manifests),
        "reject_files": len(rejects),
        "reject_bytes": sum(rejects),
        "ranges": len(manifests),
        "streams": len({m.stream_id for m in manifests}),
        "telemetry_streams": len({m.stream_id for m in telemetry if not is_replay(m.stream_id)}),
        "messages": sum(m.end - m.start for m in telemetry if not is_replay(m.stream_id)),
        "telemetry_rows": sum(m.rows for m in telemetry),
        "bytes_per_telemetry_row": round(
            sum(m.bytes for m in telemetry) / max(1, sum(m.rows for m in telemetry)), 1
        ),
        "rejects_by_reason": dict(sorted(rejected.items())),
        "rejects_replayed": sum(m.rows + m.consent_dropped for m in telemetry if is_replay(m.stream_id)),
        "consent_dropped": sum(m.consent_dropped for m in manifests),
        "consent_dropped_by_reason": dict(sorted(dropped.items())),
        "offset_gaps": sum(m.offset_gaps for m in manifests),
    }


def warehouse_figures(settings: PlatformSettings) -> dict[str, Any]:
    """Rows per table and layer, duplicates and conflicts set aside, the steps between layers."""
    from warehouse.counts import layer_steps
    from warehouse.duckdb.raw import open_warehouse, table_row_counts

    with open_warehouse(settings.warehouse_path, read_only=True) as con:
        tables = {
            f"{layer}.{name}": rows
            for layer in LAYERS
            for name, rows in table_row_counts(con, layer).items()
            if f"{layer}.{name}" not in BOOKKEEPING
        }
        steps = layer_steps(con)
    return {
        "rows_by_table": tables,
        "rows_by_layer": {
            layer: sum(rows for name, rows in tables.items() if name.startswith(f"{layer}."))
            for layer in LAYERS
        },
        "duplicates_set_aside": tables["stg.telemetry_duplicates"],
        "event_conflicts": tables["stg.event_conflicts"],
        "layer_steps": [
            {
                "step": s.name,
                "before": s.before,
                "after": s.after,
                "set_aside": s.set_aside,
                "unexplained": s.unexplained,
            }
            for s in steps
        ],
    }


def truth_figures(settings: PlatformSettings) -> dict[str, Any] | None:
    """What the simulator says it planted, in all; None for real input."""
    path: Path = settings.state.truth_dir / "truth.json"
    if settings.source.data is not None or not path.exists():
        return None
    total: dict[str, Any] = json.loads(path.read_text())["total"]
    return total
