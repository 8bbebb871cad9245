"""How consent flags are read: the one rule that ingestion follows. Models follow the same rule by the one macro
of dbt_project/macros/consent.sql; `tests/integration/dbt_project/test_consent.py` holds the two together.

The last said value of a flag holds. A record that does not mention a flag changes nothing, and neither does a
deletion. A flag that was never said is no, but for `analytics`, where a setting decides.
"""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

ANALYTICS = "analytics"
SHARE_RESEARCH = "share_research"
MESSAGE_CHANNELS = ("push", "sms", "email")
FLAGS = (ANALYTICS, SHARE_RESEARCH, *MESSAGE_CHANNELS)

# A record dated further ahead of its receipt tells of a wrong clock; what it says holds from its receipt.
RECORD_CLOCK_AHEAD = timedelta(hours=24)


class AnalyticsDefault(StrEnum):
    """What holds for `analytics` while an owner has not said it (`PETWELLNESS_CONSENT_ANALYTICS_DEFAULT`)."""

    ALLOW = "allow"
    REFUSE = "refuse"


class ConsentUnreadableError(ValueError):
    """`consent_flags` is not what its contract says: it must not count as consent."""


class OwnerRecord(NamedTuple):
    """What of a record of the feed owners consent needs; `op` as in the record, times naive UTC."""

    owner_id: str
    op: str
    consent_flags: str | None
    changed_at: datetime
    arrival_ts: datetime


class Statement(NamedTuple):
    """An owner said yes or no to a flag; it holds from `since` (naive UTC) until they say it again."""

    owner_id: str
    is_allowed: bool
    since: datetime


def said(consent_flags: str | None, flag: str) -> bool | None:
    """What a record says of a flag (`{"analytics": {"at": ..., "value": ...}, ...}`); None where it is silent.

    Raises ConsentUnreadableError.
    """
    if consent_flags is None:
        return None
    try:
        stated = json.loads(consent_flags).get(flag)
        value = None if stated is None else stated["value"]
    except (ValueError, TypeError, KeyError, AttributeError):
        value = consent_flags
    if value is not None and not isinstance(value, bool):
        raise ConsentUnreadableError(
            f"consent_flags of an owner does not say true or false of {flag}, as in "
            '{"' + flag + '": {"at": "...", "value": true}}; fix the extract of owners'
        )
    return value


def allows(flag: str, last_said: bool | None, analytics_default: AnalyticsDefault) -> bool:
    """Whether a flag is a yes, from what was said of it last (None: nothing ever)."""
    if last_said is None:
        return flag == ANALYTICS and analytics_default is AnalyticsDefault.ALLOW
    return last_said


def statements(flag: str, records: Iterable[OwnerRecord]) -> list[Statement]:
    """Everything said of a flag, in order; `records` are in the order of changes (contracts: histories)."""
    dated = sorted(
        (said_at(record.changed_at, record.arrival_ts), record.arrival_ts, place, record)
        for place, record in enumerate(records)
        if record.op != "delete"
    )
    return [
        Statement(record.owner_id, value, since)
        for since, _, _, record in dated
        if (value := said(record.consent_flags, flag)) is not None
    ]


def said_at(changed_at: datetime, arrival_ts: datetime) -> datetime:
    """From when on a record's statements hold."""
    return arrival_ts if changed_at > arrival_ts + RECORD_CLOCK_AHEAD else changed_at
