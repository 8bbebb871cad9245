"""Which tables and columns readers get, from the dbt manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warehouse.duckdb.publish import PUBLISHED_SCHEMAS, PublishedTable

PII_META = "pii"
PUBLISHED_META = "published"


def published_tables(manifest: Mapping[str, Any]) -> list[PublishedTable]:
    """The tables of the readers' schemas that are published, without personal columns, in name order."""
    models = [
        props
        for props in manifest["nodes"].values()
        if props["schema"] in PUBLISHED_SCHEMAS and is_published(props)
    ]
    tables = [
        PublishedTable(
            schema=props["schema"],
            name=props["alias"],
            columns=tuple(name for name, column in props["columns"].items() if not is_pii(column)),
            day_column=day_column(props),
            sorted_by=sorted_by(props),
        )
        for props in models
    ]
    return sorted(tables, key=lambda table: table.full_name)


def layer(props: Mapping[str, Any]) -> str:
    """A node's layer (raw, stg, cur, anl, ml). Its schema, unless a developer's or a pull request's takes all."""
    return props.get("config", {}).get("schema") or props["schema"]


def is_published(props: Mapping[str, Any]) -> bool:
    """Whether readers get a node's table: a model unless it says `published: false`, a seed if it says so."""
    kind = props["resource_type"]
    return kind in ("model", "seed") and bool(props["config"]["meta"].get(PUBLISHED_META, kind == "model"))


def is_pii(column: Mapping[str, Any]) -> bool:
    """Whether a column is tagged as personal data in its YAML. Every column says that it is or that it is not
    (`defs.warehouse.declarations`)."""
    return bool(column_meta(column).get(PII_META))


def column_meta(column: Mapping[str, Any]) -> dict[str, Any]:
    """What a column's YAML says of it under `config.meta`."""
    return {**column.get("meta", {}), **column.get("config", {}).get("meta", {})}


def day_column(props: Mapping[str, Any]) -> str | None:
    """The column by which a daily model is kept; None for a table built whole."""
    if "daily" not in props.get("tags", []):
        return None
    return props["config"]["meta"].get("day_column", "event_date")


def sorted_by(props: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that order a day's rows: those that cluster the table on Snowflake, without the day."""
    clusters = props["config"].get("cluster_by") or ()
    return tuple(name for name in clusters if name in props["columns"] and name != day_column(props))
