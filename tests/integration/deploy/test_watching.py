"""The dashboard and the alert rules: what they ask for is exported, and alerts fire when they should."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from hub.api.openai_errors import ERRORS
from hub.metrics import Metrics
from hub.storage.records import UsageRecord
from tunnel.stats import load_of

DEPLOY = Path(__file__).parents[3] / "deploy"


def exported() -> dict[str, set[str]]:
    """The Hub's metrics as samples are named, each with its labels."""
    metrics = Metrics(models=["tiny"], sessions=lambda: 0)
    metrics.answered("/v1/models", 200, "ok")
    metrics.used(UsageRecord("req_a", "key_a", "acme", "node_a", None, "tiny", 1, 0, 1, 1.0, 1.0, "ok", 0.0))
    for counts in (metrics.tunnel.stats.handshakes, metrics.tunnel.stats.ends):
        counts["any"] += 1
    metrics.tunnel.stats.resets["sent", "any"] += 1
    metrics.tunnel.watch(lambda: load_of([], 0))
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    return found


def alerts() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus-alerts.yaml").read_text())["groups"][
        0
    ]["rules"]
    return found


def expressions() -> list[str]:
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())]
    return shown + [rule["expr"] for rule in alerts()]


def test_every_metric_and_label_that_is_asked_for_is_exported() -> None:
    known = exported()
    for expression in expressions():
        for name, selector in re.findall(r"(porten_hub_[a-z_]+)(?:\{([^}]*)\})?", expression):
            assert name in known, expression
            labels = set(re.findall(r"([a-z_]+)(?:=~|!=|=)", selector)) - {"instance"}
            assert labels <= known[name], expression


def test_every_metric_of_the_hub_is_on_the_dashboard() -> None:
    shown = " ".join(expressions())
    families = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in exported()} - {""}
    assert {name for name in families if name not in shown} == set()


def test_the_codes_that_alerts_look_for_are_the_apis() -> None:
    named = {
        code
        for rule in alerts()
        for codes in re.findall(r'code=~"([^"]+)"', rule["expr"])
        for code in codes.split("|")
    }
    assert named
    assert named - ERRORS.keys() == set()


def test_the_dashboard_explains_itself() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert [panel["title"] for panel in panels if panel["type"] != "row" and not panel["description"]] == []
    assert all(set(rule["annotations"]) == {"summary", "description"} for rule in alerts())
    assert {rule["labels"]["severity"] for rule in alerts()} == {"page", "ticket"}


@pytest.fixture
def promtool() -> str:
    """Prometheus' own judge of rules."""
    if path := shutil.which("promtool"):
        return path
    pytest.skip("no promtool: on Debian, apt-get install prometheus")


def test_prometheus_takes_the_rules(promtool: str) -> None:
    said = subprocess.run(
        [promtool, "check", "rules", str(DEPLOY / "prometheus-alerts.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert f"SUCCESS: {len(alerts())} rules found" in said.stdout


SCENES = r"""
rule_files: [{rules}]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series:
      - {{ series: 'up{{job="porten-hub", instance="a"}}', values: "1x40" }}
      - {{ series: 'porten_hub_database_up{{instance="a"}}', values: "1x9 0x10 1x20" }}
      - {{ series: 'porten_hub_sessions{{instance="a"}}', values: "3x40" }}
      - {{ series: 'porten_hub_requests_total{{instance="a",code="ok"}}', values: "0+90x40" }}
      - {{ series: 'porten_hub_requests_total{{instance="a",code="node_lost"}}', values: "0+10x40" }}
    alert_rule_test:
      - {{ eval_time: 4m, alertname: PortenHubDatabaseAway, exp_alerts: [] }}
      - eval_time: 8m
        alertname: PortenHubDatabaseAway
        exp_alerts: [{{ exp_labels: {{ severity: page, instance: a }} }}]
      - {{ eval_time: 15m, alertname: PortenHubDatabaseAway, exp_alerts: [] }}
      - {{ eval_time: 5m, alertname: PortenHubFailing, exp_alerts: [] }}
      - eval_time: 18m
        alertname: PortenHubFailing
        exp_alerts: [{{ exp_labels: {{ severity: page, instance: a }} }}]
      - {{ eval_time: 18m, alertname: PortenHubNoNodes, exp_alerts: [] }}
      - {{ eval_time: 18m, alertname: PortenHubDown, exp_alerts: [] }}
"""


def test_alerts_fire_when_they_should_and_not_before(promtool: str, tmp_path: Path) -> None:
    """Annotations are left out of the rules: promtool would have each of them repeated."""
    document = yaml.safe_load((DEPLOY / "prometheus-alerts.yaml").read_text())
    for rule in document["groups"][0]["rules"]:
        del rule["annotations"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "scenes.yaml").write_text(SCENES.format(rules=tmp_path / "rules.yaml"))
    said = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "scenes.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
