"""`python -m powerbi`: write the Power BI project from the dbt manifest."""

from __future__ import annotations

import shutil
from pathlib import Path

from petwellness_orchestration.defs.warehouse.manifest import read_manifest
from powerbi.project import MODEL, REPORT, project_files

FOLDER = Path(__file__).resolve().parent


def main() -> None:
    """Replace the project's files; what is no longer generated goes."""
    files = project_files(read_manifest())
    for folder in (MODEL, REPORT):
        shutil.rmtree(FOLDER / folder / "definition", ignore_errors=True)
    for name, text in files.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"{len(files)} files in {FOLDER}")


if __name__ == "__main__":
    main()
