"""Compaction under the current settings: what waits, compacting a day, proving it, cleaning up.

How it is done is `lake.compaction` and `lake.upkeep`; here they
get their settings, their scratch folder and what redactions say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from petwellness_orchestration.lake_access import open_lake
from petwellness_orchestration.settings import PlatformSettings

if TYPE_CHECKING:
    from lake.compaction import CompactionReport
    from lake.proof import LeftOut
    from lake.snapshots import InForce
    from lake.store import ObjectStore
    from lake.upkeep import DayProof, Removable, WaitingDay

# On a run: also a day that may still get claims. What comes later is compacted later.
OPEN_TAG = "petwellness/even-if-open"

Say = Callable[[str], None]


def redaction_terms(store: ObjectStore) -> tuple[Sequence[LeftOut], InForce]:
    """What is to be left out, and which objects hold ranges' rows now."""
    from lake.quarantine import load_quarantine
    from lake.redactions import load_redactions
    from lake.replacements import load_replacements

    left_out: list[LeftOut] = [*load_redactions(store).by_entry, *load_quarantine(store).by_entry]
    return left_out, load_replacements(store).stored_object_of


def waiting(settings: PlatformSettings, now: datetime, since: date | None = None) -> list[WaitingDay]:
    """Closed arrival days to compact at `now` (naive UTC), oldest first."""
    from lake.upkeep import waiting_days

    store = open_lake(settings)
    redactions, _ = redaction_terms(store)
    return waiting_days(store, settings.compaction, now, redactions, since)


def compact(
    settings: PlatformSettings, store: ObjectStore, day: date, say: Say, even_if_open: bool = False
) -> CompactionReport:
    """Compact one arrival day."""
    from contracts.memory import release_memory
    from lake.compaction import compact_day

    redactions, in_force = redaction_terms(store)
    report = compact_day(
        store,
        day,
        settings.compaction,
        settings.state.scratch_dir,
        redactions=redactions,
        in_force=in_force,
        even_if_open=even_if_open,
        say=say,
    )
    release_memory()
    return report


def prove(settings: PlatformSettings, store: ObjectStore, day: date, say: Say) -> DayProof:
    """Hold one day's snapshot against its landing files."""
    from contracts.memory import release_memory
    from lake.upkeep import prove_day

    redactions, in_force = redaction_terms(store)
    proof = prove_day(store, day, settings.compaction, settings.state.scratch_dir, redactions, in_force, say)
    release_memory()
    return proof


def clean(settings: PlatformSettings, store: ObjectStore, say: Say, dry_run: bool = False) -> list[Removable]:
    """Remove what no snapshot and no generation of the catalogue has named for the allowed age."""
    from lake import upkeep
    from lake.landing import utc_now

    return upkeep.clean(store, settings.compaction, utc_now(), dry_run=dry_run, say=say)


def report_metadata(report: CompactionReport) -> dict[str, Any]:
    """A compaction's figures as plain values."""
    snapshot = report.snapshot
    if snapshot is None:
        return {"ranges": 0, "rows": 0, "files": 0}
    return {
        "snapshot": snapshot.n,
        "written": report.written,
        "ranges": len(snapshot.ranges),
        "rows": snapshot.rows,
        "redacted_rows": snapshot.redacted_rows,
        "files": len(snapshot.files),
        "files_kept": report.files_kept,
        "file_bytes": snapshot.bytes,
        "bytes_per_row": round(snapshot.bytes / max(1, snapshot.rows), 1),
        "rows_sorted": report.rows_sorted,
        **{f"{stage}_s": seconds for stage, seconds in report.seconds.items()},
    }
