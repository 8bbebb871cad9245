"""The project for Snowflake, without an account: every statement dbt would send parses.

dbt builds target snowflake for real, with Snowflake's own adapter, over a
connection that executes nothing: it writes each statement down and answers
questions about tables from the manifest. Each statement is then parsed in
sqlfluff's Snowflake dialect, which knows Snowflake's types, and the functions it
names are held to a list from Snowflake's documentation: no parser knows those.

What this shows is that the SQL is Snowflake's language. What it means there
(and whether both engines give the same rows) is for a run against Snowflake.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dbt_results import failed_nodes

DBT_PROJECT = Path(__file__).resolve().parents[3] / "dbt_project"
DIRTY_DAYS = ["2026-03-01", "2026-03-02", "2026-03-05"]
DEFAULT_WAREHOUSE = "petwellness"
TELEMETRY_WAREHOUSE = "petwellness_telemetry"

FUNCTIONS = frozenset(
    line
    for line in Path(__file__).with_name("snowflake_functions.txt").read_text().splitlines()
    if not line.startswith("#")
)


@dataclass(frozen=True)
class Statement:
    """One statement that dbt sent, the node it was for (empty: none), and the session's tag and warehouse."""

    node: str
    sql: str
    tag: str = ""
    warehouse: str = ""


@dataclass
class Account:
    """Stands where Snowflake would: knows what tables there are, executes nothing.

    With `built` every model and seed is there already, so that incremental
    models build an increment.
    """

    manifest: Any
    built: bool
    statements: list[Statement] = field(default_factory=list)

    def connect(self, warehouse: str, session_parameters: Mapping[str, str], **_: Any) -> "Connection":
        return Connection(self, session_parameters["QUERY_TAG"], warehouse)

    def columns_of(self, node_id: str) -> list[tuple[str, str]]:
        """Names and types that a node's YAML states."""
        node = self.manifest.nodes.get(node_id)
        return [(column.name.upper(), column.data_type or "varchar") for column in node.columns.values()]

    def node_of_table(self, name: str) -> str:
        """The node behind `database.schema.table`, which may be dbt's temporary table for it."""
        _, schema, table = name.lower().replace('"', "").split(".")
        for node_id, node in self.manifest.nodes.items():
            if (node.schema, node.alias) == (schema, table.removesuffix("__dbt_tmp")):
                return node_id
        raise LookupError(f"no node builds {name}")

    def answer(self, node_id: str, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and rows for one statement."""
        text = " ".join(sql.lower().split())
        if text.startswith("show terse schemas"):
            return ["name"], []
        if text.startswith("show objects in"):
            schema = text.split()[3].split(".")[1]
            names = ["database_name", "schema_name", "name", "kind", "is_dynamic", "is_iceberg"]
            return names, [
                (node.database.upper(), node.schema.upper(), node.alias.upper(), "TABLE", "N", "N")
                for node in self.manifest.nodes.values()
                if self.built and node.resource_type in ("model", "seed") and node.schema == schema
            ]
        if text.startswith("select current_warehouse()"):
            return ["WAREHOUSE"], [(DEFAULT_WAREHOUSE,)]
        if text.startswith("show user functions"):
            return ["catalog_name", "schema_name", "name", "is_builtin"], []
        if text.startswith("describe table"):
            return ["name", "type"], self.columns_of(self.node_of_table(text.split()[2]))
        if is_contract_question(sql):
            return [name for name, _ in self.columns_of(node_id)], []
        if "as should_error" in text:  # a test: how many rows failed?
            return ["FAILURES", "SHOULD_WARN", "SHOULD_ERROR"], [(0, False, False)]
        # Whatever else a macro asks, the answer is one row; that nothing is in cold storage is none.
        names = selected_names(text)
        row = tuple("2026-03-03" if name.endswith("date") else 1 for name in names)
        return names, [] if "cold_days" in text else [row]


@dataclass
class Connection:
    """A session, with what its statements are tagged with and where they run."""

    account: Account
    tag: str
    warehouse: str
    session_id: int = 1

    def cursor(self) -> "Cursor":
        return Cursor(self.account, self)

    def close(self) -> None: ...


@dataclass
class Cursor:
    """A cursor as dbt's adapter uses one."""

    account: Account
    session: Connection
    sqlstate: str | None = None
    sfqid: str = "none"
    stats: None = None
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    description: list[tuple[str, int]] = field(default_factory=list)

    @property
    def rowcount(self) -> int:
        return len(self.rows)

    def execute(self, sql: str, bindings: Sequence[Any] | None = None) -> None:
        # dbt's comment says which node it works for; some statements get it twice.
        body, *comments = re.split(r"\s*/\* (\{\"app\": \"dbt\".*?\}) \*/;?", sql)
        node = json.loads(comments[0]).get("node_id", "")
        text = body % tuple(map(literal, bindings)) if bindings else body
        self.account.statements.append(Statement(node, text, self.session.tag, self.session.warehouse))
        if tag := re.fullmatch(r"\s*alter session set query_tag = '(.*)'\s*", body):
            self.session.tag = tag[1].replace("''", "'")
        if warehouse := re.fullmatch(r"\s*use warehouse (\S+)\s*", body):
            self.session.warehouse = warehouse[1]
        names, self.rows = self.account.answer(node, body)
        text = 2  # the connector's number for it
        self.description = [(name, text) for name in names]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.rows

    def fetchmany(self, size: int) -> list[tuple[Any, ...]]:
        return self.rows[:size]

    def fetchone(self) -> tuple[Any, ...] | None:
        return self.rows[0] if self.rows else None


def is_contract_question(sql: str) -> bool:
    """Whether dbt asks which columns a query has."""
    return " ".join(sql.lower().split()).endswith("where false limit 0")


def selected_names(query: str) -> list[str]:
    """The names of a query's columns: the last word of each, up to the first `from` outside brackets."""
    names, depth, item = [], 0, ""
    for token in re.findall(r"[()]|,|[^\s(),]+|\s+", query.removeprefix("select ").removeprefix("distinct ")):
        depth += (token == "(") - (token == ")")
        if depth == 0 and token == "from":
            break
        if depth == 0 and token == ",":
            names, item = [*names, item], ""
        else:
            item += token
    return [re.split(r"[\s.]", name.strip())[-1] for name in [*names, item]]


def literal(value: Any) -> str:
    """A bound value as the connector writes it into the statement."""
    if value is None:
        return "null"
    return str(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "''") + "'"


class SnowflakeProject:
    """dbt on target snowflake, over an Account."""

    def __init__(self, folder: Path) -> None:
        self.arguments = [
            *("--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT), "--target", "snowflake"),
            *("--target-path", str(folder / "target"), "--log-path", str(folder / "logs"), "--quiet"),
        ]
        self.manifest = self._succeeded(self._runner().invoke(["parse", *self.arguments]))

    def statements(self, command: str, built: bool, variables: Mapping[str, Any]) -> list[Statement]:
        """Everything that `dbt <command>` sends; `built` says whether the tables are there already."""
        import snowflake.connector

        account = Account(self.manifest, built)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(snowflake.connector, "connect", account.connect)
            self._succeeded(
                self._runner(self.manifest).invoke(
                    [*command.split(), *self.arguments, "--vars", json.dumps(variables)]
                )
            )
        return account.statements

    def analyses(self) -> list[Statement]:
        """The saved analyses, compiled; dbt never sends them."""
        import snowflake.connector

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(snowflake.connector, "connect", Account(self.manifest, built=True).connect)
            compiled = self._succeeded(
                self._runner(self.manifest).invoke(
                    ["compile", "--select", "resource_type:analysis", *self.arguments]
                )
            )
        return [Statement(item.node.unique_id, item.node.compiled_code) for item in compiled.results]

    @staticmethod
    def _runner(manifest: Any = None) -> Any:
        from dbt.cli.main import dbtRunner

        return dbtRunner(manifest=manifest)

    @staticmethod
    def _succeeded(outcome: Any) -> Any:
        problems = failed_nodes(outcome)
        assert outcome.exception is None
        assert not problems, problems
        return outcome.result


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Iterator[SnowflakeProject]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ACCOUNT", "USER", "ROLE", "WAREHOUSE", "DATABASE"):
            patch.setenv(f"PETWELLNESS_SNOWFLAKE_{name}", DEFAULT_WAREHOUSE)
        patch.setenv("PETWELLNESS_SNOWFLAKE_TELEMETRY_WAREHOUSE", TELEMETRY_WAREHOUSE)
        patch.setenv("PETWELLNESS_DBT_THREADS", "1")
        yield SnowflakeProject(tmp_path_factory.mktemp("snowflake"))


@pytest.fixture(scope="module")
def parse():
    """From SQL to what is wrong with it as Snowflake's."""
    from sqlfluff.core import FluffConfig, Linter

    linter = Linter(
        config=FluffConfig(
            overrides={"dialect": "snowflake", "templater": "raw", "large_file_skip_byte_limit": 0}
        )
    )

    def problems(sql: str) -> list[str]:
        parsed = linter.parse_string(sql)
        found = [f"{error.desc()} (line {error.line_no})" for error in parsed.violations]
        if parsed.tree is None:
            return found

        named = {one.raw.lower() for one in parsed.tree.recursive_crawl("function_name", "bare_function")}
        found += [f"unknown function {name}" for name in sorted(named - FUNCTIONS)]
        # Snowflake takes `interval '1 day'` only; the parser lets `interval 1 day` pass.
        found += ["interval without quotes" for _ in re.finditer(r"\binterval\s+[^'\s]", sql, re.IGNORECASE)]
        return found

    return problems


# What the adapter says in words of its own.
ADAPTERS_OWN = ("show ", "describe ", "begin", "commit")


def problems_of(statements: Sequence[Statement], parse: Any) -> list[str]:
    """What is wrong with them, each text once. Questions for a contract's columns are left out: they hold the text
    of a model, which is in the statement that creates its table, too."""
    once = {
        one.sql: one.node
        for one in statements
        if not is_contract_question(one.sql) and not one.sql.strip().lower().startswith(ADAPTERS_OWN)
    }
    return [f"{node}: {problem}: {sql[:80]!r}" for sql, node in once.items() for problem in parse(sql)]


# A minute of a quiet core, and the suite does not run on one.
@pytest.mark.timeout(900)
def test_a_build_from_nothing_and_an_increment_are_in_snowflakes_language(project, parse):
    variables = {"as_of_ts": "2026-03-06 00:00:00"}
    whole = project.statements("build --full-refresh --exclude-resource-type unit_test", False, variables)
    increment = project.statements(
        "build --exclude-resource-type unit_test", True, {**variables, "dirty_days": DIRTY_DAYS}
    )
    nodes = project.manifest.nodes
    sent = {one.node for one in [*whole, *increment]}
    assert {name for name, node in nodes.items() if node.resource_type in ("model", "seed", "test")} <= sent
    # An increment replaces days; a build from nothing does not.
    deletion = "delete from petwellness.stg.telemetry_events"
    assert not [one for one in whole if one.sql.lstrip().startswith(deletion)]
    assert [one for one in increment if one.sql.lstrip().startswith(deletion)]
    # Daily models and tests differ in the list of days only, so the increment's are enough.
    others = [
        one
        for one in whole
        if one.node in nodes
        and nodes[one.node].resource_type != "test"
        and "daily" not in nodes[one.node].tags
    ]
    assert problems_of([*others, *increment], parse) == []


def test_saved_analyses_are_in_snowflakes_language(project, parse):
    assert problems_of(project.analyses(), parse) == []


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("select a form t", "unparsable"),
        ("select epoch_us(a) as a from t", "unknown function epoch_us"),
        ("select list_transform(a, x -> x + 1) as a from t", "unknown function list_transform"),
        ("select cast(a as ubigint) as a from t", "unparsable"),
        ("create table t (a json)", "unparsable"),
        ("select a from range(10) as t (a)", "unknown function range"),
        ("select current_timestamp() as a from t", "unknown function current_timestamp"),
        ("select current_timestamp as a from t", "unknown function current_timestamp"),
        ("select a - interval 1 microsecond as a from t", "interval without quotes"),
    ],
)
def test_a_typo_and_another_engines_functions_and_types_are_caught(parse, sql, problem):
    assert [one for one in parse(sql) if problem in one]


def test_what_is_right_passes(parse):
    assert (
        parse(
            "select cast(a as double) as a, sha2(b, 256) as b from t qualify row_number() over (order by a) = 1"
        )
        == []
    )
