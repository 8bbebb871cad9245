"""The one rule of consent flags: the last said value holds, silence is no, but for analytics as set."""

import json
from datetime import datetime, timedelta

import pytest

from contracts.consent import (
    ANALYTICS,
    FLAGS,
    AnalyticsDefault,
    ConsentUnreadableError,
    OwnerRecord,
    allows,
    said,
    statements,
)

START = datetime(2026, 6, 1)
DAY = timedelta(days=1)


def record(day: float, op: str = "upsert", arrived: float | None = None, **values: bool) -> OwnerRecord:
    flags = json.dumps(
        {flag: {"at": "2026-06-01T00:00:00Z", "value": value} for flag, value in values.items()}
    )
    arrival_ts = START + (day if arrived is None else arrived) * DAY
    return OwnerRecord("ann", op, flags, START + day * DAY, arrival_ts)


def history(flag: str, *records: OwnerRecord) -> list[tuple[bool, float]]:
    return [(one.is_allowed, (one.since - START) / DAY) for one in statements(flag, records)]


@pytest.mark.parametrize("flag", FLAGS)
def test_a_record_that_does_not_mention_a_flag_changes_nothing(flag: str) -> None:
    [other, *_] = [name for name in FLAGS if name != flag]
    silent = [record(2, **{other: True}), OwnerRecord("ann", "upsert", None, START, START), record(4)]
    assert history(flag, record(1, **{flag: False}), *silent) == [(False, 1)]


def test_a_deletion_says_nothing() -> None:
    assert history("push", record(1, push=True), record(2, op="delete", push=False)) == [(True, 1)]


def test_what_a_clock_far_ahead_says_holds_from_its_receipt() -> None:
    ahead = record(400, arrived=3, push=False)
    assert history("push", record(1, push=True), record(5, push=True), ahead) == [
        (True, 1),
        (False, 3),
        (True, 5),
    ]
    assert history("push", record(4, arrived=3, push=False)) == [(False, 4)]


@pytest.mark.parametrize("default", AnalyticsDefault)
def test_what_was_never_said_is_no_but_for_analytics_what_the_setting_says(default: AnalyticsDefault) -> None:
    assert {flag: allows(flag, None, default) for flag in FLAGS if flag != ANALYTICS} == {
        "share_research": False, "push": False, "sms": False, "email": False
    }  # fmt: skip
    assert allows(ANALYTICS, None, default) is (default is AnalyticsDefault.ALLOW)
    for flag in FLAGS:
        assert [allows(flag, value, default) for value in (True, False)] == [True, False]


@pytest.mark.parametrize("flags", [None, "{}", '{"email":{"value":false}}', '{"share_research":null}'])
def test_silence_is_told_from_no(flags: str | None) -> None:
    assert said(flags, "share_research") is None


@pytest.mark.parametrize(
    "flags",
    ["", "7", "null", '["share_research"]', '{"share_research":false}', '{"share_research":{"value":"no"}}',
     '{"share_research":{"value":1}}', '{"share_research":{}}'],
)  # fmt: skip
def test_consent_that_cannot_be_read_is_an_error(flags: str) -> None:
    with pytest.raises(ConsentUnreadableError, match="share_research"):
        said(flags, "share_research")
