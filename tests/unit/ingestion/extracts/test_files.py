"""Reading of source files: lines, missing files and columns, broken formats."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.extracts.files import SourceFile, extract_id, find_sources, read_csv, read_source
from ingestion.extracts.model import MissingColumnError, MissingSourceError, SourceFormatError
from ingestion.extracts.zurich import snapshot_moment


def source(text: str | bytes, name: str = "folder/file.csv") -> SourceFile:
    return SourceFile(name, text if isinstance(text, bytes) else text.encode())


def test_rows_carry_the_line_an_editor_shows() -> None:
    table = read_csv(source('\ufeffa,b\r\n1,"x\ny"\r\n\r\n2,z\r\n3\r\n4,5,6'), ["a", "b"])
    assert table.rows == [(2, {"a": "1", "b": "x\ny"}), (5, {"a": "2", "b": "z"})]
    assert [(problem.row, problem.reason) for problem in table.problems] == [
        (4, "malformed_row"),
        (6, "malformed_row"),
        (7, "malformed_row"),
    ]
    assert table.rows_read == 5


def test_a_missing_column_names_file_and_columns() -> None:
    with pytest.raises(MissingColumnError, match=r"folder/file.csv lacks the columns 'b', 'c'") as raised:
        read_csv(source("a\n1\n"), ["a", "b", "c"])
    assert raised.value.columns == ["b", "c"]
    with pytest.raises(MissingColumnError, match=r"folder/file\.csv"):
        read_csv(source(b""), ["a"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n\xff,1\n", "not UTF-8 .byte 4"),
        (b'a,b\n1,"x\n', "not valid CSV at line 2"),
        (b"a,b,a\n1,2,3\n", "names a column twice"),
    ],
)
def test_a_broken_file_is_named(content: bytes, message: str) -> None:
    with pytest.raises(SourceFormatError, match=f"folder/file.csv.*{message}"):
        read_csv(source(content), ["a", "b"])


def test_missing_folders_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingSourceError, match=r"nowhere.*does not exist"):
        read_source(tmp_path / "nowhere", "a.csv")
    with pytest.raises(MissingSourceError, match=r"nowhere.*does not exist"):
        find_sources(tmp_path / "nowhere", "*.csv")
    with pytest.raises(MissingSourceError, match=r"'b/a.csv' is not in the data folder"):
        read_source(tmp_path, "b/a.csv")
    with pytest.raises(MissingSourceError, match=r"no file 'b/\*.csv'"):
        find_sources(tmp_path, "b/*.csv")


@settings(max_examples=50)
@given(st.lists(st.tuples(st.text("ab\",\n\r'é "), st.text('ab",\n é '))))
def test_what_a_csv_writer_wrote_is_read_back(rows: list[tuple[str, str]]) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    table = read_csv(source(written.getvalue()), ["a", "b"])
    assert [(row["a"], row["b"]) for _, row in table.rows] == rows
    assert table.problems == []


def test_the_extract_id_follows_from_feed_and_content() -> None:
    at = snapshot_moment("zurich_20151001_hundehalter.csv")
    first = extract_id("owners", at, [source("a")])
    assert first == extract_id("owners", at, [source("a", name="elsewhere.csv")])
    assert first.startswith("20151001-")
    assert len({first, extract_id("pets", at, [source("a")]), extract_id("owners", at, [source("b")])}) == 3
