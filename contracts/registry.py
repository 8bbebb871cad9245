"""Names of the feeds, apart from their Arrow schemas so that naming one costs no import of pyarrow."""

TELEMETRY_FEED = "telemetry_events"
RECORD_FEED_NAMES = (
    "owners",
    "pets",
    "devices",
    "clinics",
    "device_assignments",
    "clinic_visits",
    "appointments",
    "breeds",
    "visit_documents",
    "engagement",
)
FEEDS = (TELEMETRY_FEED, *RECORD_FEED_NAMES)
