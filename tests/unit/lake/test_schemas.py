"""The columns of landing files, release by release."""

import json
from pathlib import Path

from contracts.registry import FEEDS
from lake import landing
from lake.landing import feed_schema


def test_columns_of_a_schema_version_never_change() -> None:
    """Adding a column makes a new schema version; whoever removes or retypes one breaks old files."""
    kept = json.loads((Path(__file__).parent / "landing_schemas.json").read_text())
    today = {
        feed: {
            field.name: f"{field.type}{'' if field.nullable else ' not null'}" for field in feed_schema(feed)
        }
        for feed in FEEDS
    }
    assert kept[str(landing.SCHEMA_VERSION)] == today, (
        "columns have changed: see docs/schema-evolution.md, step 'columns'"
    )
    for version in range(1, landing.SCHEMA_VERSION):
        before, after = kept[str(version)], kept[str(version + 1)]
        for feed, columns in before.items():
            assert columns.items() <= after[feed].items()
            added = after[feed].keys() - columns.keys()
            assert not any(after[feed][name].endswith("not null") for name in added)
