"""Record extracts of the fleet: mutations of the world, its documents and contacts, as change records.

An extract before the period states everything, then one per day and feed
carries what became known since the one before; a feed without changes has no
extract that day. A register of pets, a source of its own, sends all it has at
those moments. Landing them is `lake.extract`.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from contracts.columns import RECORD_FEEDS
from contracts.records import RECORD_KEYS, canonical_json, records_table
from ingestion.extracts.model import RecordExtract
from simulation.anomalies import CLOCK_AHEAD, CONTRADICTED, REPEATED
from simulation.config import FleetConfig
from simulation.documents import document_mutations, plan_documents
from simulation.engagement import contact_mutations, plan_contacts
from simulation.world import INITIAL, Mutation, World

SOURCE = "clinic-crm"
REGISTER = "pet-register"
_JSON_COLUMNS = ("consent_flags", "diagnosis_codes", "ocr_fields")


@dataclass(frozen=True)
class Change:
    """One change record: the full row after the change (only the key after a deletion)."""

    feed: str
    key: str
    op: str
    changed_at: datetime
    delivery: int
    row: dict[str, Any]


def changes(world: World) -> list[Change]:
    """Every change the extracts deliver, by feed, key and time of change, repeats not included.

    Of what happened before the period only the last state of each record is delivered.
    """
    by_key: dict[tuple[str, str], list[Mutation]] = defaultdict(list)
    mutations = [
        *world.mutations,
        *document_mutations(world, plan_documents(world)),
        *contact_mutations(world, plan_contacts(world)),
    ]
    for mutation in mutations:
        by_key[mutation.feed, mutation.key].append(mutation)
    found: list[Change] = []
    for (feed, key), mutations in sorted(by_key.items()):
        state: dict[str, Any] = {}
        initial: Change | None = None
        later: list[Change] = []
        for mutation in sorted(mutations, key=lambda item: item.changed_at):
            if mutation.patch is None:
                change = _change(mutation, "delete", {RECORD_KEYS[feed]: key})
            else:
                state = {**state, **mutation.patch}
                change = _change(mutation, "upsert", state)
            if mutation.delivery == INITIAL:
                initial = change
            else:
                later.append(change)
        found.extend([initial, *later] if initial else later)
    return found


def _change(mutation: Mutation, op: str, row: dict[str, Any]) -> Change:
    return Change(mutation.feed, mutation.key, op, mutation.changed_at, mutation.delivery, row)


def repeats(config: FleetConfig, delivered: list[Change]) -> list[Change]:
    """Initial records of one owner and one pet that the extract of the middle day brings again, unchanged."""
    return [
        Change(first.feed, first.key, first.op, first.changed_at, config.days // 2, first.row)
        for feed in ("owners", "pets")
        for first in [next(c for c in delivered if c.feed == feed and c.delivery == INITIAL)]
    ]


def odd_records(world: World, delivered: list[Change]) -> list[tuple[str, Change]]:
    """Records that the extracts bring beside the right ones, with what is wrong with each."""
    right = {change.key: change for change in delivered if change.feed == "pets"}
    found = []
    for kind, pet_id in world.odd_pets:
        change = right[pet_id]
        wrong = replace(change, row=change.row | {"color": "misread"})
        if kind == REPEATED:
            wrong = change
        elif kind == CONTRADICTED:
            wrong = replace(wrong, delivery=change.delivery - 1)
        elif kind == CLOCK_AHEAD:
            wrong = replace(wrong, changed_at=extracted_at(world.config, change.delivery) + timedelta(days=3))
        found.append((kind, wrong))
    return found


def record_extracts(world: World, delivered: list[Change]) -> list[RecordExtract]:
    """All extracts in the order of their moments, feeds in the order of the contract, the register's last."""
    config = world.config
    by_extract: dict[tuple[int, str], list[Change]] = defaultdict(list)
    # Of several records of one instant the last counts, so the wrong ones come first.
    odd = [change for _, change in odd_records(world, delivered)]
    for change in [*odd, *delivered, *repeats(config, delivered)]:
        by_extract[change.delivery, change.feed].append(change)
    extracts = []
    for delivery in range(INITIAL, config.days):
        for feed in RECORD_FEEDS:
            rows = by_extract.get((delivery, feed))
            if rows:
                extracts.append(_extract(config, feed, delivery, rows))
        if world.listings:
            extracts.append(_register_extract(world, delivery))
    return extracts


def _register_extract(world: World, delivery: int) -> RecordExtract:
    """Every pet that the register lists at the time."""
    rows = [
        Change("pets", listing.pet_id, "snapshot", listing.changed_at, delivery, listing.row)
        for listing in world.listings
        if delivery not in listing.absent
    ]
    extract = _extract(world.config, "pets", delivery, rows)
    return replace(extract, source=REGISTER, complete=True)


def extracted_at(config: FleetConfig, delivery: int) -> datetime:
    """Midnight at the end of the day; the start of day 0 for the initial extract."""
    return config.start_ts + timedelta(days=delivery + 1)


def _extract(config: FleetConfig, feed: str, delivery: int, rows: list[Change]) -> RecordExtract:
    rows = sorted(rows, key=lambda change: (change.changed_at, change.key))
    name = "initial" if delivery == INITIAL else f"day-{delivery:03d}"
    return RecordExtract(
        source=SOURCE,
        feed=feed,
        extract_id=f"{config.fingerprint()}-{name}",
        table=records_table(feed, [_row(change) for change in rows]),
        complete=delivery == INITIAL,
        extracted_at=extracted_at(config, delivery),
    )


def _row(change: Change) -> dict[str, Any]:
    """A change as the columns of its feed's contract; the payload is the source's own record."""
    source = {name: _plain(value) for name, value in change.row.items()}
    typed = {
        name: canonical_json(value) if name in _JSON_COLUMNS and value is not None else value
        for name, value in change.row.items()
    }
    return typed | {
        "business_key": change.key,
        "op": change.op,
        "changed_at": change.changed_at,
        "payload": canonical_json(source),
    }


def _plain(value: Any) -> Any:
    """A value that JSON can hold: times as ISO 8601 with Z, decimals as numbers."""
    if isinstance(value, datetime):
        return value.isoformat() + "Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    return value
