"""The alerting rules that ship, judged by promtool: by their own tests, and for every alert having one."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .parts import missing

FOLDER = Path(__file__).parents[2] / "dashboards" / "prometheus"


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yaml"),
        ("check", "rules", "--lint-fatal", "overcoat.rules.yaml"),
        ("test", "rules", "overcoat.rules.test.yaml"),
    ],
    ids=" ".join,
)
def test_promtool_has_no_complaint(arguments):
    promtool = shutil.which("promtool")
    if promtool is None:
        missing("there is no promtool (Debian, Ubuntu: apt install prometheus)")
    judged = subprocess.run([promtool, *arguments], cwd=FOLDER, check=False, capture_output=True, text=True)
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_every_alert_has_a_test_in_which_it_fires():
    alerts = re.findall(r"- alert: (\w+)", (FOLDER / "overcoat.rules.yaml").read_text())
    fired = re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n", (FOLDER / "overcoat.rules.test.yaml").read_text())
    assert set(fired) == set(alerts)
