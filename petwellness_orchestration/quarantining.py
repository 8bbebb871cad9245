"""The quarantine under the current settings: what its asset and check show. The ledger is `lake.quarantine`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from petwellness_orchestration.loading import open_raw
from petwellness_orchestration.resources import PlatformResource

if TYPE_CHECKING:
    from lake.store import ObjectStore


@dataclass(frozen=True)
class Quarantined:
    """Entries in force, entries (releases, too) that raw has yet to take up, and rows in raw of those it has."""

    in_force: int
    to_apply: int
    rows: int


def ledger_metadata(store: ObjectStore) -> dict[str, Any]:
    """The ledger as the asset's metadata: every entry with its reason, person and time."""
    from lake.quarantine import load_quarantine

    ledger = load_quarantine(store)
    entries = [
        {
            "id": entry.quarantine_id,
            "entered_at": entry.entered_at.isoformat(),
            "entered_by": entry.entered_by,
            "reason": entry.reason,
            "spans": [str(span) for span in entry.spans],
            "releases": entry.releases,
            "in_force": entry in ledger.in_force,
        }
        for entry in ledger
    ]
    return {"entries": len(entries), "entries_in_force": len(ledger.in_force), "ledger": entries}


def find_quarantined(platform: PlatformResource, run: str) -> Quarantined:
    """Look for rows in raw that entries cover which it has taken up."""
    from lake.quarantine import load_quarantine

    ledger = load_quarantine(platform.store())
    with open_raw(platform, run) as (con, raw):
        applied = raw.applied_redactions(con)
        spans = [span for entry in ledger.in_force if entry.quarantine_id in applied for span in entry.spans]
        rows = raw.count_rows_in(con, spans) if spans else 0
    return Quarantined(len(ledger.in_force), len({*ledger.ids} - applied), rows)
