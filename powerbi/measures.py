"""Measures in DAX, made from dbt's metrics, so that both layers mean the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from powerbi.names import dax_column
from powerbi.star import FACTS

_AGGREGATIONS = {"sum": "SUM", "count": "COUNT", "count_distinct": "DISTINCTCOUNT", "average": "AVERAGE"}
_FILTER = re.compile(r"\{\{ Dimension\('\w+__(\w+)'\) \}\} = '([^']*)'")


class MetricNotTranslatableError(ValueError):
    """A metric that this module has no DAX for."""

    def __init__(self, metric: str, reason: str) -> None:
        super().__init__(f"metric {metric}: {reason}; give its DAX as config.meta.dax")


class MetricOutsideStarError(ValueError):
    """A metric on a table that the star does not have."""

    def __init__(self, metric: str, file: str, model: str) -> None:
        super().__init__(
            f"metric {metric} ({file}) is on {model}, which is no fact of the star: add {model} to FACTS in"
            f" powerbi/star.py, or take the metric out of {file}"
        )


@dataclass(frozen=True)
class Measure:
    """A measure of the model, and the columns of its table (by their names in the warehouse) that it needs."""

    table: str
    name: str
    description: str
    dax: str
    format: str
    is_hidden: bool
    columns: frozenset[str]


def measures(manifest: Mapping[str, Any]) -> list[Measure]:
    """A measure for each metric, in the order of the metrics' names.

    Raises MetricOutsideStarError, MetricNotTranslatableError.
    """
    _refuse_outside(manifest)
    metrics = {metric["name"]: metric for metric in manifest["metrics"].values()}
    bases = _bases(manifest)
    return [_measure(metrics[name], metrics, bases) for name in sorted(metrics)]


@dataclass(frozen=True)
class _Base:
    """A measure of a semantic model on a fact of the star, which metrics are made of."""

    table: str
    agg: str
    expr: str
    last_of: str | None


def _refuse_outside(manifest: Mapping[str, Any]) -> None:
    """Raises MetricOutsideStarError for the first metric that needs a table which is no fact."""
    facts = {fact.model for fact in FACTS}
    model_of = {
        measure["name"]: model["refs"][0]["name"]
        for model in manifest["semantic_models"].values()
        for measure in model["measures"]
    }
    for metric in sorted(manifest["metrics"].values(), key=lambda metric: metric["name"]):
        for measure in metric["type_params"]["input_measures"]:
            if model_of[measure["name"]] not in facts:
                raise MetricOutsideStarError(
                    metric["name"], metric["original_file_path"], model_of[measure["name"]]
                )


def _bases(manifest: Mapping[str, Any]) -> dict[str, _Base]:
    tables = {fact.model: fact.name for fact in FACTS}
    return {
        measure["name"]: _Base(
            tables[model["refs"][0]["name"]],
            measure["agg"],
            measure["expr"] or measure["name"],
            (measure["non_additive_dimension"] or {}).get("name"),
        )
        for model in manifest["semantic_models"].values()
        if model["refs"][0]["name"] in tables
        for measure in model["measures"]
    }


def _measure(metric: Mapping[str, Any], metrics: Mapping[str, Any], bases: Mapping[str, _Base]) -> Measure:
    meta = metric["config"]["meta"]
    base = bases[metric["type_params"]["input_measures"][0]["name"]]
    return Measure(
        table=base.table,
        name=metric["label"],
        description=metric["description"].strip(),
        dax=meta.get("dax") or _dax(metric, metrics, base),
        format=meta["format"],
        is_hidden=meta.get("hidden", False),
        columns=_columns(metric, base),
    )


def _columns(metric: Mapping[str, Any], base: _Base) -> frozenset[str]:
    if metric["type"] != "simple" or "dax" in metric["config"]["meta"]:
        return frozenset()
    return frozenset({base.expr})


def _dax(metric: Mapping[str, Any], metrics: Mapping[str, Any], base: _Base) -> str:
    parameters = metric["type_params"]
    match metric["type"]:
        case "simple":
            return _aggregated(metric, base)
        case "ratio":
            sides = (metrics[parameters[side]["name"]]["label"] for side in ("numerator", "denominator"))
            return "DIVIDE({})".format(", ".join(f"[{label}]" for label in sides))
        case "derived":
            return re.sub(r"[a-z]\w*", lambda name: f"[{metrics[name[0]]['label']}]", parameters["expr"])
    raise MetricNotTranslatableError(metric["name"], f"its type is {metric['type']}")


def _aggregated(metric: Mapping[str, Any], base: _Base) -> str:
    if not re.fullmatch(r"\w+", base.expr):
        raise MetricNotTranslatableError(metric["name"], f"{base.expr!r} is no column")
    column = dax_column(base.table, base.expr)
    conditions = list(_conditions(metric, base))
    if base.agg == "sum_boolean":
        total = f"COUNTROWS('{base.table}')"
        conditions.insert(0, f"{column} = TRUE()")
    elif base.agg in _AGGREGATIONS:
        total = f"{_AGGREGATIONS[base.agg]}({column})"
    else:
        raise MetricNotTranslatableError(metric["name"], f"its aggregation is {base.agg}")
    if base.last_of is None:
        return _where(total, conditions)
    day = dax_column(base.table, base.last_of)
    return f"VAR last_day = MAX({day}) RETURN {_where(total, [*conditions, f'{day} = last_day'])}"


def _conditions(metric: Mapping[str, Any], base: _Base) -> Iterator[str]:
    for where in (metric["filter"] or {}).get("where_filters", []):
        found = _FILTER.fullmatch(where["where_sql_template"])
        if not found:
            raise MetricNotTranslatableError(metric["name"], f"its filter is {where['where_sql_template']}")
        yield f'{dax_column(base.table, found[1])} = "{found[2]}"'


def _where(total: str, conditions: Iterable[str]) -> str:
    kept = "".join(f", KEEPFILTERS({condition})" for condition in conditions)
    return f"CALCULATE({total}{kept})" if kept else total
