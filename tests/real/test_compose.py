"""The compose file, read by the library that `docker compose config` is made of; no container is started."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .parts import missing

ROOT = Path(__file__).parents[2]
READER = Path(__file__).with_name("compose")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    go = shutil.which("go")
    if go is None:
        missing("there is no Go to build compose's reader with")
    read = subprocess.run(
        [go, "run", ".", str(ROOT / "compose.yaml")], cwd=READER, check=False, capture_output=True, text=True
    )
    assert (read.returncode, "level=warning" in read.stderr) == (0, False), read.stderr
    found: dict[str, Any] = json.loads(read.stdout)["services"]
    return found


def test_images_have_exact_versions(services):
    for service in services.values():
        version = service["image"].rpartition(":")[2]
        assert version.lstrip("v").count(".") == 2, service["image"]


def test_what_is_mounted_exists_and_is_read_only(services):
    for service in services.values():
        for volume in service["volumes"]:
            assert Path(volume["source"]).exists(), volume
            assert volume["read_only"]


def test_ports_are_for_this_machine_only(services):
    assert {port["host_ip"] for service in services.values() for port in service["ports"]} == {"127.0.0.1"}


def test_what_is_provisioned_is_found_where_grafana_looks(services):
    mounted = {volume["target"]: Path(volume["source"]) for volume in services["grafana"]["volumes"]}
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    folder, name = home.rsplit("/", 1)
    assert (mounted[folder] / name).exists()
    provided = (mounted["/etc/grafana/provisioning"] / "dashboards" / "overcoat.yaml").read_text()
    assert folder in provided


def test_only_settings_that_the_collector_reads_are_made(services):
    config = (ROOT / "otel-collector.yaml").read_text()
    for name in services["collector"]["environment"]:
        assert f"${{env:{name}:-" in config
