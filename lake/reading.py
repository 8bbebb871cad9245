"""Reading landing files of different ages in today's schema of their feed.

A column that a file does not have yet reads as null, so files of all releases can
be read together. Files of a newer release are refused: what they hold besides
would be lost without a word. Writing is in `landing`; the warehouse's loader reads
by SQL to the same rules (`warehouse.duckdb.raw`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lake.landing import SCHEMA_VERSION, LandingSchemaError, Manifest, feed_schema
from lake.store import ObjectStore


class NewerSchemaError(LandingSchemaError):
    """A landing file has columns that this release does not know."""


def check_schema_version(manifests: Iterable[Manifest]) -> None:
    """Raise NewerSchemaError if a range was landed with a schema newer than this release's."""
    for manifest in manifests:
        if manifest.schema_version > SCHEMA_VERSION:
            raise NewerSchemaError(
                f"{manifest.source_file} has schema version {manifest.schema_version}, this release knows up "
                f"to {SCHEMA_VERSION}; upgrade this process first"
            )


class LandedFile(NamedTuple):
    """A landing file that was read: its key, its rows, and what its footer says (`landing.claim_in`)."""

    key: str
    rows: pa.Table
    footer: Mapping[bytes, bytes]


def landed_schema(feed: str, columns: Sequence[str] | None = None) -> pa.Schema:
    """Schema of a feed, or of `columns` of it. Raises KeyError for an unknown feed or column."""
    schema = feed_schema(feed)
    return schema if columns is None else pa.schema([schema.field(name) for name in columns])


def landed_files(store: ObjectStore, keys: Sequence[str], schema: pa.Schema) -> Iterator[LandedFile]:
    """Landing files one by one in the order of `keys`, their rows in `schema`.

    Raises LandingSchemaError for a file that lacks a required column or holds one of another type.
    """
    for key, data in zip(keys, store.get_many(keys), strict=True):
        file = pq.ParquetFile(pa.BufferReader(data))
        present = [name for name in schema.names if name in file.schema_arrow.names]
        rows = in_schema(file.read(present), schema, key)
        yield LandedFile(key, rows, file.metadata.metadata or {})


def in_schema(table: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    """A table of a file with the schema's columns, those it lacks as nulls; `name` is for errors.

    Raises LandingSchemaError.
    """
    arrays = []
    for field in schema:
        if field.name in table.column_names:
            try:
                arrays.append(table[field.name].cast(field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise LandingSchemaError(
                    f"{name}: column '{field.name}' is {table.schema.field(field.name).type}, "
                    f"which does not fit {field.type}"
                ) from error
        elif field.nullable:
            arrays.append(pa.nulls(table.num_rows, field.type))
        else:
            raise LandingSchemaError(f"{name}: required column '{field.name}' is missing")
    return pa.Table.from_arrays(arrays, schema=schema)
