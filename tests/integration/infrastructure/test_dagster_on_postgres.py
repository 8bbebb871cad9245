"""Dagster as production runs it: code location, web UI and daemon in processes of their own, over PostgreSQL."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from waiting import IGNORING_SIGINT, end, until

from petwellness_orchestration.dagster_erasure import ValuesToErase, dagster_leftovers, erase_from_dagster
from petwellness_orchestration.instance import prepare_dagster_home
from petwellness_orchestration.run_processes import PROCESS_TAG
from petwellness_orchestration.settings import load_settings

PETWELLNESS = Path(sys.executable).with_name("petwellness")

LOCATIONS = """
{
  workspaceOrError {
    ... on Workspace {
      locationEntries { locationOrLoadError { ... on RepositoryLocation { repositories { name } } } }
    }
  }
}
"""
LAUNCH = """
mutation($selector: JobOrPipelineSelector!) {
  launchRun(executionParams: {selector: $selector}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
STATUS = """
query($id: ID!) {
  runOrError(runId: $id) { ... on Run { status tags { key } assetMaterializations { assetKey { path } } } }
}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgres_programs() -> Path | None:
    """Folder of PostgreSQL's server programs, which Debian keeps out of the path."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else None


def as_postgres(command: list[str]) -> list[str]:
    """PostgreSQL does not run as root: there it runs as the user that its package makes."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


@pytest.fixture(scope="module")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql): Dagster over PostgreSQL is not tested")
    # Not one of pytest's, which are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    port = free_port()
    data = folder / "data"
    control = [str(programs / "pg_ctl"), "-D", str(data), "-w"]
    options = f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    try:
        initialise = [str(programs / "initdb"), "-D", str(data), "-U", "dagster", "--auth=trust", "--no-sync"]
        subprocess.run(as_postgres(initialise), check=True, capture_output=True, cwd="/")
        start = [*control, "-o", options, "-l", str(folder / "log"), "start"]
        subprocess.run(as_postgres(start), check=True, stdout=subprocess.DEVNULL, cwd="/")
        try:
            yield f"postgresql+psycopg2://dagster@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run(
                as_postgres([*control, "-m", "immediate", "stop"]), check=True, capture_output=True, cwd="/"
            )
    finally:
        shutil.rmtree(folder)


class Platform:
    """Dagster's three processes on one state folder, and its GraphQL endpoint."""

    def __init__(self, home: Path, postgres_url: str) -> None:
        self.code_port, self.web_port = free_port(), free_port()
        self.environment = {
            **os.environ,
            "PETWELLNESS_HOME": str(home),
            "PETWELLNESS_DAGSTER_POSTGRES_URL": postgres_url,
        }
        self.logs = home / "logs"
        self.logs.mkdir(parents=True)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *arguments: str) -> None:
        with (self.logs / f"{name}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    [*IGNORING_SIGINT, str(PETWELLNESS), "dagster", *arguments],
                    env=self.environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def query(self, text: str, **variables: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.web_port}/graphql",
            json.dumps({"query": text, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found
        data: dict[str, Any] = found["data"]
        return data

    def wait_for(self, what: Callable[[], Any]) -> Any:
        """What it gives, once it gives something; fails when a process ends before."""

        def seen() -> Any:
            assert all(process.poll() is None for process in self.processes), self.words()
            return what()

        try:
            return until(seen, "what Dagster was asked for")
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.words()}") from None

    def words(self) -> str:
        return "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in self.logs.glob("*.log"))

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}/server_info", timeout=5):
                return True
        except OSError:
            return False

    def repository(self) -> str | None:
        """Its name, once the code location is loaded."""
        workspace = self.query(LOCATIONS)["workspaceOrError"]
        names = [
            repository["name"]
            for entry in workspace["locationEntries"]
            for repository in (entry["locationOrLoadError"] or {}).get("repositories", [])
        ]
        return names[0] if names else None

    def launch(self, job: str) -> str:
        selector = {
            "repositoryLocationName": "petwellness",
            "repositoryName": self.repository(),
            "jobName": job,
        }
        launched = self.query(LAUNCH, selector=selector)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run_id: str = launched["run"]["runId"]
        return run_id

    def ended(self, run_id: str) -> dict[str, Any] | None:
        run: dict[str, Any] = self.query(STATUS, id=run_id)["runOrError"]
        return run if run["status"] in ("SUCCESS", "FAILURE", "CANCELED") else None

    def stop(self) -> None:
        """End them all; a code location lets what is under way end, which beside other tests takes a while."""
        for process in self.processes[1:]:
            process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            end(process)


@pytest.fixture(scope="module")
def platform(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    started = Platform(tmp_path_factory.mktemp("production") / "home", postgres_url)
    try:
        code = f"127.0.0.1:{started.code_port}"
        started.start("code", "code", "--port", str(started.code_port))
        started.start("web", "web", "--port", str(started.web_port), "--code", code)
        started.start("daemon", "daemon", "--code", code)
        started.wait_for(started.answers)
        started.wait_for(started.repository)
        yield started
    finally:
        started.stop()


def test_a_run_from_the_ui_ends_well_and_is_kept_in_postgres(platform: Platform) -> None:
    run_id = platform.launch("roll_up")
    run = platform.wait_for(lambda: platform.ended(run_id))
    assert run["status"] == "SUCCESS", platform.words()
    assert run["assetMaterializations"]
    # By which it would be found out if it were killed.
    assert PROCESS_TAG in {tag["key"] for tag in run["tags"]}

    # Nothing of it is on the disk of a process: SQLite would have left its files.
    home = Path(platform.environment["PETWELLNESS_HOME"]) / "dagster"
    assert [path.name for path in home.rglob("*.db")] == []
    assert "storage:" in (home / "dagster.yaml").read_text()


def test_no_file_holds_the_address_of_the_database(platform: Platform, postgres_url: str) -> None:
    home = Path(platform.environment["PETWELLNESS_HOME"])
    texts = [path for path in home.rglob("*") if path.suffix in (".yaml", ".log")]
    assert texts
    assert [path.name for path in texts if postgres_url in path.read_text()] == []


def test_an_erasure_cleans_what_postgres_keeps(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events and tags in a database of their own, by the same code as SQLite."""
    own = create_database(postgres_url, "erasures")
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PETWELLNESS_DAGSTER_POSTGRES_URL", own)
    monkeypatch.setenv("DAGSTER_HOME", "")
    settings = load_settings()
    folder = prepare_dagster_home(settings)

    @dg.asset
    def pets() -> dg.MaterializeResult[None]:
        return dg.MaterializeResult(metadata={"worst": "owner-1 and owner-12"})

    sought = ValuesToErase(frozenset({"owner-1"}))
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        assert dg.materialize([pets], instance=instance, tags={"of": "owner-1"}).success
        places = [one.place for one in dagster_leftovers(settings, sought)]
        assert {"dagster events event_logs", "dagster events run_tags"} <= {*places}
        assert erase_from_dagster(settings, sought, dry_run=True) == erase_from_dagster(
            settings, sought, dry_run=False
        )
        assert dagster_leftovers(settings, sought) == []
        [event] = instance.fetch_materializations(dg.AssetKey("pets"), limit=1).records
        assert event.asset_materialization is not None
        assert event.asset_materialization.metadata["worst"].value == "erased and owner-12"


def create_database(url: str, name: str) -> str:
    """A new database of the server; its address."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as con:
        con.exec_driver_sql(f"create database {name}")
    engine.dispose()
    return f"{url.rpartition('/')[0]}/{name}"
