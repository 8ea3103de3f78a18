"""Reports on disk."""

import json
from pathlib import Path

import pytest

from evaluation.report import Report, ReportTable, check_report_path, write_atomically
from retrieval.errors import InvalidRequestError

REPORT = Report(
    "Title", ["fact one", "fact two"], [ReportTable("Scores", ["a", "b"], [["de", "1.5"]])], {"größe": 1.5}
)


def test_markdown_and_json(tmp_path: Path) -> None:
    for name in ("report.md", "report.json"):
        (tmp_path / name).write_text("an older report that is much longer than the new one " * 20)
        check_report_path(tmp_path / name)
        REPORT.write(tmp_path / name)
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == (
        "# Title\n\n- fact one\n- fact two\n\n## Scores\n\n| a | b |\n| --- | ---: |\n| de | 1.5 |\n"
    )
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == {"größe": 1.5}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]


def test_a_report_that_cannot_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"ends in \.md or \.json"):
        check_report_path(tmp_path / "report.txt")
    with pytest.raises(InvalidRequestError, match="does not exist"):
        check_report_path(tmp_path / "nowhere" / "report.md")


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "report.md").mkdir()
    with pytest.raises(InvalidRequestError, match="cannot write"):
        write_atomically(tmp_path / "report.md", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
