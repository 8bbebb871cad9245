"""Events of devices that no landed device record names: found in the lake, before any warehouse knows.

Which ranges are looked at is the caller's choice; what an event of such a device is in
the warehouse is decided there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.registry import TELEMETRY_FEED
from lake import sql
from lake.landing import Manifest
from lake.records import read_records
from lake.redactions import Redactions
from lake.replacements import load_replacements
from lake.sql_text import literals
from lake.store import ObjectStore

DEVICES_FEED = "devices"
EXAMPLES = 5


@dataclass(frozen=True)
class Unregistered:
    """Events of devices that nobody registered: how many, of how many devices, and some of their ids.

    The ids are as they were sent: what may be shown of them is `ingestion.rejects.examples`.
    """

    events: int = 0
    devices: int = 0
    examples: tuple[str, ...] = ()


def find_unregistered(store: ObjectStore, ranges: Sequence[Manifest]) -> Unregistered:
    """Look for devices in landed ranges of telemetry that no device record names, deleted ones included.

    Only the column of devices is read of the ranges' files.
    """
    replacements = load_replacements(store)
    files = [replacements.main_object_of(m) for m in ranges if m.feed == TELEMETRY_FEED and m.rows]
    if not files:
        return Unregistered()
    # What is redacted was registered all the same.
    registered = read_records(store, DEVICES_FEED, (), Redactions(())).table.select(["device_id"])
    with sql.connect(store) as con:
        con.register("registered", registered)
        uris = literals([store.uri(key) for key in files])
        found = con.execute(
            f"""
            select device_id, count(*) as event_count
            from read_parquet([{uris}], hive_partitioning = false) as events
            where device_id not in (select device_id from registered)
            group by device_id
            order by event_count desc, device_id
            """
        ).fetchall()
    return Unregistered(
        sum(count for _, count in found), len(found), tuple(name for name, _ in found[:EXAMPLES])
    )
