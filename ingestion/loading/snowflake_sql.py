"""How a landed Parquet file becomes rows of `raw` on Snowflake: types, and what COPY INTO selects.

Plain text from the contract. Who runs it (pipes, the loader) and the objects it
names live elsewhere (`infrastructure.snowflake`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestion.contracts.columns import JSON_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa


def snowflake_type(field: pa.Field) -> str:
    """Snowflake type that holds a column's values exactly, with every default spelled out so that it can be
    compared with what an account says. Raises KeyError for a type no table of raw has."""
    import pyarrow as pa

    kind = field.type
    if field.name in JSON_COLUMNS:
        return "VARIANT"
    if pa.types.is_list(kind):
        return "ARRAY"
    if pa.types.is_decimal(kind):
        return f"NUMBER({kind.precision},{kind.scale})"
    names = {
        pa.string(): "VARCHAR(16777216)",
        pa.int32(): "NUMBER(10,0)",
        pa.int64(): "NUMBER(19,0)",
        pa.float64(): "FLOAT",
        pa.bool_(): "BOOLEAN",
        pa.date32(): "DATE",
        pa.timestamp("us"): "TIMESTAMP_NTZ(6)",
    }
    return names[kind]


def copied_columns(schema: pa.Schema) -> dict[str, str]:
    """By column: the expression over `$1`, a row of a landed file, that gives its value.

    JSON is parsed: loaded by column name, it would be a text inside a VARIANT.
    A column that a file of an older contract has not is null.
    """
    return {field.name: _copied(field) for field in schema}


def _copied(field: pa.Field) -> str:
    if field.name in JSON_COLUMNS:
        return f"parse_json($1:{field.name}::varchar)"
    return f"$1:{field.name}::{snowflake_type(field).lower()}"
