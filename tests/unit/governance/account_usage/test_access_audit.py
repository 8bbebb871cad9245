"""The access audit's statements: one day, whole, of one environment's personal columns."""

import re
from datetime import date, datetime

import pytest

from governance.account_usage.access_audit import COLUMNS, DayNotOverError, audit_statements, last_whole_day
from infrastructure.snowflake.account import ENVIRONMENTS
from infrastructure.snowflake.planning import offline_plan
from warehouse.environments import SnowflakeNames

DAY = date(2026, 11, 26)
NOW = datetime(2026, 11, 27, 3, 0)
PERSONAL = {"cur.owners": {"name", "contact_phone"}, "raw.owners": {"payload"}}


def statements(now: datetime = NOW) -> tuple[str, str]:
    return audit_statements(SnowflakeNames("PROD"), PERSONAL, DAY, now)


def test_a_day_replaces_itself():
    emptying, filling = statements()
    assert emptying == "delete from PROD__PETWELLNESS.ops.access_audit where access_date = date '2026-11-26'"
    assert filling.count("date '2026-11-26' as access_date") == 1
    assert "accesses.query_start_time >= to_timestamp_tz('2026-11-26 00:00:00 +0000')" in filling
    assert "accesses.query_start_time < to_timestamp_tz('2026-11-27 00:00:00 +0000')" in filling
    assert statements(datetime(2027, 1, 1)) == (emptying, filling)


def test_a_day_that_account_usage_has_not_whole_is_refused():
    with pytest.raises(DayNotOverError, match=r"2026-11-26 are whole from 2026-11-27 03:00 UTC on"):
        statements(datetime(2026, 11, 27, 2, 59))
    assert last_whole_day(datetime(2026, 11, 27, 2, 59)) == date(2026, 11, 25)
    assert last_whole_day(NOW) == DAY


def test_every_personal_column_is_asked_for_by_its_whole_name_and_no_other():
    asked = re.findall(r"\('([^']+)', '([^']+)'\)", statements()[1])
    assert asked == [
        ("PROD__PETWELLNESS.CUR.OWNERS", "CONTACT_PHONE"),
        ("PROD__PETWELLNESS.CUR.OWNERS", "NAME"),
        ("PROD__PETWELLNESS.RAW.OWNERS", "PAYLOAD"),
    ]


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=lambda one: one.name)
def test_the_account_has_a_table_with_these_columns(environment):
    [table] = [
        one
        for one in offline_plan(environment).suggested
        if re.match(r'CREATE TABLE "[^"]+"\."OPS"\."ACCESS_AUDIT"', one)
    ]
    assert [name.lower() for name in re.findall(r'^ *,? *"([A-Z_]+)" ', table, re.M)] == [*COLUMNS]


def test_operations_may_read_what_the_audit_reads():
    plan = "\n".join(offline_plan(ENVIRONMENTS["prod"]).suggested)
    for role in ("USAGE_VIEWER", "GOVERNANCE_VIEWER", "SECURITY_VIEWER"):
        assert re.search(rf'GRANT DATABASE ROLE "SNOWFLAKE"\."{role}" TO ROLE', plan), role
