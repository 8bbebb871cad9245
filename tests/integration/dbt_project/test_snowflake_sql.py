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
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dbt_results import failed_nodes

from infrastructure.snowflake.account import ENVIRONMENTS
from infrastructure.snowflake.planning import offline_plan
from infrastructure.snowflake.rights import READING, reach, schemas_with

DBT_PROJECT = Path(__file__).resolve().parents[3] / "dbt_project"
DIRTY_DAYS = ["2026-03-01", "2026-03-02", "2026-03-05"]
DEFAULT_WAREHOUSE = "petwellness"
TELEMETRY_WAREHOUSE = "petwellness_telemetry"


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
            "--no-write-json",
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


# What the adapter says in words of its own.
ADAPTERS_OWN = ("show ", "describe ", "begin", "commit", "select current_warehouse()")


def problems_of(statements: Sequence[Statement], snowflake_problems: Any) -> list[str]:
    """What is wrong with them, each text once. Questions for a contract's columns are left out: they hold the text
    of a model, which is in the statement that creates its table, too."""
    once = {
        one.sql: one.node
        for one in statements
        if not is_contract_question(one.sql) and not one.sql.strip().lower().startswith(ADAPTERS_OWN)
    }
    return [
        f"{node}: {problem}: {sql[:80]!r}"
        for sql, node in once.items()
        for problem in snowflake_problems(sql)
    ]


VARIABLES = {"as_of_ts": "2026-03-06 00:00:00", "run_id": "run-1"}


@pytest.fixture(scope="module")
def whole(project) -> list[Statement]:
    """A build from nothing of models and seeds: tests differ from an increment's in the list of days only."""
    without_tests = "--exclude-resource-type unit_test --exclude-resource-type test"
    return project.statements(f"build --full-refresh {without_tests}", False, VARIABLES)


@pytest.fixture(scope="module")
def increment(project) -> list[Statement]:
    """A build of some days, with every table there."""
    return project.statements(
        "build --exclude-resource-type unit_test", True, {**VARIABLES, "dirty_days": DIRTY_DAYS}
    )


# A minute of a quiet core, and the suite does not run on one.
@pytest.mark.timeout(900)
def test_a_build_from_nothing_and_an_increment_are_in_snowflakes_language(
    project, whole, increment, snowflake_problems
):
    nodes = project.manifest.nodes
    sent = {one.node for one in [*whole, *increment]}
    assert {name for name, node in nodes.items() if node.resource_type in ("model", "seed", "test")} <= sent
    # An increment replaces days; a build from nothing does not.
    deletion = "delete from petwellness.stg.telemetry_events"
    assert not [one for one in whole if one.sql.lstrip().startswith(deletion)]
    assert [one for one in increment if one.sql.lstrip().startswith(deletion)]
    # Daily models differ in the list of days only, so the increment's are enough; what creates their
    # tables, with policies and clustering, is in the build from nothing alone.
    others = [
        one
        for one in whole
        if one.node in nodes
        and ("daily" not in nodes[one.node].tags or "policy" in one.sql or "cluster by" in one.sql)
    ]
    assert problems_of([*others, *increment], snowflake_problems) == []


def test_an_increment_asks_each_question_about_loads_once(increment):
    asked = [
        one.sql
        for one in increment
        if one.sql.lstrip().startswith("select")
        and "raw.load_history" in one.sql
        and one.node.startswith("model.")
        and not is_contract_question(one.sql)
    ]
    assert len(asked) > 10
    assert [sql for sql, times in Counter(asked).items() if times > 1] == []


def created(whole: Sequence[Statement]) -> dict[str, str]:
    """By `schema.table`: the statement of a build from nothing that creates it."""
    found = {}
    for one in whole:
        if made := re.match(
            r"\s*create (?:or replace )?(?:transient )?table petwellness\.(\S+)", one.sql, re.IGNORECASE
        ):
            assert made[1] not in found
            found[made[1]] = one.sql
    return found


def tables_of(manifest: Any) -> dict[str, Any]:
    """By `schema.table`: the node that builds it."""
    return {
        f"{node.schema}.{node.alias}": node
        for node in manifest.nodes.values()
        if node.resource_type in ("model", "seed")
    }


# What a node's statements do before they have its tag, and after it is gone.
ABOUT_THE_SESSION = ("alter session set query_tag", "select current_warehouse()", "use warehouse", "show ")


def set_and_asked_before(statements: Sequence[Statement]) -> tuple[list[Statement], list[Statement]]:
    """Statements of nodes, without those about the session: from the moment its node set a tag, and before."""
    tagged, asked_before = [], []
    begun: set[str] = set()
    for one in statements:
        sql = one.sql.strip().lower()
        if sql.startswith("alter session set query_tag"):
            begun.add(one.node)
        elif one.node and not sql.startswith(ABOUT_THE_SESSION):
            (tagged if one.node in begun else asked_before).append(one)
    return tagged, asked_before


def test_statements_carry_run_asset_node_and_target(project, increment):
    from petwellness_orchestration.defs.warehouse.translator import WarehouseTranslator

    nodes = project.manifest.nodes
    keys = WarehouseTranslator()
    tagged, asked_before = set_and_asked_before(increment)
    assert {one.node for one in tagged} == {
        name for name, node in nodes.items() if node.resource_type in ("model", "seed", "test")
    }
    # While dbt compiles a node, macros ask which days and keys it is about: before any tag can be set.
    assert [one.sql for one in asked_before if not one.sql.lstrip().startswith("select")] == []
    for one in tagged:
        node = nodes[one.node]
        built = nodes.get(getattr(node, "attached_node", None) or "", node)
        asset = (
            None if built.resource_type == "test" else keys.get_asset_key(built.to_dict()).to_user_string()
        )
        assert json.loads(one.tag) == {
            "app": "dbt",
            "run": "run-1",
            "asset": asset,
            "node": one.node,
            "target": "snowflake",
        }, one.sql[:200]
    # What no node sends is dbt's, and nobody's run.
    assert {one.tag for one in increment if not one.node} == {'{"app": "dbt"}'}


def test_what_reads_every_event_has_a_warehouse_of_its_own(project, whole, increment):
    nodes = project.manifest.nodes
    for statements in (whole, increment):
        ran = {(one.node, one.warehouse) for one in set_and_asked_before(statements)[0]}
        assert {
            nodes[node].alias if nodes[node].schema != "anl" else f"anl.{nodes[node].alias}"
            for node, warehouse in ran
            if warehouse == TELEMETRY_WAREHOUSE
        } == {
            "telemetry_events",
            "telemetry_duplicates",
            "event_conflicts",
            "anl.telemetry_events",
            "anl.telemetry_summary_hourly",
        }
        assert {warehouse for _, warehouse in ran} == {DEFAULT_WAREHOUSE, TELEMETRY_WAREHOUSE}


def test_what_an_increment_deletes_and_inserts_is_one_transaction(project, increment):
    models = {
        name
        for name, node in project.manifest.nodes.items()
        if getattr(node.config, "incremental_strategy", None) in ("replace_days", "replace_touched")
    }
    assert len(models) > 20
    for model in models:
        said = [one.sql.split()[0].rstrip(";").lower() for one in increment if one.node == model]
        first = said.index("begin")
        assert said[first : first + 4] == ["begin", "delete", "insert", "commit"], model


def test_staging_is_transient_and_nothing_else_is(project, whole):
    transient = {
        name: bool(re.match(r"\s*create (or replace )?transient ", sql))
        for name, sql in created(whole).items()
    }
    assert transient == {name: name.startswith("stg.") for name in tables_of(project.manifest)}


def test_clustering_keys_are_those_of_the_document(whole):
    keys = dict(
        re.findall(r"alter table petwellness\.(\S+) cluster by \((.*)\)", "\n".join(s.sql for s in whole))
    )
    # Its key within each date: increments replace whole dates (docs/decisions/035).
    assert keys["anl.telemetry_events"] == "event_date, pet_id, event_ts"
    assert keys["cur.clinic_visits"] == "clinic_id, cast(visit_ts as date)"


def policies(kind: str) -> dict[str, str]:
    """The account's policies of a kind (`MASKING`, `ROW ACCESS`) in lower case, with the type they take."""
    [production] = [one for one in ENVIRONMENTS.values() if one.is_production]
    return {
        name.lower(): argument.lower()
        for statement in offline_plan(production).suggested
        for name, argument in re.findall(
            rf'CREATE {kind} POLICY "[^"]+"\."GOVERNANCE"\."(\w+)" AS \(\s*"\w+" (\w+)', statement
        )
    }


def readers(schema: str) -> set[str]:
    """Roles that read what a schema holds, in any environment, but dbt's own and the one that may see people's names."""
    return {
        role
        for environment in ENVIRONMENTS.values()
        for role, privileges in reach(offline_plan(environment).suggested).items()
        if schema in schemas_with(privileges, READING)
    } - {"transformer", "data_protection"}


def test_personal_data_is_masked_wherever_others_read(project, whole):
    from petwellness_orchestration.published import is_pii

    assert readers("cur") and readers("anl")
    masks = policies("MASKING")
    statements = created(whole)
    masked = {
        (name, column, mask)
        for name, sql in statements.items()
        for column, mask in re.findall(
            r"^\s*(\w+) \w+ with masking policy governance\.(\w+)", sql, re.MULTILINE
        )
    }
    personal = {
        (name, column.name, column.data_type)
        for name, node in tables_of(project.manifest).items()
        for column in node.columns.values()
        if node.schema in ("cur", "anl", "ml") and is_pii(column.to_dict())
    }
    assert len(personal) >= 7
    assert {(name, column, masks[mask]) for name, column, mask in masked} == personal


def test_policies_are_for_tables_that_stay(increment):
    temporary = [one.sql for one in increment if re.match(r"\s*create or replace temporary", one.sql)]
    assert len(temporary) > 20
    assert [sql for sql in temporary if " policy " in sql] == []
    # A model that is built whole in every run has its own each time.
    assert [one for one in increment if one.node.endswith(".anl_clinic_kpis") and " policy " in one.sql]


def test_the_access_audit_asks_for_every_personal_column(project):
    from petwellness_orchestration.account_usage import personal_columns

    nodes = {name: node.to_dict() for name, node in project.manifest.nodes.items()}
    asked = personal_columns({"nodes": nodes})
    assert asked["cur.owners"] == {"name", "contact_phone", "contact_email", "address", "consent_flags"}
    assert asked["raw.owners"] == asked["cur.owners"] | {"payload"}
    assert asked["cur.pets"] == {"microchip_id"}
    # Nothing that anl or ml keep is a person's.
    assert {table.split(".")[0] for table in asked} == {"raw", "stg", "cur"}


def test_clinics_see_rows_of_tables_with_a_filter_and_nothing_else(project, whole, increment):
    assert policies("ROW ACCESS") == {"own_clinic": "varchar"}
    filtered = {
        name: column[1]
        for name, sql in created(whole).items()
        if (column := re.search(r"\n\) with row access policy governance\.own_clinic on \((\w+)\)", sql))
    }
    # Every table of anl that knows a clinic, by that column.
    assert filtered == {
        name: "clinic_id"
        for name, node in tables_of(project.manifest).items()
        if node.schema == "anl" and "clinic_id" in node.columns
    }
    assert len(filtered) == 10
    for statements in (whole, increment):
        shown = {}
        for one in statements:
            if "petwellness.clinic." in one.sql:
                view = re.fullmatch(
                    r"\s*create or replace secure view petwellness\.clinic\.(\w+) as\s+"
                    r"select ([\w, ]+) from petwellness\.anl\.(\w+)\s*",
                    one.sql,
                )
                assert view, one.sql
                assert view[1] == view[3]
                shown[f"anl.{view[3]}"] = view[2].split(", ")
        nodes = tables_of(project.manifest)
        assert shown == {name: [*nodes[name].columns] for name in filtered}


def test_an_emulator_which_knows_no_policies_is_sent_none(project, monkeypatch):
    monkeypatch.setenv("PETWELLNESS_SNOWFLAKE_ACCOUNT", "fakesnow")
    sent = project.statements("run --full-refresh --select anl_clinic_kpis cur_owners", False, VARIABLES)
    assert {"anl.clinic_kpis", "cur.owners"} == {*created(sent)}
    assert [one.sql for one in sent if "policy" in one.sql or "secure" in one.sql] == []


def test_dropping_a_pull_requests_schema_is_in_snowflakes_language(project, snowflake_problems):
    arguments = json.dumps({"schemas": ["pr_7"], "dry_run": False}, separators=(",", ":"))
    sent = project.statements(f"run-operation drop_schemas --args {arguments}", True, {})
    assert "drop schema if exists petwellness.pr_7 cascade" in {" ".join(one.sql.split()) for one in sent}
    assert problems_of(sent, snowflake_problems) == []


def test_saved_analyses_are_in_snowflakes_language(project, snowflake_problems):
    assert problems_of(project.analyses(), snowflake_problems) == []


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
def test_a_typo_and_another_engines_functions_and_types_are_caught(snowflake_problems, sql, problem):
    assert [one for one in snowflake_problems(sql) if problem in one]


def test_what_is_right_passes(snowflake_problems):
    assert (
        snowflake_problems(
            "select cast(a as double) as a, sha2(b, 256) as b from t qualify row_number() over (order by a) = 1"
        )
        == []
    )
