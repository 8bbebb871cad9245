"""What fakesnow 0.12 lacks or answers otherwise than Snowflake, put around it at start.

Each function is one difference and says what Snowflake does. Nothing here is known
to fakesnow's authors as broken: it is what dbt, the loader and this project's SQL ask
for beyond what it was made for. Runs in the emulator's environment only.
"""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Callable
from typing import Any

import duckdb
import fakesnow.arrow
import fakesnow.copy_into
import fakesnow.rowtype
import fakesnow.server
import fakesnow.transforms as transforms
import pyarrow as pa
import pyarrow.compute as pc
import snowflake.connector.errors as errors
from fakesnow.cursor import FakeSnowflakeCursor
from sqlglot import Expr, exp, parse_one

logger = logging.getLogger("fakesnow.server")

# Statements about the account that nothing here depends on: taken down and answered with success.
acknowledged: list[str] = []

_ACCOUNT_OBJECTS = (
    "resource monitor", "warehouse", "role", "database role", "user", "masking policy", "row access policy",
    "network policy", "storage integration", "notification integration", "integration", "pipe", "task", "alert",
)  # fmt: skip
_ACCOUNT_STATEMENT = re.compile(
    r"\s*(?:(?:create(?:\s+or\s+replace)?|alter|drop|comment\s+on)\s+(?:account|"
    + "|".join(name.replace(" ", r"\s+") for name in _ACCOUNT_OBJECTS)
    + r")\b|(?:grant|revoke)\b|comment\s+on\s+(?:file\s+format|stage|schema|database)\b"
    + r"|alter\s+(?:database|schema|stage|file\s+format)\b|alter\s+session\s+(?:un)?set\s+(?!autocommit)"
    + r"|alter\s+(?:table|view)\s+\S+\s+(?:(?:modify|alter)\s+column\s+\S+\s+(?:un)?set\s+(?:masking|tag)"
    + r"|(?:add|drop)\s+row\s+access|(?:un)?set\s+(?:data_retention|tag)))",
    re.IGNORECASE,
)
_SUCCESS = "select 'Statement executed successfully.' as status"


def install() -> None:
    """Put every patch in place, once, before the server starts."""
    for patch in (
        _programming_errors,
        _account_statements,
        _containers_without_options,
        _rewrite_statements,
        _one_warehouse,
        _plain_temporary_tables,
        _keys_are_not_enforced,
        _native_merge,
        _declared_columns,
        _exact_numbers,
        _hexadecimal_numbers,
        _bit_functions_bind,
        _plain_casts_to_timestamp,
        _null_timestamps,
        _parsed_json,
        _copy_of_missing_columns,
        _every_type_described,
        _answers_described_as_they_are,
    ):
        patch()


def _programming_errors() -> None:
    """An error of the engine is the statement's, not the server's: the connector repeats a 500 for minutes."""
    original = FakeSnowflakeCursor.execute

    @functools.wraps(original)
    def execute(self: FakeSnowflakeCursor, command: str, *args: Any, **kwargs: Any) -> FakeSnowflakeCursor:
        try:
            return original(self, command, *args, **kwargs)
        except (errors.ProgrammingError, errors.OperationalError):
            raise
        except Exception as error:
            logger.info("refused: %s", command, exc_info=error)
            message = f"{type(error).__name__}: {error}"
            raise errors.ProgrammingError(msg=message, errno=99999, sqlstate="XX000") from error

    FakeSnowflakeCursor.execute = execute
    # Before a statement runs it is parsed, and afterwards its result has to be put into Snowflake's types.
    for name in ("parse_one", "describe_as_rowtype"):
        refusing = _refusing(
            getattr(fakesnow.server, name),
            lambda message: errors.ProgrammingError(msg=message, errno=99999, sqlstate="XX000"),
        )
        setattr(fakesnow.server, name, refusing)
    fakesnow.server.to_sf = _refusing(
        fakesnow.server.to_sf, lambda message: fakesnow.server.ServerError(200, "099999", message)
    )


def _refusing(function: Callable[..., Any], refusal: Callable[[str], Exception]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except errors.Error:
            raise
        except Exception as error:
            logger.info("cannot be answered", exc_info=error)
            raise refusal(f"{type(error).__name__}: {error}") from error

    return call


def _account_statements() -> None:
    """DDL of the account, grants and session parameters: success, and nothing of their effect."""
    original = FakeSnowflakeCursor.execute

    @functools.wraps(original)
    def execute(self: FakeSnowflakeCursor, command: str, *args: Any, **kwargs: Any) -> FakeSnowflakeCursor:
        if not _ACCOUNT_STATEMENT.match(command):
            return original(self, command, *args, **kwargs)
        acknowledged.append(command)
        return original(self, _SUCCESS, server=kwargs.get("server", False))

    FakeSnowflakeCursor.execute = execute
    # The server parses a statement itself, to say of what kind it is.
    parse = fakesnow.server.parse_one
    fakesnow.server.parse_one = lambda command: parse(
        _SUCCESS if _ACCOUNT_STATEMENT.match(command) else command
    )


def _containers_without_options() -> None:
    """Databases and schemas are made without their options (managed access, retention, transience)."""
    original = FakeSnowflakeCursor.execute
    created = re.compile(
        r"\s*create(\s+or\s+replace)?\s+(?:transient\s+)?(database|schema)(\s+if\s+not\s+exists)?\s+"
        r'((?:"[^"]+"|\w+)(?:\.(?:"[^"]+"|\w+))?)',
        re.IGNORECASE,
    )

    @functools.wraps(original)
    def execute(self: FakeSnowflakeCursor, command: str, *args: Any, **kwargs: Any) -> FakeSnowflakeCursor:
        if found := created.match(command):
            command = f"create{found[1] or ''} {found[2]}{found[3] or ''} {found[4]}"
        return original(self, command, *args, **kwargs)

    FakeSnowflakeCursor.execute = execute


# Rewrites of single nodes, which patches add.
_rewrites: list[Callable[[Expr], Expr]] = []


def _rewrite_statements() -> None:
    """Apply our rewrites to every node of a statement, in one pass, before fakesnow applies its own."""
    original = FakeSnowflakeCursor._transform

    def rewrite(node: Expr) -> Expr:
        for one in _rewrites:
            node = one(node)
        return node

    @functools.wraps(original)
    def transform(self: FakeSnowflakeCursor, expression: Expr, params: Any) -> Expr:
        return original(self, expression.transform(rewrite, copy=False), params)

    FakeSnowflakeCursor._transform = transform


def _one_warehouse() -> None:
    """CURRENT_WAREHOUSE, which dbt asks for before a model that has its own: there is one here, whatever is used."""

    def rewrite(node: Expr) -> Expr:
        return exp.Literal.string("EMULATOR_WH") if isinstance(node, exp.CurrentWarehouse) else node

    _rewrites.append(rewrite)


def _plain_temporary_tables() -> None:
    """Temporary tables live in any schema on Snowflake and in one of their own in DuckDB: here they stay."""

    def rewrite(node: Expr) -> Expr:
        if isinstance(node, exp.Create) and node.kind in ("TABLE", "VIEW"):
            for found in list(node.find_all(exp.TemporaryProperty, exp.TransientProperty)):
                found.pop()
        return node

    _rewrites.append(rewrite)


def _keys_are_not_enforced() -> None:
    """Snowflake keeps primary, unique and foreign keys as a note, and enforces NOT NULL alone."""
    kinds = (exp.PrimaryKeyColumnConstraint, exp.UniqueColumnConstraint, exp.Reference)
    tables = (exp.PrimaryKey, exp.ForeignKey, exp.UniqueColumnConstraint, exp.Constraint)

    def rewrite(node: Expr) -> Expr:
        if isinstance(node, exp.ColumnDef):
            node.set(
                "constraints",
                [one for one in node.args.get("constraints") or [] if not isinstance(one.kind, kinds)],
            )
        elif isinstance(node, exp.Schema) and isinstance(node.parent, exp.Create):
            node.set("expressions", [one for one in node.expressions if not isinstance(one, tables)])
        return node

    _rewrites.append(rewrite)


def _native_merge() -> None:
    """MERGE as DuckDB has it: fakesnow's own takes no expressions of several tables, as dbt writes them."""
    transforms.merge = lambda expression: [expression]
    original = FakeSnowflakeCursor._execute

    @functools.wraps(original)
    def execute(self: FakeSnowflakeCursor, transformed: Expr, params: Any = None) -> None:
        if not isinstance(transformed, exp.Merge):
            original(self, transformed, params)
            return
        kinds = [_merge_action(when) for when in transformed.args["whens"].expressions]
        for when in transformed.args["whens"].expressions:
            _unqualify_targets(when)
        try:
            rows = self._duck_conn.execute(
                f"{transformed.sql(dialect='duckdb')} returning merge_action", params
            ).fetchall()
        except duckdb.Error as error:
            raise errors.ProgrammingError(msg=str(error), errno=2043, sqlstate="02000") from error
        actions = [action for (action,) in rows]
        counts = ", ".join(
            f'{actions.count(kind)} as "number of rows {said}"'
            for kind, said in (("INSERT", "inserted"), ("UPDATE", "updated"), ("DELETE", "deleted"))
            if kind in kinds
        )
        result = parse_one(f"select {counts}", read="duckdb")
        result.set("merge_counts", True)
        original(self, result)

    FakeSnowflakeCursor._execute = execute


def _merge_action(when: Expr) -> str:
    then = when.args["then"]
    return "DELETE" if isinstance(then, exp.Var) else then.key.upper()


def _unqualify_targets(when: Expr) -> None:
    """DuckDB names the target's columns alone where they are set or inserted."""
    then = when.args["then"]
    targets = (
        [one.this for one in then.expressions]
        if isinstance(then, exp.Update)
        else then.this.expressions
        if isinstance(then, exp.Insert) and then.this
        else []
    )
    for column in targets:
        if isinstance(column, exp.Column):
            column.set("table", None)


def _declared_columns() -> None:
    """CREATE TABLE with columns and AS SELECT casts by position and holds NOT NULL, for any query."""
    transforms.create_table_as = lambda expression, _: expression
    original = FakeSnowflakeCursor._transform_explode

    @functools.wraps(original)
    def explode(self: FakeSnowflakeCursor, expression: Expr) -> list[Expr]:
        if not (
            isinstance(expression, exp.Create)
            and expression.kind == "TABLE"
            and isinstance(expression.this, exp.Schema)
            and expression.expression
        ):
            return original(self, expression)
        table, columns = expression.this.this, expression.this.expressions
        given = exp.TableAlias(this=exp.to_identifier("given"), columns=[one.this.copy() for one in columns])
        query = expression.expression
        rows = query.this if isinstance(query, exp.Subquery) else query
        casts = [
            exp.alias_(exp.cast(exp.column(one.this.copy()), one.kind), one.this.copy()) for one in columns
        ]
        created = expression.copy()
        created.set("this", table.copy())
        created.set("expression", exp.select(*casts).from_(exp.Subquery(this=rows.copy(), alias=given)))
        required = [
            parse_one(
                f"alter table {table.sql('snowflake')} alter column {one.this.sql('snowflake')} set not null",
                read="snowflake",
            )
            for one in columns
            if one.find(exp.NotNullColumnConstraint)
        ]
        return [created, *required]

    FakeSnowflakeCursor._transform_explode = explode


def _exact_numbers() -> None:
    """Sums of NUMBER are NUMBER: fakesnow casts to double, and NUMBER(38, 0) to 64 bits."""
    transforms.numeric_agg_implicit_cast = lambda expression: expression
    integers = (exp.DataType.Type.INT, exp.DataType.Type.SMALLINT, exp.DataType.Type.TINYINT)

    def integer_precision(expression: Expr) -> Expr:
        if isinstance(expression, exp.DataType):
            if expression.this in integers:
                return exp.DataType.build("bigint")
            if expression.this == exp.DataType.Type.DECIMAL and not expression.expressions:
                return exp.DataType.build("decimal(38, 0)")
        return expression

    transforms.integer_precision = integer_precision


def _hexadecimal_numbers() -> None:
    """TO_NUMBER and TO_CHAR with a format of X, which fakesnow refuses."""

    def is_hexadecimal(node: Any) -> bool:
        return isinstance(node, exp.Literal) and bool(re.fullmatch("(FM)?X+", node.name, re.IGNORECASE))

    def rewrite(node: Expr) -> Expr:
        if isinstance(node, exp.ToNumber) and is_hexadecimal(node.args.get("format")):
            digits = exp.DPipe(this=exp.Literal.string("0x"), expression=node.this)
            return exp.cast(exp.cast(exp.paren(digits), exp.DataType.Type.UBIGINT), "decimal(38, 0)")
        if isinstance(node, exp.ToChar) and is_hexadecimal(node.args.get("format")):
            # Blanks before the digits as there; who counts digits does not see them.
            return exp.Anonymous(
                this="printf",
                expressions=[exp.Literal.string(f"%{len(node.args['format'].name) + 1}X"), node.this],
            )
        return node

    _rewrites.append(rewrite)


def _bit_functions_bind() -> None:
    """BITAND(a, b) - c is a difference: as an operator without parentheses it would be a & (b - c)."""
    bits = (exp.BitwiseAnd, exp.BitwiseOr, exp.BitwiseXor, exp.BitwiseLeftShift, exp.BitwiseRightShift)

    def rewrite(node: Expr) -> Expr:
        if isinstance(node, exp.Binary | exp.Unary) and not isinstance(node, exp.Paren):
            for place in ("this", "expression"):
                if isinstance(operand := node.args.get(place), bits):
                    node.set(place, exp.Paren(this=operand))
        return node

    _rewrites.append(rewrite)


def _plain_casts_to_timestamp() -> None:
    """TRY_CAST keeps its kindness, and a cast of a text costs no branch: fakesnow reads integers in both."""
    original = transforms.to_timestamp

    def to_timestamp(expression: Expr) -> Expr:
        return expression if isinstance(expression, exp.Cast) else original(expression)

    transforms.to_timestamp = to_timestamp


def _null_timestamps() -> None:
    """A null timestamp arrives as null, not as 1970."""

    def struct_of(ts: pa.Array | pa.ChunkedArray) -> pa.Array:
        if isinstance(ts, pa.ChunkedArray):
            ts = ts.combine_chunks()
        us = pc.fill_null(ts.cast(pa.timestamp("us", ts.type.tz)).cast(pa.int64()), 0)
        seconds = pc.divide(us, 1_000_000)
        left = pc.subtract(us, pc.multiply(seconds, 1_000_000))
        # Before 1970, too, the fraction counts upwards from the second before.
        is_before = pc.less(left, 0)
        seconds = pc.if_else(is_before, pc.subtract(seconds, 1), seconds)
        left = pc.if_else(is_before, pc.add(left, 1_000_000), left)
        fraction = pc.multiply(left, 1000).cast(pa.int32())
        arrays, names = [seconds, fraction], ["epoch", "fraction"]
        if ts.type.tz:
            arrays.append(pa.array([1440] * len(ts), pa.int32()))
            names.append("timezone")
        fields = [pa.field(name, one.type, nullable=False) for name, one in zip(names, arrays, strict=True)]
        return pa.StructArray.from_arrays(arrays, fields=fields, mask=pc.is_null(ts))

    fakesnow.arrow.timestamp_to_sf_struct = struct_of


def _canonical_json(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _parsed_json() -> None:
    """PARSE_JSON gives a value: what TO_JSON makes of it has its keys in order and no blanks."""
    fakesnow.server.shared_fs.duck_conn.create_function(
        "_fs_canonical_json", _canonical_json, ["VARCHAR"], "VARCHAR"
    )

    def rewrite(node: Expr) -> Expr:
        if isinstance(node, exp.ParseJSON):
            text = exp.Anonymous(this="_fs_canonical_json", expressions=[exp.cast(node.this, "varchar")])
            return exp.cast(text, "json")
        return node

    _rewrites.append(rewrite)


def _copy_of_missing_columns() -> None:
    """`$1:name` of a Parquet file that has no such column is null."""
    original = fakesnow.copy_into._inserts

    def inserts(expr: Any, params: Any, urls: list[str], parquet_info: Any = None) -> list[Expr]:
        found = original(expr, params, urls, parquet_info)
        if not isinstance(expr.args["files"][0], exp.Subquery):
            return found
        for insert, url in zip(found, urls, strict=True):
            identifiers = {one.name for one in insert.expression.find_all(exp.Identifier)} - {""}
            # What a file does not have is null; what Snowflake knows of it is not to be had.
            names = {name for name in identifiers if not name.upper().startswith("METADATA$")}
            nulls = ", ".join(f'null as "{name}"' for name in sorted(names))
            read = params.file_format.read_expression(url).sql(dialect="duckdb")
            rows = f"select {nulls} where false union all by name select * from {read}"
            source = parse_one(f"select * from ({rows}) as landed", read="duckdb")
            insert.expression.set("from_", source.args["from_"])
        return found

    fakesnow.copy_into._inserts = inserts


def _every_type_described() -> None:
    """Types that DuckDB computes with and Snowflake has no name for are numbers, or text."""
    fakesnow.rowtype.duckdb_to_sf_type |= {
        **dict.fromkeys(("TINYINT", "SMALLINT", "UTINYINT", "USMALLINT", "UINTEGER", "UHUGEINT"), "fixed"),
        "FLOAT": "real",
        "TIMESTAMP_S": "timestamp_ntz",
        "TIMESTAMP_MS": "timestamp_ntz",
    }


def _answers_described_as_they_are() -> None:
    """What a statement that is no query answers is described by itself: fakesnow sends DuckDB a second statement."""
    original = FakeSnowflakeCursor._describe_last_sql
    kinds = (
        exp.Create, exp.Insert, exp.Update, exp.Delete, exp.Drop, exp.Alter, exp.Transaction, exp.Commit, exp.Rollback,
    )  # fmt: skip
    types = {pa.string(): "VARCHAR", pa.int32(): "INTEGER", pa.int64(): "BIGINT"}

    def describe(self: FakeSnowflakeCursor) -> list[Any]:
        schema = None if self._arrow_table is None else self._arrow_table.schema
        if schema is None or not isinstance(self._last_transformed, kinds):
            return original(self)
        if any(field.type not in types for field in schema):
            return original(self)
        return [(field.name, types[field.type], "YES", None, None, None) for field in schema]

    FakeSnowflakeCursor._describe_last_sql = describe
