"""Arrow schemas of everything that lands in the lake and loads into `raw`.

The one list of columns: landing files, raw tables and dbt sources follow it.
Measures are decimals so that sums are the same on every run and engine; times
are UTC microseconds without a zone. Validation rules live in `telemetry` and
`records`.
"""

from collections.abc import Iterable, Mapping

import pyarrow as pa

TIMESTAMP = pa.timestamp("us")

# Columns of canonical JSON: text in the lake, semi-structured in both warehouses.
JSON_COLUMNS = frozenset({"payload", "consent_flags", "diagnosis_codes", "ocr_fields"})

ENVELOPE: list[pa.Field] = [
    pa.field("stream_id", pa.string(), nullable=False),
    pa.field("kafka_partition", pa.int32(), nullable=False),
    pa.field("kafka_offset", pa.int64(), nullable=False),
    pa.field("arrival_ts", TIMESTAMP, nullable=False),
    pa.field("ingested_at", TIMESTAMP, nullable=False),
    pa.field("source_system", pa.string(), nullable=False),
    pa.field("source_file", pa.string(), nullable=False),
]

TELEMETRY_FIELDS: list[pa.Field] = [
    pa.field("device_id", pa.string(), nullable=False),
    pa.field("event_ts", TIMESTAMP, nullable=False),
    pa.field("event_id", pa.string(), nullable=False),
    pa.field("accel_x_g", pa.decimal128(7, 4)),
    pa.field("accel_y_g", pa.decimal128(7, 4)),
    pa.field("accel_z_g", pa.decimal128(7, 4)),
    pa.field("step_count", pa.int32()),
    pa.field("lick_count", pa.int32()),
    pa.field("gps_lat", pa.decimal128(9, 7)),
    pa.field("gps_long", pa.decimal128(10, 7)),
    pa.field("battery_pct", pa.decimal128(5, 2)),
    pa.field("pulse_bpm", pa.decimal128(5, 1)),
    pa.field("body_temp_c", pa.decimal128(4, 2)),
    pa.field("respiration_rpm", pa.decimal128(5, 1)),
    pa.field("weight_kg", pa.decimal128(6, 3)),
    pa.field("firmware_version", pa.string()),
    pa.field("sensor_id", pa.string()),
    pa.field("quality_score", pa.decimal128(4, 3)),
    pa.field("capture_clinic_id", pa.string()),
    pa.field("schema_version", pa.int32()),
]

TELEMETRY_SCHEMA = pa.schema([*ENVELOPE, *TELEMETRY_FIELDS, pa.field("payload", pa.string())])

REJECT_SCHEMA = pa.schema(
    [
        pa.field("stream_id", pa.string(), nullable=False),
        pa.field("kafka_partition", pa.int32(), nullable=False),
        pa.field("kafka_offset", pa.int64(), nullable=False),
        pa.field("arrival_ts", TIMESTAMP, nullable=False),
        pa.field("source_system", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        # The message as it came; empty for devices whose household opted out.
        pa.field("payload", pa.binary()),
    ]
)

RECORD_FIELDS: list[pa.Field] = [
    pa.field("business_key", pa.string(), nullable=False),
    pa.field("op", pa.string(), nullable=False),  # upsert | delete | snapshot
    pa.field("changed_at", TIMESTAMP, nullable=False),
    pa.field("extracted_at", TIMESTAMP, nullable=False),
]

# Typed columns of each record feed, besides the envelope and RECORD_FIELDS.
# JSON columns are strings of canonical JSON (sorted keys, no spaces).
RECORD_FEEDS: dict[str, list[pa.Field]] = {
    "owners": [
        pa.field("owner_id", pa.string(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("contact_phone", pa.string()),
        pa.field("contact_email", pa.string()),
        pa.field("address", pa.string()),
        pa.field("district", pa.string()),
        pa.field("quarter", pa.string()),
        pa.field("age_band", pa.string()),
        pa.field("sex", pa.string()),
        # {"analytics": {"at": "2026-06-01T08:00:00Z", "value": true}, "email": ..., ...}
        pa.field("consent_flags", pa.string()),
    ],
    "pets": [
        pa.field("pet_id", pa.string(), nullable=False),
        pa.field("owner_id", pa.string()),
        pa.field("name", pa.string()),
        pa.field("species", pa.string()),
        pa.field("breed", pa.string()),
        pa.field("breed_type", pa.string()),
        pa.field("is_crossbreed", pa.bool_()),
        pa.field("dob", pa.date32()),
        pa.field("birth_year", pa.int32()),
        pa.field("sex", pa.string()),
        pa.field("neutered", pa.bool_()),
        pa.field("microchip_id", pa.string()),
        pa.field("color", pa.string()),
        pa.field("weight_kg", pa.decimal128(6, 3)),
    ],
    "devices": [
        pa.field("device_id", pa.string(), nullable=False),
        pa.field("hardware_serial", pa.string()),
        pa.field("vendor", pa.string()),
        pa.field("model", pa.string()),
        pa.field("firmware_version", pa.string()),
        pa.field("status", pa.string()),  # active | retired | damaged
        # Heartbeats a device of regular cadence sends in a day; null for an irregular tracker.
        pa.field("expected_events_per_day", pa.int32()),
    ],
    "clinics": [
        pa.field("clinic_id", pa.string(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("district", pa.string()),
        pa.field("timezone", pa.string()),
    ],
    "device_assignments": [
        pa.field("assignment_id", pa.string(), nullable=False),
        pa.field("device_id", pa.string(), nullable=False),
        pa.field("pet_id", pa.string(), nullable=False),
        pa.field("assigned_from", TIMESTAMP, nullable=False),
        pa.field("assigned_to", TIMESTAMP),
    ],
    "clinic_visits": [
        pa.field("visit_id", pa.string(), nullable=False),
        pa.field("pet_id", pa.string(), nullable=False),
        pa.field("clinic_id", pa.string()),
        pa.field("visit_ts", TIMESTAMP, nullable=False),
        pa.field("visit_end_ts", TIMESTAMP),
        pa.field("status", pa.string()),  # scheduled | completed | no_show | cancelled
        pa.field("visit_type", pa.string()),
        pa.field("is_unplanned", pa.bool_()),  # null where the source does not say
        pa.field("reason", pa.string()),
        pa.field("outcome", pa.string()),
        pa.field("diagnosis_codes", pa.string()),  # JSON list
        pa.field("weight_kg", pa.decimal128(6, 3)),
        pa.field("next_vaccine_due", pa.date32()),
    ],
    "appointments": [
        pa.field("appointment_id", pa.string(), nullable=False),
        pa.field("pet_id", pa.string(), nullable=False),
        pa.field("clinic_id", pa.string()),
        pa.field("scheduled_ts", TIMESTAMP, nullable=False),
        pa.field("status", pa.string()),  # scheduled | completed | no_show | cancelled
        pa.field("visit_id", pa.string()),
    ],
    "breeds": [
        pa.field("breed_id", pa.string(), nullable=False),
        pa.field("species", pa.string()),
        pa.field("breed", pa.string(), nullable=False),
        pa.field("breed_group", pa.string()),
        pa.field("min_weight_kg", pa.decimal128(6, 3)),
        pa.field("max_weight_kg", pa.decimal128(6, 3)),
        pa.field("min_height_cm", pa.decimal128(5, 1)),
        pa.field("max_height_cm", pa.decimal128(5, 1)),
        pa.field("min_life_expectancy_years", pa.decimal128(4, 1)),
        pa.field("max_life_expectancy_years", pa.decimal128(4, 1)),
    ],
    "visit_documents": [
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("visit_id", pa.string(), nullable=False),
        pa.field("pet_id", pa.string(), nullable=False),
        pa.field("document_uri", pa.string(), nullable=False),  # where the original is kept
        pa.field("media_type", pa.string()),
        pa.field("page_count", pa.int32()),
        pa.field("sha256", pa.string()),  # of the original, lower-case hexadecimal
        pa.field("ocr_engine", pa.string()),
        pa.field("ocr_fields", pa.string()),  # JSON object; may name people
        pa.field("ocr_confidence", pa.decimal128(4, 3)),  # 0 to 1
        pa.field("review_status", pa.string()),  # pending | auto_accepted | validated | rejected
        pa.field("validator_id", pa.string()),  # pseudonym of the person who decided
        pa.field("validated_at", TIMESTAMP),
    ],
    "engagement": [
        pa.field("engagement_id", pa.string(), nullable=False),
        pa.field("owner_id", pa.string(), nullable=False),
        pa.field("channel", pa.string(), nullable=False),  # app | email | sms | push | phone
        # session | sent | opened | clicked | called | booked
        pa.field("action", pa.string(), nullable=False),
        pa.field("occurred_at", TIMESTAMP, nullable=False),
        pa.field("duration_s", pa.int32()),  # of a session or a call
        pa.field("appointment_id", pa.string()),  # booked, or what a message or call was about
    ],
}

# Columns of records that name another record, and its feed: what refers to an erased one goes with it.
RECORD_REFERENCES = {"visit_id": "clinic_visits", "appointment_id": "appointments"}

# The columns by which an erasure finds what is a household's.
HOUSEHOLD_COLUMNS = ("owner_id", "pet_id", *RECORD_REFERENCES)

# Feeds whose records name no household, and why nothing of them is one's: an erasure leaves them as they are.
WITHOUT_HOUSEHOLD = {
    "devices": "what a collar is; who wore it is in device_assignments",
    "clinics": "practices and where they are",
    "breeds": "reference figures",
}


class UnerasableFeedError(ValueError):
    """An erasure could not find a household's records in a feed, or a feed says wrongly that it holds none."""


def check_erasable(feeds: Mapping[str, Iterable[pa.Field]], without_household: Mapping[str, str]) -> None:
    """Every feed names a household by one of HOUSEHOLD_COLUMNS, or says why it holds nothing of one.

    Raises UnerasableFeedError for the first that does neither, or both.
    """
    where = "in contracts/columns.py"
    for feed, fields in feeds.items():
        named = [field.name for field in fields if field.name in HOUSEHOLD_COLUMNS]
        if not named and not without_household.get(feed):
            raise UnerasableFeedError(
                f"no record of feed '{feed}' could be erased: it names no owner, pet, visit or appointment. Give it one"
                f" of the columns {', '.join(HOUSEHOLD_COLUMNS)}, or say in WITHOUT_HOUSEHOLD why nothing of it is"
                f" personal, {where}"
            )
        if named and feed in without_household:
            raise UnerasableFeedError(
                f"feed '{feed}' names households by {', '.join(named)}, so it is not one of WITHOUT_HOUSEHOLD {where}"
            )
    if unknown := sorted(without_household.keys() - feeds.keys()):
        raise UnerasableFeedError(f"no feed is called {', '.join(unknown)}: mend WITHOUT_HOUSEHOLD {where}")


# At definition: data of a feed that cannot be erased must not land.
check_erasable(RECORD_FEEDS, WITHOUT_HOUSEHOLD)


def record_schema(feed: str) -> pa.Schema:
    """Schema of a record feed's landing files and of `raw.<feed>`.

    Raises KeyError with the known feeds for an unknown one.
    """
    if feed not in RECORD_FEEDS:
        raise KeyError(f"unknown record feed '{feed}'; known: {', '.join(RECORD_FEEDS)}")
    return pa.schema([*ENVELOPE, *RECORD_FIELDS, *RECORD_FEEDS[feed], pa.field("payload", pa.string())])
