"""`overcoat dashboards export`: what it writes, for whom, and what it says where it cannot."""

import json
from pathlib import Path

import pytest

from overcoat.cli import main


@pytest.fixture
def export(tmp_path, capsys):
    def run(*arguments):
        code = main(["dashboards", "export", str(tmp_path / "out"), *arguments])
        return code, tmp_path / "out", capsys.readouterr()

    return run


def test_it_writes_what_grafana_prometheus_and_jaeger_take(export):
    code, folder, printed = export()
    assert code == 0
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"grafana/overview.json", "prometheus/overcoat.rules.yaml", "jaeger/ui.json"} <= files
    assert {Path(line) for line in printed.out.splitlines()} == {folder / name for name in files}


def test_the_searches_are_for_the_service_that_is_named(export):
    _, folder, _ = export("--service", "shop & search", "--grafana", "https://grafana.example/")
    text = (folder / "jaeger" / "ui.json").read_text()
    for item in json.loads(text)["menu"][0]["items"]:
        assert item["url"].startswith("/search?service=shop%20%26%20search&")
    assert "https://grafana.example/d/overcoat-overview" in text
    assert "overcoat-demo" not in text
    assert "localhost" not in text


def test_the_boards_are_overcoat_s_and_each_has_a_uid_of_its_own(export):
    _, folder, _ = export()
    boards = [json.loads(path.read_text()) for path in (folder / "grafana").glob("*.json")]
    assert len({board["uid"] for board in boards}) == len(boards) >= 4
    assert all(board["title"].startswith("overcoat: ") and board["panels"] for board in boards)


def test_a_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["dashboards", "export", str(tmp_path / "file" / "out")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err
