"""`petwellness gaps` and `petwellness reload`: find what is missing from the broker to raw, and load again what differs.

What a gap is and what closes it is in `warehouse.gaps`; the way through an
incident is in docs/runbooks/telemetry-dropouts.md.
"""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from petwellness_orchestration.cli.console import say, thousands, warn
from petwellness_orchestration.cli.runs import EVERYTHING, run_job
from petwellness_orchestration.cli.steps import finish
from petwellness_orchestration.lake_access import open_lake
from petwellness_orchestration.settings import PlatformSettings, load_settings

if TYPE_CHECKING:
    from lake.landing import Claim
    from warehouse.gaps import Gap, LakeGaps

# Gaps of a kind that are printed; JSON has all.
SHOWN = 20


@dataclass(frozen=True)
class Seen:
    """Everything that was found; `unreachable` says why the broker was not asked.

    `streams` are those that landed anything, `deleted` of them those of topics that the broker has no more.
    """

    gaps: list[Gap]
    lake: LakeGaps
    unreachable: str | None
    streams: frozenset[str]
    deleted: frozenset[str]

    @property
    def is_open(self) -> bool:
        return any(gap.kind.is_open for gap in self.gaps)


def show_gaps(output: str, close_dead: bool, dead_streams: Sequence[str] = ()) -> int:
    """Print every gap and what closes it; 1 while one is open.

    `close_dead` first closes what nobody can land of deleted topics and declares their streams dead, so that they do
    not hold the data's present; `dead_streams` are declared so on the word of who calls.
    """
    from ingestion.collector.recovery import TOPIC_DELETED, close_claims
    from lake.landing import utc_now
    from lake.progress import declare_dead

    settings = load_settings()
    store, seen = open_lake(settings), _look(settings)
    if unknown := [stream_id for stream_id in dead_streams if stream_id not in seen.streams]:
        known = ", ".join(sorted(seen.streams)) or "none"
        warn(f"nothing of {', '.join(unknown)} ever landed; streams that did: {known}")
        return 1
    declare_dead(store, dead_streams, "declared by a person", getpass.getuser(), utc_now())
    if close_dead:
        declare_dead(store, sorted(seen.deleted), TOPIC_DELETED, getpass.getuser(), utc_now())
        if seen.lake.dead:
            close_claims(store, seen.lake.dead, TOPIC_DELETED)
            seen = _look(settings)
    if output == "json":
        _print_json(seen)
    else:
        _print_text(seen)
    return 1 if seen.is_open else 0


def reload_ranges(confirmed: bool) -> int:
    """Delete from raw the ranges that differ from the lake and load them again; without `confirmed` only say so."""
    from lake.landing import list_claims
    from petwellness_orchestration.account import COMMAND
    from petwellness_orchestration.loading import forget
    from petwellness_orchestration.resources import PlatformResource

    settings = load_settings()
    path = settings.state.warehouse_path
    if settings.environment.snowflake is None and not path.exists():
        warn(f"there is no warehouse at {path}; `petwellness load` creates one from the lake")
        return 1
    lake, _ = _lake_gaps(settings, list_claims(open_lake(settings)), lambda _: False)
    if not lake.to_reload:
        say("raw differs from the lake on no range; nothing to load again")
        return 0
    for m in lake.to_reload:
        say(f"{m.feed}: {m.stream_id} partition {m.partition} [{m.start}, {m.end}), {m.rows:,} rows")
    count = f"{len(lake.to_reload)} ranges"
    if not confirmed:
        say(
            f"would delete the rows of these {count} from raw and load them again from {open_lake(settings).url}"
        )
        say("nothing was changed; add --yes to do it")
        return 0
    deleted = forget(PlatformResource(), COMMAND, lake.to_reload)
    say(f"deleted {deleted:,} rows of {count} from raw")
    return finish(run_job(settings, EVERYTHING, ["group:raw"]))


def _look(settings: PlatformSettings) -> Seen:
    from lake.landing import list_claims

    claims = list_claims(open_lake(settings))
    in_log, is_dead, unreachable = _log_gaps(settings, claims)
    lake, silent = _lake_gaps(settings, claims, is_dead)
    streams = frozenset(claim.stream_id for claim in claims if claim.extract_id is None)
    return Seen(
        [*in_log, *lake.gaps, *silent], lake, unreachable, streams, frozenset(filter(is_dead, streams))
    )


def _lake_gaps(
    settings: PlatformSettings, claims: list[Claim], is_dead: Callable[[str], bool]
) -> tuple[LakeGaps, list[Gap]]:
    """Gaps of lake and raw, and of the devices; on Snowflake, of pipes instead of devices."""
    if settings.environment.snowflake is not None:
        return _account_gaps(is_dead), []
    from lake.landing import list_manifests, utc_now
    from lake.quarantine import load_quarantine
    from warehouse.duckdb.raw import open_warehouse
    from warehouse.gaps import heartbeat_gaps, lake_gaps, read_orphans
    from warehouse.reconcile import LANDING_GRACE, read_raw_ranges

    settled_before = utc_now() - LANDING_GRACE if settings.collector.as_service else None
    store = open_lake(settings)
    manifests, quarantine = list_manifests(store), load_quarantine(store)
    if not settings.state.warehouse_path.exists():
        return lake_gaps(claims, manifests, {}, [], is_dead, settled_before, quarantine), []
    with open_warehouse(settings.state.warehouse_path, read_only=True) as con:
        raw_ranges, _ = read_raw_ranges(con)
        orphans = read_orphans(con)
        found = lake_gaps(claims, manifests, raw_ranges, orphans, is_dead, settled_before, quarantine)
        return found, heartbeat_gaps(con, settings.operations.heartbeat_min_ratio)


def _account_gaps(is_dead: Callable[[str], bool]) -> LakeGaps:
    from petwellness_orchestration.account import COMMAND
    from petwellness_orchestration.loading import reconcile_account
    from petwellness_orchestration.resources import PlatformResource
    from warehouse.gaps import LakeGaps

    found = reconcile_account(PlatformResource(), COMMAND, is_dead)
    return LakeGaps(found.gaps, found.dead, found.to_reload, found.pending)


def _log_gaps(
    settings: PlatformSettings, claims: list[Claim]
) -> tuple[list[Gap], Callable[[str], bool], str | None]:
    """Gaps between log and claims, how to tell a deleted topic's stream; without a broker, why it was not asked.

    What nobody collects is no gap: topics beside the setting count only where something of them was claimed.
    """
    from contracts.decoders import DECODERS
    from ingestion.broker.client import BrokerUnreachableError, connect
    from warehouse.gaps import deleted_topics, log_gaps

    found: list[Gap] = []
    try:
        client = connect(settings.broker, settings.state.home)
        topics = client.existing_topics([decoder.topic for decoder in DECODERS.values()])
        streams = client.streams(topics)
        claimed = {claim.stream_id for claim in claims}
        for topic, stream in streams.items():
            if topic not in settings.topics and stream.stream_id not in claimed:
                continue
            bounds = client.log_bounds(stream)
            found += log_gaps(topic, stream.stream_id, bounds, claims, settings.collector.as_service)
    except BrokerUnreachableError as error:
        return [], lambda _: False, str(error)
    # Collectors close the claims of an embedded broker that stopped by themselves.
    alive = [] if client.embedded else [stream.stream_id for stream in streams.values()]
    return found, deleted_topics(alive), None


def _print_json(seen: Seen) -> None:
    gaps = [
        {
            "kind": gap.kind.name,
            "open": gap.kind.is_open,
            "where": gap.where,
            "count": gap.count,
            "detail": gap.detail,
            "fix": gap.kind.fix,
        }
        for gap in seen.gaps
    ]
    shown = {
        "open": seen.is_open,
        "pending": seen.lake.pending,
        "broker": seen.unreachable or "asked",
        "gaps": gaps,
    }
    json.dump(shown, sys.stdout)
    print()


def _print_text(seen: Seen) -> None:
    for kind in dict.fromkeys(gap.kind for gap in seen.gaps):
        of_kind = [gap for gap in seen.gaps if gap.kind is kind]
        print(f"{kind.name}: {kind.title} ({thousands(sum(gap.count for gap in of_kind))} in {len(of_kind)})")
        for gap in of_kind[:SHOWN]:
            print(f"  {gap.where}: {thousands(gap.count)}; {gap.detail}")
        if len(of_kind) > SHOWN:
            print(f"  and {len(of_kind) - SHOWN} more; `--format json` has all")
        print(f"  -> {kind.fix}")
    if seen.lake.pending:
        print(f"{seen.lake.pending} ranges are on their way into the lake")
    if seen.unreachable is not None:
        print(f"the broker was not asked: {seen.unreachable}")
    print("gaps are open" if seen.is_open else "no gap is open")
