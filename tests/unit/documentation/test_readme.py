"""What README and docs state about the code: the picture of the graph, settings, commands, links."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
GRAPH = (ROOT / "docs" / "graph.md").read_text()
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SNAPSHOT = ROOT / "tests" / "pipeline" / "snapshots" / "asset_graph.json"

RECORD_FEEDS = "one table per feed"
# Read outside the settings classes: by tests, by dbt's profile, by the local Kafka, by workflows.
OTHER_VARIABLES = {
    "PETWELLNESS_REAL_DATA",
    "PETWELLNESS_SNOWFLAKE_ACCOUNT",
    "PETWELLNESS_KAFKA_JARS",
    # A secret of the workflows, written to a file whose path is the setting.
    "PETWELLNESS_SNOWFLAKE_PRIVATE_KEY",
}


def picture() -> tuple[dict[str, set[str]], set[tuple[str, str]]]:
    """The assets of each box of the graph's picture, and its arrows."""
    from contracts.registry import RECORD_FEED_NAMES

    text = GRAPH.split("```mermaid")[1].split("```")[0]
    boxes: dict[str, set[str]] = {}
    arrows: set[tuple[str, str]] = set()
    group = ""
    for line in map(str.strip, text.splitlines()):
        if found := re.fullmatch(r"subgraph (\w+)(?: \[.*\])?", line):
            group = found[1]
        elif found := re.fullmatch(r'(\w+)\["?([^"\]]*)"?\]', line):
            # A line of a label that does not end in a comma ends the names; a remark may follow.
            names = re.split(r"(?<!,)<br/>", found[2])[0].replace("<br/>", " ")
            parts = {name.strip() for name in names.split(",")}
            if RECORD_FEEDS in parts:
                parts = parts - {RECORD_FEEDS} | set(RECORD_FEED_NAMES)
            boxes[found[1]] = {f"{group}/{name}" for name in parts}
        elif "-->" in line:
            stops = [stop.split("&") for stop in re.split(r"-->|-- \w+ -->", line)]
            for here, there in pairwise(stops):
                arrows |= {(a.strip(), b.strip()) for a in here for b in there}
    return boxes, arrows


def test_the_picture_shows_every_asset_once_and_every_dependency() -> None:
    assets = json.loads(SNAPSHOT.read_text())["assets"]
    boxes, arrows = picture()
    shown = sorted(asset for box in boxes.values() for asset in box)
    assert shown == sorted(assets)
    box_of = {asset: box for box, members in boxes.items() for asset in members}
    dependencies = {(box_of[dep], box_of[asset]) for asset, spec in assets.items() for dep in spec["deps"]}
    assert arrows == {(before, after) for before, after in dependencies if before != after}


def test_every_setting_that_is_named_exists() -> None:
    import contracts.settings
    import governance.settings
    import infrastructure.snowflake.account
    import ingestion.settings
    import lake.settings
    import ml.settings
    import petwellness_orchestration.settings
    import warehouse.snowflake.settings

    known = set(OTHER_VARIABLES)
    modules = (
        contracts.settings,
        lake.settings,
        ingestion.settings,
        warehouse.snowflake.settings,
        ml.settings,
        governance.settings,
        petwellness_orchestration.settings,
        infrastructure.snowflake.account,
    )
    for module in modules:
        for thing in vars(module).values():
            if getattr(thing, "__module__", "") == module.__name__ and hasattr(thing, "model_fields"):
                known |= {f"{thing.model_config['env_prefix']}{name}".upper() for name in thing.model_fields}
    named = {name for page in PAGES for name in re.findall(r"PETWELLNESS_[A-Z_]*[A-Z]", page.read_text())}
    assert named - known == set()
    assert "PETWELLNESS_LAKE_URL" in named


def test_every_command_is_in_the_table_and_the_table_names_no_other() -> None:
    from petwellness_orchestration.cli.app import app

    commands = {command.callback.__name__ for command in app.registered_commands if command.callback}
    commands |= {group.name for group in app.registered_groups if group.name}
    table = COMMANDS
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(?:petwellness )?([a-z]+)", row)}
    assert named == commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text())
    missing = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
    assert missing == []


def test_every_decision_is_in_the_list() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\((\d{3}-[a-z0-9-]+\.md)\)", (folder / "README.md").read_text())
    assert listed == sorted(path.name for path in folder.glob("[0-9]*.md"))
