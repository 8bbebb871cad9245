"""What the simulator planted against what the platform found, row by row: the demo fails where they differ.

What was planted is read from the truth beside the state (`simulation.truth`), what was found from the
warehouse, through the queries of this module alone. Features of an earlier release are no message and no record, so
they are also planted here. Printing is in `cli.report`.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from contracts.consent import AnalyticsDefault, allows
from petwellness_orchestration.settings import DBT_PROJECT_DIR, PlatformSettings

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from lake.store import ObjectStore

EXAMPLES = 3
CATALOGUE = DBT_PROJECT_DIR / "seeds" / "ml" / "ml_feature_catalogue.csv"


@dataclass(frozen=True)
class Comparison:
    """One kind of what was planted. `planted` and `found` count events or rows, `differing` the rows that only one
    side has, of which `examples` name some."""

    name: str
    planted: int
    found: int
    differing: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """Two queries with the same columns, of which the last one counts; tables of the truth are called planted_*."""

    name: str
    planted: str
    found: str


# What the warehouse says, once for all kinds. The live fleet goes on after the period that was planted.
FOUND = {
    "found_events": """
        select device_id, event_date, event_ts, pet_resolution, pet_id,
            pulse_bpm, body_temp_c, respiration_rpm, gps_lat, gps_long
        from anl.telemetry_events
        where event_date <= (select max(event_date) from planted_events_per_device_day)
    """,
    "found_heartbeats": """
        select heartbeats.device_id, heartbeats.event_date, heartbeats.event_count
        from anl.device_daily_heartbeat as heartbeats
        inner join cur.devices on heartbeats.device_id = devices.device_id
        where
            heartbeats.expected_events is null
            and devices.expected_events_per_day is null
            and devices.is_current
            and devices.status = 'active'
            and heartbeats.event_date <= (select max(event_date) from planted_events_per_device_day)
    """,
    "found_claims": """
        select device_id, valid_from, valid_to from cur.device_pet_intervals where pet_resolution = 'ambiguous'
    """,
    "found_versions": """
        select pet_id, valid_from, valid_to, is_deleted from cur.pets where source_system = 'pet-register'
    """,
    "found_set_aside": """
        select feed, entity_id, 'repeated' as reason from stg.record_duplicates
        union all
        select feed, entity_id, finding from cur.record_findings where is_set_aside
    """,
    "found_consents": """
        select owner_id, 'analytics' as flag, district is not null as is_allowed from anl.owners
        union all
        select owner_id, 'push', is_reachable_push from anl.owners
        union all
        select owner_id, 'sms', is_reachable_sms from anl.owners
        union all
        select owner_id, 'email', is_reachable_email from anl.owners
        union all
        select owners.owner_id, 'share_research', shared.owner_id is not null
        from anl.owners
        left join (select distinct owner_id from ml.owner_records where known_to is null) as shared
            on owners.owner_id = shared.owner_id
    """,
    "found_superseded": """
        select features.pet_id, features.event_date, features.value
        from ml.computed_features as features
        inner join ml.feature_catalogue as catalogue
            on
                features.feature_name = catalogue.feature_name
                and features.feature_version = catalogue.feature_version
        where catalogue.status = 'superseded'
    """,
}

# A collar that has told this much of a pet without a value has no sensor for it.
ENOUGH_EVENTS = 100
SENSORS = ("pulse_bpm", "body_temp_c", "respiration_rpm", "gps_lat", "gps_long")

# A rebuild has current versions alone, so this holds until there is one.
SUPERSEDED = Kind(
    "values of superseded features, kept",
    "select pet_id, event_date, value, 1 from planted_superseded_features",
    "select pet_id, event_date, value, 1 from found_superseded",
)
KINDS = (
    Kind(
        "distinct events, by collar and day",
        "select device_id, event_date, events from planted_events_per_device_day",
        "select device_id, event_date, count(*) from found_events group by all",
    ),
    Kind(
        "events in spans that two pets claim",
        "select device_id, from_ts, to_ts, events from planted_ambiguous_spans",
        """
        select claims.device_id, claims.valid_from, claims.valid_to, count(events.event_ts)
        from found_claims as claims
        left join found_events as events
            on
                claims.device_id = events.device_id
                and events.event_ts >= claims.valid_from
                and events.event_ts < claims.valid_to
                and events.pet_resolution = 'ambiguous'
                and events.pet_id = 'unknown'
        group by all
        """,
    ),
    Kind(
        "events of collars of irregular cadence",
        "select device_id, event_date, events from planted_irregular_days",
        "select device_id, event_date, event_count from found_heartbeats",
    ),
    Kind(
        "events of collars without a sensor",
        "select device_id, sensor, events from planted_missing_sensors",
        " union all ".join(
            f"""
            select device_id, '{sensor}', count(*) from found_events where pet_resolution = 'assigned'
            group by all having count(*) >= {ENOUGH_EVENTS} and count({sensor}) = 0
            """
            for sensor in SENSORS
        ),
    ),
    Kind(
        "versions of pets absent from complete extracts",
        "select pet_id, valid_from, valid_to, is_deleted, 1 from planted_listed_versions",
        "select pet_id, valid_from, valid_to, is_deleted, 1 from found_versions",
    ),
    Kind(
        "records repeated, contradicted or of a wrong clock",
        "select feed, business_key, reason, records from planted_set_aside_records",
        "select feed, entity_id, reason, count(*) from found_set_aside group by all",
    ),
    Kind(
        "consent of owners whose records leave flags out",
        "select owner_id, flag, is_allowed, 1 from planted_silent_consents",
        """
        select owner_id, flag, is_allowed, 1 from found_consents
        where owner_id in (select owner_id from planted_silent_consents)
        """,
    ),
    SUPERSEDED,
)


def plant_superseded_features(settings: PlatformSettings) -> bool:
    """Make a warehouse that an earlier release has left: it holds features by a definition that is superseded by now.

    Returns whether it did: nothing for real input or an account, nor where there is a warehouse.
    """
    from petwellness_orchestration.sources import fleet
    from warehouse.duckdb.raw import open_warehouse

    is_embedded = settings.environment.snowflake is None
    if settings.source.data is not None or not is_embedded or settings.warehouse_path.exists():
        return False
    with CATALOGUE.open(encoding="utf-8", newline="") as file:
        superseded = [row for row in csv.DictReader(file) if row["status"] == "superseded"]
    if not superseded:
        return False
    name, version = superseded[0]["feature_name"], superseded[0]["feature_version"]
    with open_warehouse(settings.warehouse_path) as con:
        con.register("earlier_release", fleet(settings).superseded_features())
        con.execute("create schema ml")
        con.execute(
            """
            create table ml.computed_features as
            select
                md5(concat_ws('|', pet_id, $name, event_date, $version)) as feature_id,
                pet_id,
                $name as feature_name,
                cast(event_date as timestamp) as start_ts,
                cast(event_date + 1 as timestamp) as end_ts,
                event_date,
                value,
                cast(1 as double) as coverage,
                $version as feature_version,
                'day=' || event_date || '/' || $version as batch_id,
                cast(event_date + 1 as timestamp) as created_at
            from earlier_release
            """,
            {"name": name, "version": version},
        )
    return True


def compare(
    con: duckdb.DuckDBPyConnection,
    truth: Mapping[str, pa.Table],
    analytics_default: AnalyticsDefault,
    kinds: Sequence[Kind] = KINDS,
) -> list[Comparison]:
    """Compare each kind; `con` sees the warehouse, `truth` is the simulator's tables by name."""
    for name, table in truth.items():
        con.register(f"planted_{name}", table)
    con.register("planted_silent_consents", _with_allowed(truth["silent_consents"], analytics_default))
    for name, query in FOUND.items():
        con.execute(f"create or replace temp view {name} as {query}")
    return [_compared(con, kind) for kind in kinds]


def _with_allowed(silent: pa.Table, analytics_default: AnalyticsDefault) -> pa.Table:
    """What was last said of a flag, as the yes or no that it has to be."""
    rows = silent.to_pylist()
    return silent.append_column(
        "is_allowed", [[allows(row["flag"], row["last_said"], analytics_default) for row in rows]]
    )


def _compared(con: duckdb.DuckDBPyConnection, kind: Kind) -> Comparison:
    planted, found = con.execute(kind.planted).fetchall(), con.execute(kind.found).fetchall()
    missing, unexpected = (
        sorted(set(planted) - set(found), key=str),
        sorted(set(found) - set(planted), key=str),
    )
    examples = [f"missing {_told(row)}" for row in missing] + [
        f"unexpected {_told(row)}" for row in unexpected
    ]
    # Rows are one of a kind: what comes twice differs from what was planted once.
    differing = len(examples) + abs(len(planted) - len(set(planted))) + abs(len(found) - len(set(found)))
    return Comparison(
        kind.name,
        sum(row[-1] for row in planted),
        sum(row[-1] for row in found),
        differing,
        tuple(examples[:EXAMPLES]),
    )


def _told(row: tuple[Any, ...]) -> str:
    return ", ".join(str(value) for value in row)


def compare_landed(
    planted: Mapping[str, Any], lake: Mapping[str, Any], set_aside: int | None
) -> list[Comparison]:
    """Messages and what became of them, in counts of the lake and the duplicates set aside (None: not built).

    A wave that was cut short is published again, under another stream: then there may be more of all, never less.
    """
    counts = [
        ("messages", planted["messages"], lake["messages"]),
        ("rejects", sum(planted["rejected"].values()), sum(lake["rejects_by_reason"].values())),
        ("dropped by consent", planted["consent_dropped"], lake["consent_dropped"]),
    ]
    if set_aside is not None:
        counts.append(
            ("duplicates and conflicts set aside", planted["duplicates"] + planted["conflicts"], set_aside)
        )
    was_repeated = lake["telemetry_streams"] > 1
    return [
        Comparison(name, expected, found, 0 if was_repeated and found > expected else abs(expected - found))
        for name, expected, found in counts
    ]


def figures(
    settings: PlatformSettings,
    store: ObjectStore,
    lake: Mapping[str, Any],
    warehouse: Mapping[str, Any] | None,
    with_superseded: bool,
) -> list[dict[str, Any]]:
    """Every comparison as plain values; those of tables only where they are built.

    `with_superseded`: this run planted features of an earlier release. None for real input, and none once an
    erasure or a quarantine has taken out what had been planted.
    """
    import pyarrow.parquet as pq

    from lake.quarantine import count_quarantine
    from lake.redactions import ERASURE, load_redactions
    from petwellness_orchestration.cli.summary import truth_figures
    from warehouse.duckdb.raw import open_warehouse

    total = truth_figures(settings)
    erased = any(entry.kind == ERASURE for entry in load_redactions(store).entries)
    if total is None or erased or count_quarantine(store):
        return []
    compared = compare_landed(total, lake, None if warehouse is None else warehouse["duplicates_set_aside"])
    if warehouse is not None:
        truth = {path.stem: pq.read_table(path) for path in settings.state.truth_dir.glob("*.parquet")}
        with open_warehouse(settings.warehouse_path, read_only=True) as con:
            kinds = [kind for kind in KINDS if with_superseded or kind is not SUPERSEDED]
            compared += compare(con, truth, settings.analytics_default, kinds)
    return [asdict(comparison) for comparison in compared]
