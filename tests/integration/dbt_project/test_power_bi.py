"""The Power BI project against the dbt manifest: by the generator, and by reading the text itself."""

import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from petwellness_orchestration.defs.warehouse.manifest import read_manifest
from powerbi.measures import MetricNotTranslatableError, MetricOutsideStarError
from powerbi.project import PersonalColumnError, project_files

FOLDER = Path(__file__).resolve().parents[3] / "powerbi"
DEFINITION = FOLDER / "PetWellness.SemanticModel" / "definition"
# What each type of the warehouse may be in the model.
TYPES = {
    "varchar": "string",
    "integer": "int64",
    "bigint": "int64",
    "double": "double",
    "decimal": "double",
    "date": "dateTime",
    "timestamp": "dateTime",
    "boolean": "boolean",
}
NAME = r"(?:'((?:[^']|'')+)'|(\w+))"


@dataclass
class Block:
    """A line of TMDL and what is indented under it."""

    line: str
    description: str = ""
    blocks: list["Block"] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return self.line.split(" ")[0]

    @property
    def name(self) -> str:
        found = re.match(rf"\w+ {NAME}", self.line)
        assert found, self.line
        return (found[1] or found[2]).replace("''", "'")

    @property
    def expression(self) -> str:
        return self.line.partition(" = ")[2]

    def of(self, kind: str) -> dict[str, "Block"]:
        found = [block for block in self.blocks if block.kind == kind and re.match(r"\w+ ", block.line)]
        named = {block.name: block for block in found}
        assert len(named) == len(found), f"{self.line}: two of one name"
        return named

    def property(self, name: str) -> str | None:
        return next((b.line.partition(": ")[2] for b in self.blocks if b.line.startswith(f"{name}: ")), None)

    def has(self, flag: str) -> bool:
        return any(block.line == flag for block in self.blocks)


def read(path: Path) -> list[Block]:
    """Blocks of a TMDL file: tabs say what belongs to what, `///` describes what follows."""
    root = Block("")
    stack, description = [root], ""
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not text.strip():
            continue
        depth = len(text) - len(text.lstrip("\t"))
        line = text.strip()
        if line.startswith("/// "):
            description = line[4:]
            continue
        inside = next((i for i, block in enumerate(stack) if block.line.endswith("=")), None)
        if inside is not None and depth > inside:
            # A line of an expression is two tabs deeper than what it belongs to.
            continue
        assert depth <= len(stack) - 1, f"{path.name}:{number} is indented under nothing"
        block = Block(line, description)
        stack[depth].blocks.append(block)
        stack, description = [*stack[: depth + 1], block], ""
    return root.blocks


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    return read_manifest()


@pytest.fixture(scope="module")
def tables() -> dict[str, Block]:
    found = {path.stem: read(path) for path in sorted((DEFINITION / "tables").glob("*.tmdl"))}
    assert all([block.name for block in blocks] == [name] for name, blocks in found.items())
    return {name: blocks[0] for name, blocks in found.items()}


def source(name: str) -> tuple[str, list[str]] | None:
    """The table of the warehouse that a table of the model reads, and the columns it asks for."""
    text = (DEFINITION / "tables" / f"{name}.tmdl").read_text()
    found = re.search(r'#"Warehouse Table"\("(\w+\.\w+)", \{([^}]*)\}', text)
    return (found[1], re.findall(r'"(\w+)"', found[2])) if found else None


def model_of(manifest: dict[str, Any], table: str) -> dict[str, Any]:
    [model] = [
        node
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and f"{node['schema']}.{node['alias']}" == table
    ]
    return model


def columns_of_dax(dax: str) -> Iterator[tuple[str, str]]:
    yield from re.findall(r"'([^']+)'\[([^\]]+)\]", dax)


def measures_of_dax(dax: str) -> list[str]:
    return re.findall(r"(?<!')\[([^\]]+)\]", re.sub(r"'[^']+'\[[^\]]+\]", "", dax))


def test_the_committed_files_are_what_the_manifest_makes(manifest: dict[str, Any]) -> None:
    made = project_files(manifest)
    there = {
        str(path.relative_to(FOLDER)): path.read_text(encoding="utf-8")
        for path in FOLDER.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    differing = sorted(name for name in {*made, *there} if made.get(name) != there.get(name))
    assert differing == [], "run `make powerbi`"


def test_a_personal_column_is_refused(manifest: dict[str, Any]) -> None:
    tagged = deepcopy(manifest)
    tagged["nodes"]["model.petwellness.anl_pets"]["columns"]["pet_name"]["config"]["meta"] = {"pii": True}
    with pytest.raises(PersonalColumnError, match=r"anl_pets\.pet_name"):
        project_files(tagged)


def test_a_metric_that_has_no_translation_is_refused_until_it_brings_its_own(
    manifest: dict[str, Any],
) -> None:
    other = deepcopy(manifest)
    metric = other["metrics"]["metric.petwellness.open_critical_alerts"]
    metric["filter"]["where_filters"][0]["where_sql_template"] = "{{ Dimension('pet__species') }} like 'd%'"
    with pytest.raises(MetricNotTranslatableError, match="open_critical_alerts"):
        project_files(other)
    metric["config"]["meta"]["dax"] = "COUNTROWS('Wellness Alerts')"
    text = project_files(other)["PetWellness.SemanticModel/definition/tables/Wellness Alerts.tmdl"]
    assert "measure 'Open Critical Alerts' = COUNTROWS('Wellness Alerts')" in text


def test_a_metric_on_a_table_outside_the_star_is_named_with_the_table_and_the_file(
    manifest: dict[str, Any],
) -> None:
    other = deepcopy(manifest)
    other["semantic_models"]["semantic_model.petwellness.owner_days"]["refs"][0]["name"] = "anl_owner_hours"
    # What no metric needs may be on any table.
    kept = {
        name: metric
        for name, metric in other["metrics"].items()
        if metric["original_file_path"] != "models/anl/metrics/owner_days.yml"
    }
    assert "[Bookings]" not in "".join(project_files({**other, "metrics": kept}).values())
    [bookings] = [metric for metric in other["metrics"].values() if metric["name"] == "bookings"]
    with pytest.raises(
        MetricOutsideStarError,
        match=r"metric bookings \(models/anl/metrics/owner_days\.yml\) is on anl_owner_hours, .* powerbi/star\.py",
    ):
        project_files({**other, "metrics": {**kept, bookings["unique_id"]: bookings}})


def test_every_column_is_one_of_the_warehouse_of_its_type_and_not_personal(
    manifest: dict[str, Any], tables: dict[str, Block]
) -> None:
    assert [name for name in tables if source(name) is None] == ["Clinic Access"]
    for name, table in tables.items():
        if (read_from := source(name)) is None:
            continue
        model = model_of(manifest, read_from[0])
        shown = {block.property("sourceColumn"): block for block in table.of("column").values()}
        assert sorted(map(str, shown)) == sorted(read_from[1]), name
        for column, block in shown.items():
            props = model["columns"][column]
            assert not {**props["meta"], **props["config"]["meta"]}.get("pii"), (name, column)
            assert block.property("dataType") == TYPES[props["data_type"].split("(")[0]], (name, column)
            assert block.description == " ".join(props["description"].split())
            assert block.property("summarizeBy") == "none"
        assert table.description.startswith("One row per ")


def test_every_relationship_is_many_to_one_onto_a_column_that_a_test_holds_unique(
    manifest: dict[str, Any], tables: dict[str, Block]
) -> None:
    unique = {
        (node["attached_node"], node["test_metadata"]["kwargs"]["columns"][0])
        for node in manifest["nodes"].values()
        if node["resource_type"] == "test"
        and node.get("test_metadata", {}).get("name") == "unique_combination"
        and len(node["test_metadata"]["kwargs"]["columns"]) == 1
    }
    ends = []
    for block in read(DEFINITION / "relationships.tmdl"):
        assert block.kind == "relationship"
        assert block.property("crossFilteringBehavior") == "oneDirection"
        assert (block.property("fromCardinality"), block.property("toCardinality")) == ("many", "one")
        found = [
            re.fullmatch(rf"{NAME}\.{NAME}", str(block.property(f"{end}Column"))) for end in ("from", "to")
        ]
        (fact, key), (dimension, target) = [(m[1] or m[2], m[3] or m[4]) for m in found if m]
        assert tables[fact].of("column")[key].has("isHidden")
        column = tables[dimension].of("column")[target]
        assert column.has("isKey")
        assert column.property("dataType") == tables[fact].of("column")[key].property("dataType")
        read_from = source(dimension)
        assert read_from
        node = model_of(manifest, read_from[0])["unique_id"]
        assert (node, column.property("sourceColumn")) in unique, block.line
        ends.append((fact, dimension))
    # One path at most between two tables, and no dimension leads on to another.
    assert len(ends) == len(set(ends)) == 14
    assert {fact for fact, _ in ends} & {dimension for _, dimension in ends} == set()
    assert {name for end in ends for name in end} | {"Clinic Access"} == set(tables)


def test_there_is_one_date_table_and_it_is_marked(tables: dict[str, Block]) -> None:
    assert [name for name, table in tables.items() if table.property("dataCategory")] == ["Dates"]
    assert tables["Dates"].property("dataCategory") == "Time"
    assert tables["Dates"].of("column")["Date"].has("isKey")


def test_measures_name_columns_and_measures_that_exist_and_no_column_has_their_name(
    tables: dict[str, Block],
) -> None:
    measures = [(name, m) for name, table in tables.items() for m in table.of("measure").values()]
    names = [measure.name.lower() for _, measure in measures]
    assert len(names) == len(set(names)) > 40
    for table, measure in measures:
        dax = measure.expression
        columns, others = list(columns_of_dax(dax)), measures_of_dax(dax)
        assert columns or others
        assert all(column in tables[owner].of("column") for owner, column in columns), measure.line
        assert {owner for owner, _ in columns} <= {table}, measure.line
        assert all(other.lower() in names for other in others), measure.line
        assert measure.property("formatString"), measure.line
        assert measure.description, measure.line
        assert measure.name.lower() not in {name.lower() for name in tables[table].of("column")}
    # A rate is a ratio of sums: no measure takes the mean of a ratio.
    assert not [m.line for _, m in measures if "AVERAGE" in m.expression and "Ratio" in m.expression]


def test_every_metric_of_dbt_is_a_measure(manifest: dict[str, Any], tables: dict[str, Block]) -> None:
    labels = [metric["label"] for metric in manifest["metrics"].values()]
    assert sorted(labels) == sorted(name for table in tables.values() for name in table.of("measure"))


def test_a_rate_is_divided_from_its_sums(tables: dict[str, Block]) -> None:
    measures = {name: m.expression for table in tables.values() for name, m in table.of("measure").items()}
    assert measures["No-Show Rate"] == "DIVIDE([No-Shows], [Finished Bookings])"
    assert measures["No-Shows"] == "SUM('Clinic Days'[No Show Count])"
    assert measures["Openable Messages Sent"] == "[Push Messages Sent] + [E-Mails Sent]"
    assert measures["Open Critical Alerts"] == (
        "CALCULATE(COUNTROWS('Wellness Alerts'), KEEPFILTERS('Wellness Alerts'[Is Open] = TRUE()),"
        " KEEPFILTERS('Wellness Alerts'[Severity] = \"critical\"))"
    )


def test_the_clinic_role_narrows_every_dimension_that_says_who_and_head_office_nothing(
    tables: dict[str, Block],
) -> None:
    roles = {path.stem: read(path)[0] for path in (DEFINITION / "roles").glob("*.tmdl")}
    assert sorted(roles) == ["Clinic", "Head Office"]
    assert all(role.property("modelPermission") == "read" for role in roles.values())
    assert roles["Head Office"].of("tablePermission") == {}
    filters = {name: block.expression for name, block in roles["Clinic"].of("tablePermission").items()}
    assert sorted(filters) == ["Clinic Access", "Clinics", "Owners", "Pets"]
    for dax in filters.values():
        assert "USERPRINCIPALNAME()" in dax
        assert all(column in tables[table].of("column") for table, column in columns_of_dax(dax))
    # What a user may see is data, and none of it is in the repository.
    assert "@" not in (DEFINITION / "tables" / "Clinic Access.tmdl").read_text()


def test_the_model_refers_to_every_table_and_role(tables: dict[str, Block]) -> None:
    refs = re.findall(rf"^ref (table|role) {NAME}$", (DEFINITION / "model.tmdl").read_text(), re.MULTILINE)
    found = {kind: sorted(a or b for k, a, b in refs if k == kind) for kind in ("table", "role")}
    assert found == {"table": sorted(tables), "role": ["Clinic", "Head Office"]}


def test_the_page_lists_every_measure_that_is_shown(tables: dict[str, Block]) -> None:
    page = (FOLDER.parent / "docs" / "power-bi.md").read_text()
    shown = {
        name for table in tables.values() for name, m in table.of("measure").items() if not m.has("isHidden")
    }
    listed = set(re.findall(r"^\| ([^|]+?) \| `\w+` \|", page, re.MULTILINE))
    assert listed == shown
