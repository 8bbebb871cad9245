"""How a landed Parquet file becomes rows of `raw` on Snowflake: names, types, and COPY INTO.

Plain text from the contract. Who runs it (pipes, the loader) lives elsewhere, as
do the definitions of the objects it names (`infrastructure.snowflake`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from contracts.columns import JSON_COLUMNS
from lake import layout
from lake.sql_text import literals

if TYPE_CHECKING:
    import pyarrow as pa

RAW = "raw"
FILE_FORMAT = "landed_parquet"

# By prefix of the lake: the stage that reaches it. Pipes watch landing only.
LANDING_STAGE = "landing"
REDACTED_STAGE = "redacted"
STAGES = {layout.LANDING: LANDING_STAGE, layout.REDACTED: REDACTED_STAGE}

# Rows of a range that redactions and the quarantine keep out of raw, where `raw.redacted_ranges` is joined as `gone`.
WITHHELD = "gone.redacted_count + coalesce(gone.quarantined_count, 0)"

# The vendor's limit of names in one COPY INTO.
FILES_PER_COPY = 1000


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


def staged(key: str) -> tuple[str, str]:
    """The stage that reaches an object of the lake, and the object's path in it. Raises ValueError for none."""
    for prefix, stage in STAGES.items():
        if key.startswith(prefix):
            return stage, key.removeprefix(prefix)
    raise ValueError(f"no stage reaches {key}: raw loads files of {' and '.join(STAGES)} only")


def copy_statement(target: str, schema: pa.Schema, stage: str, paths: Sequence[str]) -> str:
    """COPY INTO of exactly these files of a stage, all or nothing, whatever the target has been given before.

    What was loaded is the ledger's to say: the vendor's memory of files ends after 64 days and with the table.
    """
    columns = copied_columns(schema)
    return (
        f"copy into {target} ({', '.join(columns)})"
        f" from (select {', '.join(columns.values())} from @{RAW}.{stage}/)"
        f" files = ({literals(paths)})"
        f" file_format = (format_name = '{RAW}.{FILE_FORMAT}')"
        " on_error = abort_statement force = true"
    )
