"""What is asked of account usage, what fills the access audit, and what runbooks say to type, is Snowflake's language.

Parsed by sqlfluff, functions held to Snowflake's list; nothing is executed.
"""

import re
from datetime import date, datetime
from pathlib import Path

import pytest

from governance.account_usage import questions
from governance.account_usage.access_audit import audit_statements
from warehouse.environments import SnowflakeNames

RUNBOOKS = Path(__file__).resolve().parents[4] / "docs" / "runbooks"
NAMES = SnowflakeNames("PROD")
FIRST, LAST = date(2026, 11, 20), date(2026, 11, 26)
PERSONAL = {"cur.owners": {"name", "address"}, "raw.owners": {"payload"}}

# Functions that people type and no model may use, as Snowflake's documentation names them.
ONLY_BY_HAND = {
    f"unknown function {name}"
    for name in (
        "current_timestamp",
        "prod__petwellness.information_schema.policy_references",
        "prod__petwellness.information_schema.query_history",
        "system$cancel_query",
        "system$pipe_status",
        "table",
        "try_parse_json",
    )
}

STATEMENTS = {
    "metered": questions.metered_sql(NAMES, FIRST, LAST),
    "statement costs": questions.statement_costs_sql(NAMES, FIRST, LAST),
    "statement runs": questions.statement_runs_sql(NAMES, FIRST, LAST),
    "services": questions.services_sql(NAMES, FIRST, LAST),
    "storage": questions.storage_sql(NAMES),
    **dict(
        zip(
            ("emptying the audit", "filling the audit"),
            audit_statements(NAMES, PERSONAL, LAST, datetime(2026, 12, 1)),
            strict=True,
        )
    ),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_statements_are_snowflakes_language(name: str, snowflake_problems) -> None:
    assert snowflake_problems(STATEMENTS[name]) == []


def blocks(page: str) -> list[str]:
    return [
        re.sub(r"^ {3}", "", block, flags=re.MULTILINE) if indent else block
        for indent, block in re.findall(
            r"^( *)```sql\n(.*?)^ *```", (RUNBOOKS / page).read_text(), re.M | re.S
        )
    ]


@pytest.mark.parametrize(("page", "count"), [("time-travel.md", 7), ("costs.md", 2)])
def test_runbooks_are_snowflakes_language(page: str, count: int, snowflake_problems) -> None:
    found = blocks(page)
    assert len(found) == count
    assert {
        block: wrong
        for block in found
        if (wrong := [one for one in snowflake_problems(block) if one not in ONLY_BY_HAND])
    } == {}


def test_a_typo_in_a_runbook_is_caught(snowflake_problems) -> None:
    [clone, *_] = blocks("time-travel.md")
    assert snowflake_problems(clone.replace("before (statement =>", "befor (statement =>"))
