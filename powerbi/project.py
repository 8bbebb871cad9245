"""The files of the Power BI project, from the dbt manifest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from petwellness_orchestration.published import is_pii
from powerbi.measures import Measure, measures
from powerbi.names import column_name
from powerbi.star import (
    ACCESS_COLUMNS,
    ACCESS_TABLE,
    DIMENSIONS,
    FACTS,
    ROLES,
    Dimension,
    Fact,
)
from powerbi.tmdl import Node, document, quoted, tag

NAME = "PetWellness"
MODEL = f"{NAME}.SemanticModel"
REPORT = f"{NAME}.Report"
PAGE = "overview"
_SCHEMAS = "https://developer.microsoft.com/json-schemas/fabric"

# Type in the warehouse: type in the model, type in Power Query, format.
TYPES = {
    "varchar": ("string", "type text", None),
    "integer": ("int64", "Int64.Type", "0"),
    "bigint": ("int64", "Int64.Type", "#,0"),
    "double": ("double", "type number", "#,0.0#"),
    "decimal": ("double", "type number", "#,0.0#"),
    "date": ("dateTime", "type date", "yyyy-mm-dd"),
    "timestamp": ("dateTime", "type datetime", "yyyy-mm-dd hh:nn"),
    "boolean": ("boolean", "type logical", None),
}

PARAMETERS = {
    "Warehouse": ("Published copy", "Published copy or Snowflake: where the tables are read from."),
    "Published Folder": (
        r"C:\petwellness\published",
        "Folder of the published copy, the one that holds published.json.",
    ),
    "Snowflake Server": ("account.snowflakecomputing.com", "Address of the Snowflake account."),
    "Snowflake Warehouse": ("REPORTING", "Virtual warehouse that refreshes run on."),
    "Snowflake Database": ("PETWELLNESS", "Database that dbt builds into."),
    "Clinic Access File": (
        "",
        "CSV file with a header and the columns clinic_id and user_principal_name. Empty: nobody of the role "
        "Clinic sees anything.",
    ),
}

# Tables of the published copy are the files that published.json names; others in the folder are not in force.
_READ_TABLE = """\
(table as text, columns as list) =>
let
    Name = Text.Split(Text.Upper(table), "."),
    Files = Table.AddColumn(
        Folder.Files(#"Published Folder"), "Path", each Text.Replace([Folder Path] & [Name], "\\", "/")
    ),
    Catalogue = Json.Document(Table.SelectRows(Files, each [Name] = "published.json"){0}[Content]),
    Parts = Record.FieldValues(Record.Field(Catalogue[tables], table)),
    InForce = List.Buffer(List.Combine(List.Transform(Parts, each [files]))),
    Ours = Table.SelectRows(
        Files,
        each List.Contains(
            InForce, "tables/" & Text.AfterDelimiter([Path], "/tables/", {0, RelativePosition.FromEnd})
        )
    ),
    Published = Table.Combine(List.Transform(Ours[Content], each Parquet.Document(_))),
    Account = Snowflake.Databases(#"Snowflake Server", #"Snowflake Warehouse"),
    Database = Account{[Name = #"Snowflake Database", Kind = "Database"]}[Data],
    Schema = Database{[Name = Name{0}, Kind = "Schema"]}[Data],
    InSnowflake = Schema{[Name = Name{1}, Kind = "Table"]}[Data],
    Source = if Warehouse = "Snowflake" then InSnowflake else Published,
    Named = Table.TransformColumnNames(Source, Text.Lower),
    Chosen = Table.SelectColumns(Named, columns)
in
    Chosen"""

_READ_ACCESS = """\
let
    Given = Table.PromoteHeaders(Csv.Document(File.Contents(#"Clinic Access File"), [Encoding = 65001])),
    Empty = #table({"clinic_id", "user_principal_name"}, {}),
    Source = if #"Clinic Access File" = "" then Empty else Given,
    Typed = Table.TransformColumnTypes(Source, {{"clinic_id", type text}, {"user_principal_name", type text}})
in
    Typed"""


class PersonalColumnError(ValueError):
    """A column with personal data was to be shown."""

    def __init__(self, model: str, column: str) -> None:
        super().__init__(f"{model}.{column} is tagged as personal data; leave it out of powerbi/star.py")


def project_files(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Path within `powerbi/` and text of every file of the project."""
    definition = f"{MODEL}/definition"
    models = {node["name"]: node for node in manifest["nodes"].values() if node["resource_type"] == "model"}
    of_metrics = measures(manifest)
    tables = {dimension.name: _dimension(dimension, models[dimension.model]) for dimension in DIMENSIONS}
    tables |= {fact.name: _fact(fact, models[fact.model], of_metrics) for fact in FACTS}
    tables[ACCESS_TABLE] = _access()
    return {
        **_project(),
        f"{definition}/database.tmdl": document([Node("database", {"compatibilityLevel": "1601"})]),
        f"{definition}/model.tmdl": _model(tables),
        f"{definition}/expressions.tmdl": document(_expressions()),
        f"{definition}/relationships.tmdl": document(_relationships()),
        **{f"{definition}/tables/{name}.tmdl": document([node]) for name, node in tables.items()},
        **{f"{definition}/roles/{role.name}.tmdl": document([_role(role)]) for role in ROLES},
    }


def _dimension(dimension: Dimension, model: Mapping[str, Any]) -> Node:
    columns = [
        _column(
            dimension.name,
            model,
            column,
            is_hidden=column == dimension.key and not dimension.is_dates,
            is_key=column == dimension.key,
            sorted_by=dimension.sorted_by.get(column),
        )
        for column in model["columns"]
    ]
    extra: dict[str, str | None] = {"dataCategory": "Time"} if dimension.is_dates else {}
    return _table(dimension.name, model, columns, list(model["columns"]), extra)


def _fact(fact: Fact, model: Mapping[str, Any], of_metrics: Iterable[Measure]) -> Node:
    own = [measure for measure in of_metrics if measure.table == fact.name]
    needed = {*fact.keys, *fact.attributes}.union(*(measure.columns for measure in own))
    names = [column for column in model["columns"] if column in needed]
    columns = [_column(fact.name, model, column, is_hidden=column not in fact.attributes) for column in names]
    return _table(fact.name, model, [*map(_measure, own), *columns], names, {})


def _table(
    name: str,
    model: Mapping[str, Any],
    children: Iterable[Node],
    columns: list[str],
    extra: dict[str, str | None],
) -> Node:
    types = ", ".join(f'{{"{column}", {_type(model, column)[1]}}}' for column in columns)
    source = (
        f'let\n    Source = #"Warehouse Table"("{model["schema"]}.{model["alias"]}", {_texts(columns)}),\n'
        f"    Typed = Table.TransformColumnTypes(Source, {{{types}}})\nin\n    Typed"
    )
    return Node(
        f"table {quoted(name)}",
        {"lineageTag": tag(name), **extra},
        model["description"],
        (*children, _partition(name, source)),
    )


def _texts(values: Iterable[str]) -> str:
    return "{{{}}}".format(", ".join(f'"{value}"' for value in values))


def _partition(table: str, source: str) -> Node:
    lines = tuple(f"\t{line}" if line else "" for line in source.splitlines())
    return Node(f"partition {quoted(table)} = m\n\t\tmode: import\n\t\tsource =", expression=lines)


def _type(model: Mapping[str, Any], column: str) -> tuple[str, str, str | None]:
    return TYPES[re.sub(r"\(.*", "", model["columns"][column]["data_type"])]


def _column(
    table: str,
    model: Mapping[str, Any],
    column: str,
    is_hidden: bool,
    is_key: bool = False,
    sorted_by: str | None = None,
) -> Node:
    props = model["columns"][column]
    if is_pii(props):
        raise PersonalColumnError(model["name"], column)
    data_type, _, form = _type(model, column)
    name = column_name(column)
    return Node(
        f"column {quoted(name)}",
        {
            "dataType": data_type,
            **({"isHidden": None} if is_hidden else {}),
            **({"isKey": None} if is_key else {}),
            **({"formatString": form} if form else {}),
            "lineageTag": tag(table, name),
            "summarizeBy": "none",
            "sourceColumn": column,
            **({"sortByColumn": quoted(column_name(sorted_by))} if sorted_by else {}),
        },
        props["description"],
    )


def _measure(measure: Measure) -> Node:
    return Node(
        f"measure {quoted(measure.name)} = {measure.dax}",
        {
            "formatString": measure.format,
            **({"isHidden": None} if measure.is_hidden else {}),
            "lineageTag": tag(measure.table, measure.name),
        },
        measure.description,
    )


def _access() -> Node:
    columns = tuple(
        Node(
            f"column {quoted(name)}",
            {
                "dataType": "string",
                "isHidden": None,
                "lineageTag": tag(ACCESS_TABLE, name),
                "summarizeBy": "none",
                "sourceColumn": column,
            },
            description,
        )
        for column, (name, description) in ACCESS_COLUMNS.items()
    )
    return Node(
        f"table {quoted(ACCESS_TABLE)}",
        {"isHidden": None, "lineageTag": tag(ACCESS_TABLE)},
        "One row per user and clinic that the user may see; read by the role Clinic. Empty in the repository.",
        (*columns, _partition(ACCESS_TABLE, _READ_ACCESS)),
    )


def _relationships() -> Iterable[Node]:
    keys = {dimension.name: dimension.key for dimension in DIMENSIONS}
    for fact in FACTS:
        for column, dimension in fact.keys.items():
            yield Node(
                f"relationship {tag('relationship', fact.name, dimension)}",
                {
                    "crossFilteringBehavior": "oneDirection",
                    "fromCardinality": "many",
                    "toCardinality": "one",
                    "fromColumn": f"{quoted(fact.name)}.{quoted(column_name(column))}",
                    "toColumn": f"{quoted(dimension)}.{quoted(column_name(keys[dimension]))}",
                },
            )


def _role(role: Any) -> Node:
    filters = tuple(Node(f"tablePermission {quoted(table)} = {dax}") for table, dax in role.filters.items())
    return Node(f"role {quoted(role.name)}", {"modelPermission": "read"}, role.description, filters)


def _expressions() -> Iterable[Node]:
    for name, (value, description) in PARAMETERS.items():
        required = "true" if value else "false"
        yield Node(
            f'expression {quoted(name)} = "{value}" meta '
            f'[IsParameterQuery=true, Type="Text", IsParameterQueryRequired={required}]',
            {"lineageTag": tag("expression", name)},
            description,
        )
    yield Node(
        "expression 'Warehouse Table' =",
        {"lineageTag": tag("expression", "Warehouse Table")},
        "Columns of a table of the warehouse.",
        expression=tuple(_READ_TABLE.splitlines()),
    )


def _model(tables: Iterable[str]) -> str:
    model = Node(
        "model Model",
        {
            "culture": "en-GB",
            "defaultPowerBIDataSourceVersion": "powerBI_V3",
            "discourageImplicitMeasures": None,
            "sourceQueryCulture": "en-GB",
        },
        children=(Node("annotation __PBI_TimeIntelligenceEnabled = 0"),),
    )
    refs = [f"ref table {quoted(table)}" for table in tables] + [
        f"ref role {quoted(role.name)}" for role in ROLES
    ]
    return document([model]) + "\n" + "\n".join(refs) + "\n"


def _project() -> dict[str, str]:
    """The project's own files and a report with one empty page, in the smallest form that is documented."""
    report = f"{_SCHEMAS}/item/report"
    files: dict[str, Mapping[str, Any]] = {
        f"{NAME}.pbip": {
            "$schema": f"{_SCHEMAS}/pbip/pbipProperties/1.0.0/schema.json",
            "version": "1.0",
            "artifacts": [{"report": {"path": REPORT}}],
            "settings": {"enableAutoRecovery": True},
        },
        f"{MODEL}/definition.pbism": {
            "$schema": f"{_SCHEMAS}/item/semanticModel/definitionProperties/1.0.0/schema.json",
            "version": "4.2",
            "settings": {},
        },
        f"{REPORT}/definition.pbir": {
            "$schema": f"{report}/definitionProperties/2.0.0/schema.json",
            "version": "4.0",
            "datasetReference": {"byPath": {"path": f"../{MODEL}"}},
        },
        f"{REPORT}/definition/version.json": {
            "$schema": f"{report}/definition/versionMetadata/1.0.0/schema.json",
            "version": "2.0.0",
        },
        f"{REPORT}/definition/report.json": {
            "$schema": f"{report}/definition/report/1.0.0/schema.json",
            "themeCollection": {},
            "layoutOptimization": "None",
        },
        f"{REPORT}/definition/pages/pages.json": {
            "$schema": f"{report}/definition/pagesMetadata/1.0.0/schema.json",
            "pageOrder": [PAGE],
            "activePageName": PAGE,
        },
        f"{REPORT}/definition/pages/{PAGE}/page.json": {
            "$schema": f"{report}/definition/page/1.0.0/schema.json",
            "name": PAGE,
            "displayName": "Overview",
            "displayOption": "FitToPage",
            "height": 720,
            "width": 1280,
        },
    }
    return {path: json.dumps(content, indent=2) + "\n" for path, content in files.items()}
