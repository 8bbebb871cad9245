"""`petwellness erase`, `erasures`, `decide` and `purge`: requests for erasure, what became of them, disputed spans,
deletion of originals.

Output names owner ids, devices of disputed spans and entries of the ledgers, never a name, an address or a pet.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from petwellness_orchestration import erasing
from petwellness_orchestration.cli.console import say, thousands
from petwellness_orchestration.cli.entries import checked_person, checked_reason
from petwellness_orchestration.lake_access import reach_lake
from petwellness_orchestration.settings import PlatformSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from governance.erasure.leftovers import Leftover
    from lake.disputes import Disputed
    from lake.redactions import Redaction, Redactions
    from lake.store import ObjectStore


def erase_household(owner_id: str, reason: str, dry_run: bool) -> int:
    """Enter a household's erasure into the ledger, or say what it would cover."""
    from lake.redactions import Redactions

    reason = checked_reason(reason)
    settings = load_settings()
    store = reach_lake(settings)
    say(f"looking for what is about household {owner_id}")
    disputed = erasing.disputed_of(store, owner_id)
    redaction = erasing.request_erasure(settings, store, owner_id, reason, dry_run)
    if redaction is None:
        say(f"the erasure of {owner_id} was requested before and covers all there is; nothing was changed")
        return 0
    _print_scope(redaction)
    say("counting rows in lake, warehouse and published copy")
    _print_counts(erasing.places(settings, store, Redactions((redaction,))))
    for kept in erasing.kept_of(store, Redactions((redaction,))):
        print(f"kept           {kept}")
    print(f"to be gone by  {redaction.deadline:%Y-%m-%d %H:%M} UTC")
    if disputed:
        print(
            f"not covered    {len(disputed)} spans that another pet claims, too: nothing of them is deleted until a "
            f"person decides (`petwellness erasures` {'will list' if dry_run else 'lists'} them)"
        )
    if dry_run:
        say("nothing was changed; leave out --dry-run to do it. It cannot be taken back")
    else:
        say(
            f"redaction {redaction.redaction_id} is in the ledger. The next run takes the rows out of the "
            "warehouse and the published copy and deletes originals (`petwellness purge` does at once)"
        )
    return 0


def list_erasures() -> int:
    """Every entry of the ledger with its state, and disputed spans that wait; 1 when one of either is past its
    deadline and not through."""
    from lake.landing import utc_now
    from lake.redactions import load_redactions

    settings = load_settings()
    store = reach_lake(settings)
    redactions, now = load_redactions(store), utc_now()
    waiting = erasing.waiting_spans(store, redactions)
    if not redactions and not waiting:
        print("no redactions")
        return 0
    overdue = sum(bool(one.rows) and one.span.listing.deadline <= now for one in waiting)
    if redactions:
        overdue += _print_entries(settings, store, redactions, now)
    if waiting:
        _print_waiting(waiting, now)
    return 1 if overdue else 0


def _print_entries(
    settings: PlatformSettings, store: ObjectStore, redactions: Redactions, now: datetime
) -> int:
    """A line for each entry, and for what stays of it; returns how many are overdue."""
    from lake.redactions import Redactions

    overdue = 0
    print(f"{'redaction':<36} {'kind':<13} {'requested':<16} {'deadline':<16} state")
    for entry in redactions:
        is_past = entry.deadline <= now
        left = erasing.places(settings, store, Redactions((entry,)), now if is_past else None)
        overdue += bool(left and is_past)
        print(
            f"{entry.redaction_id:<36} {entry.kind:<13} {entry.requested_at:%Y-%m-%d %H:%M} "
            f"{entry.deadline:%Y-%m-%d %H:%M} {_state(left, is_past)}"
        )
        for kept in erasing.kept_of(store, Redactions((entry,))):
            print(f"  kept: {kept}")
    return overdue


def _print_waiting(waiting: Sequence[erasing.WaitingSpan], now: datetime) -> None:
    print(
        "disputed spans: another pet claims them, too; decide with `petwellness decide LISTING SPAN erase|keep`"
    )
    print(f"{'listing':<36} {'span':>4} {'deadline':<16} state")
    for one in waiting:
        listing, number = one.span.listing, one.span.number
        late = "OVERDUE: " if one.rows and listing.deadline <= now else ""
        print(
            f"{listing.listing_id:<36} {number:>4} {listing.deadline:%Y-%m-%d %H:%M} "
            f"{late}{thousands(one.rows)} rows"
        )
        for part in one.span.parts:
            print(f"  {_described(part)}")


def decide_span(
    listing_id: str, number: int, verdict: str, reason: str, decided_by: str, confirmed: bool
) -> int:
    """Decide of a disputed span, or say what that would do."""
    reason, decided_by = checked_reason(reason), checked_person(decided_by)
    settings = load_settings()
    store = reach_lake(settings)
    done = erasing.decide(
        settings, store, listing_id, number, verdict, decided_by, reason, say, dry_run=not confirmed
    )
    for part in done.waiting.span.parts:
        print(_described(part))
    print(f"{thousands(done.waiting.rows):>12}  landed rows, which {'go' if verdict == 'erase' else 'stay'}")
    if done.decision is None:
        say("nothing was changed; give --yes to do it. It cannot be taken back")
    else:
        say(f"decision {done.decision.decision_id} is in the ledger")
    return 0


def _described(part: Disputed) -> str:
    end = f"{part.to_ts:%Y-%m-%d %H:%M}" if part.to_ts else "further notice"
    return (
        f"{part.device_id} from {part.from_ts:%Y-%m-%d %H:%M} to {end}: {part.reason} of household "
        f"{part.owner_id}, claimed by {len(part.pet_ids)} pets"
    )


def purge_originals(dry_run: bool) -> int:
    """Delete what is due to go, or say what would."""
    settings = load_settings()
    done = erasing.purge_everything(settings, reach_lake(settings), say, dry_run)
    for name, label in (
        ("ranges", "landed ranges written anew"),
        ("redacted_rows", "rows redacted in them"),
        ("kept_rows", "of these put aside, since a practice must keep them"),
        ("kept_files_expired", "files of rows put aside deleted, their term is over"),
        ("cleared_payloads", "payloads of dead letters cleared"),
        ("deleted_objects", "originals deleted"),
        ("expired_rejects", "files of dead letters past their retention deleted"),
        ("cold_files_removed", "files of days that came back from cold storage changed, deleted"),
        ("published_files_retired", "published files out of force deleted"),
        ("dagster_texts_erased", "texts of Dagster's storage without erased households"),
    ):
        print(f"{thousands(done[name]):>12}  {label}")
    if done["warehouse_rewritten"]:
        print(f"{1:>12}  warehouse file rewritten")
    if dry_run:
        say("nothing was changed; leave out --dry-run to do it")
    return 0


def _print_scope(redaction: Redaction) -> None:
    records = sum(len(keys) for keys in redaction.business_keys.values())
    collars = {worn.device_id for worn in redaction.worn}
    print(
        f"covers         {len(redaction.pet_ids)} pets, {len(collars)} collars, {thousands(records)} records"
    )


def _print_counts(found: Iterable[Leftover]) -> None:
    rows: Counter[tuple[bool, str]] = Counter()
    files: Counter[str] = Counter()
    for one in found:
        # Sums over a day are counted with the events they add up.
        is_table = "." in one.place and "/" not in one.place
        rows[not is_table, one.place if is_table else one.kind] += one.rows
        files[one.kind] += 1
    for (in_files, name), count in sorted(rows.items(), key=lambda item: (not item[0][0], item[0][1])):
        where = f"lake {name}/" if in_files and name not in ("published", "dagster") else name
        print(f"{thousands(count):>12}  rows in {where}{f' ({files[name]} files)' if in_files else ''}")
    if not rows:
        print(f"{0:>12}  rows anywhere")


def _state(left: list[Leftover], is_past: bool) -> str:
    if not left:
        return "nothing left"
    where = ", ".join(sorted({one.kind for one in left}))
    return f"{'OVERDUE: ' if is_past else ''}{thousands(sum(one.rows for one in left))} rows left in {where}"
