"""Every statement of the Snowflake account's plans, and of what comes before them, is Snowflake's language.

Parsed by sqlfluff, which rejects what it does not know; nothing is executed. What
sqlfluff cannot read although Snowflake can is listed with the form that it reads,
and a test says when the list is too long.
"""

import re
from collections.abc import Callable
from typing import Any

import pytest

from infrastructure.snowflake.account import ENVIRONMENTS, FOLDER

Problems = Callable[[str], list[str]]

# By the beginning of a statement: the form of it that sqlfluff reads.
UNREAD: dict[str, Callable[[str], str]] = {
    # Its grammar wants a word that may be left out, and no quotes where there may be some.
    "CREATE RESOURCE MONITOR": lambda sql: re.sub(
        r"FREQUENCY = '(\w+)'", r"FREQUENCY = \1", re.sub(r'(MONITOR "[^"]+")', r"\1 WITH", sql, count=1)
    ),
    # It has no grammar for these: the condition is read as one.
    "CREATE ROW ACCESS POLICY": lambda sql: (
        "select 1 from petwellness.raw.pets where "
        + sql.split("RETURNS BOOLEAN ->")[1].split("\nCOMMENT =")[0]
    ),
}


@pytest.fixture(scope="module")
def problems() -> Problems:
    from sqlfluff.core import FluffConfig, Linter

    settings: dict[str, Any] = {"dialect": "snowflake", "templater": "raw", "large_file_skip_byte_limit": 0}
    linter = Linter(config=FluffConfig(overrides=settings))

    def of(sql: str) -> list[str]:
        return [
            f"{error.desc()} (line {error.line_no})" for error in linter.parse_string(f"{sql};\n").violations
        ]

    return of


def statements() -> list[str]:
    """Those of production, and what differs elsewhere."""
    return [
        statement
        for environment in ENVIRONMENTS.values()
        for statement in without_comments(environment.plan_file.read_text()).split(";\n\n")
        if statement.strip()
    ]


def without_comments(text: str) -> str:
    return "".join(
        line for line in text.lstrip().splitlines(keepends=True) if not line.startswith("--")
    ).lstrip()


def beginning(statement: str) -> str | None:
    return next((start for start in UNREAD if statement.startswith(start)), None)


def test_plans_are_snowflakes_language(problems: Problems) -> None:
    wrong = {}
    for statement in statements():
        start = beginning(statement)
        if found := problems(UNREAD[start](statement) if start else statement):
            wrong[statement] = found
    assert len(statements()) > 400
    assert wrong == {}


@pytest.mark.parametrize("start", UNREAD)
def test_what_the_parser_does_not_read_is_no_longer_than_it_must_be(start: str, problems: Problems) -> None:
    [statement, *_] = [one for one in statements() if one.startswith(start)]
    assert problems(statement), f"sqlfluff reads {start}: take it out of UNREAD"


def test_a_typing_error_is_found(problems: Problems) -> None:
    [statement, *_] = [one for one in statements() if one.startswith("CREATE WAREHOUSE")]
    assert problems(statement.replace("AUTO_SUSPEND", "AUTO_SUSPENT"))


def test_the_bootstrap_is_snowflakes_language(problems: Problems) -> None:
    script = without_comments((FOLDER / "bootstrap.sql").read_text())
    found = {one.strip(): problems(one.strip()) for one in script.split(";") if one.strip()}
    assert len(found) > 15
    assert {statement: wrong for statement, wrong in found.items() if wrong} == {}
