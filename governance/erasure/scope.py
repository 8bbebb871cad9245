"""What the erasure of a household covers, derived from landed records and telemetry.

A household is its owner. Its pets are those it owns last; they go as a whole, with
every record about them and all telemetry of what they wore. A pet that has moved
on stays with its new owner: of it go the records that name this owner and what
happened while it was theirs.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pyarrow as pa

from contracts.columns import HOUSEHOLD_COLUMNS, RECORD_FEEDS, RECORD_REFERENCES
from contracts.keeping import IN_DOUBT, KEPT_FEEDS, Jurisdictions, has_to_stay
from contracts.registry import RECORD_FEED_NAMES
from governance.erasure.disputes import list_disputed
from ingestion.collector.attribution import Assignment, earliest, ended
from ingestion.collector.consent import (
    Held,
    claim_of,
    covered_by,
    erasures,
    ownerships,
    read_assignments,
    stated_owners,
)
from lake.changes import Row
from lake.disputes import Disputed, load_decisions
from lake.landed import landed_stretches, measured_within, received_within, telemetry_columns
from lake.landing import Manifest
from lake.records import read_records
from lake.redactions import (
    ERASURE,
    Arrivals,
    Kept,
    Redaction,
    Redactions,
    Worn,
    arrival_us,
    epoch_us,
    from_epoch_us,
    merged,
    put_redaction,
    redaction_id_for,
    rows_received_in,
    without,
)
from lake.replacements import Replacements
from lake.store import ObjectStore

# Feeds about the owner they name; a pet's record names its owner and is about the pet.
_ABOUT_OWNERS = frozenset({"owners", "engagement"})

# Records of a pet that happened at one moment, by the column that says when.
_MOMENTS = {"clinic_visits": "visit_ts", "appointments": "scheduled_ts"}


class UnknownHouseholdError(ValueError):
    """No landed record names the household."""


@dataclass(frozen=True)
class Household:
    """What belongs to an owner: pets erased as a whole, pets that have moved on with the stretch they were
    theirs, keys of every record to erase by feed, and what was worn as far as the ledger does not say it yet."""

    owner_id: str
    pet_ids: list[str] = field(default_factory=list)
    moved_on: list[Held] = field(default_factory=list)
    business_keys: dict[str, list[str]] = field(default_factory=dict)
    worn: list[Worn] = field(default_factory=list)


def find_household(store: ObjectStore, owner_id: str, redactions: Redactions) -> Household:
    """What landed records say of a household and the ledger does not cover yet.

    Raises UnknownHouseholdError when no record names it and the ledger does not know it either.
    """
    # Of an erased household the ledger hides what names it; a pet it did not know has to be seen.
    owners = read_records(store, "owners", [], Redactions())
    pets = read_records(store, "pets", ["owner_id"], Redactions())
    if owner_id not in {*owners.table["owner_id"].to_pylist(), *pets.table["owner_id"].to_pylist()}:
        if owner_id in redactions.owner_ids:
            return Household(owner_id)
        raise UnknownHouseholdError(
            f"no landed record names a household '{owner_id}'; give its owner_id as in cur.owners, "
            "or land its records first"
        )
    owned = ownerships(
        (pet_id, owner, since)
        for pet_id, owner, since in stated_owners(pets, [owner_id])
        if owner is not None and pet_id not in redactions.pet_ids
    )
    whole = sorted(pet for pet, held in owned.items() if held[-1].value == owner_id)
    moved_on = [
        held for pet in sorted(owned.keys() - set(whole)) for held in owned[pet] if held.value == owner_id
    ]
    known = {worn for entry in redactions for worn in entry.worn}
    worn = worn_by(read_assignments(store, redactions), whole, moved_on)
    return Household(
        owner_id,
        whole,
        moved_on,
        _business_keys(store, owner_id, whole, moved_on, redactions),
        [one for one in worn if one not in known],
    )


def erasure_of(
    household: Household,
    arrivals: Sequence[Arrivals],
    reason: str,
    requested_at: datetime,
    deadline_days: int,
    kept: Sequence[Kept] = (),
) -> Redaction:
    """The ledger's entry for a household."""
    return Redaction(
        redaction_id=redaction_id_for(requested_at, household, arrivals, kept),
        kind=ERASURE,
        reason=reason,
        requested_at=requested_at,
        deadline=requested_at + timedelta(days=deadline_days),
        arrivals=[*arrivals],
        owner_ids=[household.owner_id],
        pet_ids=household.pet_ids,
        business_keys=household.business_keys,
        worn=household.worn,
        kept=[*kept],
    )


def request_erasure(
    store: ObjectStore,
    owner_id: str,
    reason: str,
    requested_at: datetime,
    deadline_days: int,
    redactions: Redactions,
    replacements: Replacements,
    manifests: Iterable[Manifest],
    dry_run: bool = False,
    jurisdictions: Jurisdictions = IN_DOUBT,
) -> Redaction | None:
    """Enter the erasure of a household into the ledger; None when the ledger covers all of it already. What of it a
    practice must keep is put aside, as long as `jurisdictions` say.

    Raises UnknownHouseholdError.
    """
    household = find_household(store, owner_id, redactions)
    theirs, disputed = household_stretches(store, household, redactions)
    arrivals = erased_arrivals(store, theirs, manifests, redactions, replacements)
    new = household.pet_ids or household.business_keys or household.worn or arrivals
    if owner_id in redactions.owner_ids and not new:
        return None
    kept = kept_of(store, household, redactions, jurisdictions, requested_at)
    redaction = erasure_of(household, arrivals, reason, requested_at, deadline_days, kept)
    if not dry_run:
        put_redaction(store, redaction)
        list_disputed(store, disputed, requested_at, deadline_days)
    return redaction


def kept_of(
    store: ObjectStore,
    household: Household,
    redactions: Redactions,
    jurisdictions: Jurisdictions,
    requested_at: datetime,
) -> list[Kept]:
    """How long the records of each pet stay that a practice must keep. Terms are counted from the pet's last visit,
    of one without any from the request: a record of it may still come."""
    landed = read_records(
        store, "clinic_visits", ["pet_id", "clinic_id", "visit_ts", "visit_end_ts", "status"], redactions
    ).table
    theirs = {*household.business_keys.get("clinic_visits", ())}
    seen: dict[str, list[Row]] = {pet_id: [] for pet_id in household.pet_ids}
    for row in landed.filter(pa.array(has_to_stay("clinic_visits", landed))).to_pylist():
        if row["pet_id"] in household.pet_ids or row["visit_id"] in theirs:
            seen.setdefault(row["pet_id"], []).append(row)
    found = []
    for pet_id, visits in sorted(seen.items()):
        last = max((row["visit_end_ts"] or row["visit_ts"] for row in visits), default=requested_at)
        clinics = [row["clinic_id"] for row in visits]
        for feed, record_type in KEPT_FEEDS.items():
            name, term, until = jurisdictions.strictest(record_type, clinics, last)
            why = f"{term.years} years from {term.begin}: {term.source}"
            found.append(Kept(feed, pet_id, until, name, record_type.value, why))
    return found


def household_stretches(
    store: ObjectStore, household: Household, redactions: Redactions
) -> tuple[list[Worn], list[Disputed]]:
    """When its pets wore a device and no other pet claims it (or a person decided so), with what the ledger
    says of it already; and the spans that another pet claims, too, of which nobody has decided."""
    asked = Redaction(
        redaction_id="",
        kind=ERASURE,
        reason="",
        requested_at=datetime.min,
        deadline=datetime.min,
        owner_ids=[household.owner_id],
        worn=household.worn,
    )
    theirs = Redactions((*(entry for entry in redactions if household.owner_id in entry.owner_ids), asked))
    assignments = [*read_assignments(store, redactions), *map(claim_of, household.worn)]
    dropped, disputed = covered_by(erasures(theirs), assignments, load_decisions(store))
    return [Worn(one.device_id, one.from_ts, one.to_ts) for one in dropped], disputed


def erased_arrivals(
    store: ObjectStore,
    worn: Iterable[Worn],
    manifests: Iterable[Manifest],
    redactions: Redactions,
    replacements: Replacements,
) -> list[Arrivals]:
    """Times of receipt of all landed telemetry that was measured or received while the devices were worn
    and that the ledger does not cover yet. What was received while it was not worn is named to the message."""
    stretches: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for device_id, from_ts, to_ts, _ in worn:
        stretches[device_id].append((epoch_us(from_ts), epoch_us(to_ts) if to_ts else 2**63 - 1))
    limits = [(device, low, high) for device, found in stretches.items() for low, high in merged(found)]
    covered: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for device_id, low, high in redactions.arrivals:
        covered[device_id].append((low, high))
    received: dict[str, list[int]] = defaultdict(list)
    hulls = merged(stretch for found in stretches.values() for stretch in found)
    touched = [m for m in manifests if received_within(m, hulls) or measured_within(m, hulls)]
    for _, table in telemetry_columns(store, touched, replacements, [*stretches], ["event_ts"]):
        arrived = arrival_us(table)
        measured = table["event_ts"].cast(pa.int64()).to_numpy()
        hit = rows_received_in(limits, table["device_id"], arrived)
        hit |= rows_received_in(limits, table["device_id"], measured)
        hit &= ~rows_received_in(redactions.arrivals, table["device_id"], arrived)
        for device_id, moment in zip(
            table["device_id"].filter(pa.array(hit)).to_pylist(), arrived[hit].tolist(), strict=True
        ):
            received[device_id].append(moment)
    return [
        Arrivals(device_id, from_epoch_us(low), from_epoch_us(high))
        for device_id, moments in sorted(received.items())
        for low, high in without(landed_stretches(moments, stretches[device_id]), covered[device_id])
    ]


def _business_keys(
    store: ObjectStore, owner_id: str, whole: list[str], moved_on: list[Held], redactions: Redactions
) -> dict[str, list[str]]:
    """Keys of the records to erase, by feed; a pet that moved on keeps its own, and what refers to a record
    that goes, goes too."""
    found: dict[str, list[str]] = {}
    # Visits and appointments come before what refers to them.
    for feed in RECORD_FEED_NAMES:
        columns = [column.name for column in RECORD_FEEDS[feed]]
        about = [name for name in HOUSEHOLD_COLUMNS if name in columns]
        if not about:
            continue
        moment = _MOMENTS.get(feed)
        landed = read_records(
            store, feed, ["business_key", *about, *([moment] if moment else [])], redactions
        )
        keys = {
            row["business_key"]
            for row in landed.rows()
            if (row.get("owner_id") == owner_id and feed in _ABOUT_OWNERS)
            or row.get("pet_id") in set(whole)
            or (moment and _was_theirs(row["pet_id"], row[moment], moved_on))
            or any(row.get(column) in found.get(to, ()) for column, to in RECORD_REFERENCES.items())
        }
        if keys:
            found[feed] = sorted(keys)
    return found


def _was_theirs(pet_id: str, moment: datetime, moved_on: list[Held]) -> bool:
    return any(
        held.subject == pet_id and held.from_ts <= moment and (held.to_ts is None or moment < held.to_ts)
        for held in moved_on
    )


def worn_by(assignments: Iterable[Assignment], whole: list[str], moved_on: list[Held]) -> list[Worn]:
    """What the pets were given: every assignment of a whole one as it was stated, and of one that moved on the
    part of it that was theirs."""
    given, whole_pets = [*assignments], {*whole}
    theirs: dict[str | None, list[Held]] = defaultdict(list)
    for held in moved_on:
        theirs[held.subject].append(held)
    found = {
        Worn(device_id, from_ts, to_ts, pet_id)
        for device_id, pet_id, from_ts, to_ts in given
        if pet_id is not None and pet_id in whole_pets
    }
    for device_id, pet_id, from_ts, to_ts in ended(given):
        for held in theirs.get(pet_id, ()):
            low, high = max(from_ts, held.from_ts), earliest(to_ts, held.to_ts)
            if high is None or low < high:
                found.add(Worn(device_id, low, high, held.subject))
    return sorted(
        found, key=lambda worn: (worn.device_id, worn.from_ts, worn.pet_id, worn.to_ts or datetime.max)
    )
