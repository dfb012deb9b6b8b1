"""The alert rules, by Prometheus' own tool: each fires when it should, none when all is well."""

import re
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from backstay.flows import metrics, runfile
from kit import needs

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "backstay.rules.yaml"
FAMILIES = {family.name: family for family in (*metrics.FAMILIES, *runfile.FAMILIES)}
HOUR, DAY = 3600, 86400
VALUES = {
    "cluster": "prod",
    "repository": "s3://backups/prod",
    "command": "backup etcd",
    "version": "4.15.3",
}
#: A quarter of an hour apart, for thirty hours: enough for the longest `for`.
STEP, LENGTH = 900, 120


def series(name, verdict="pass"):
    """The name of a series of ours, with all its labels."""
    values = VALUES | {"verdict": verdict}
    labels = ",".join(f'{label}="{values[label]}"' for label in FAMILIES[name].labels)
    return f"{name}{{{labels}}}"


def constant(value):
    return f"{value}+0x{LENGTH}"


#: A time that is now whenever one looks; in these tests time begins at 0.
NOW = f"0+{STEP}x{LENGTH}"


def at(seconds):
    """A time in the past, when the test begins."""
    return constant(-seconds)


#: OpenShift's own metric of what it runs.
RUNS = 'cluster_version{{type="current",version="{}"}}'

WELL = {
    series("backstay_collected_timestamp_seconds"): NOW,
    series("backstay_backups"): constant(7),
    series("backstay_backups_unreadable"): constant(0),
    series("backstay_last_backup_checks"): constant(4),
    series("backstay_last_backup_checks", "fail"): constant(0),
    series("backstay_latest_timestamp_seconds"): NOW,
    series("backstay_latest_verified_timestamp_seconds"): NOW,
    series("backstay_latest_keys"): constant(1000),
    series("backstay_latest_bytes"): constant(1 << 20),
    series("backstay_verify_good_timestamp_seconds"): at(5 * DAY),
    series("backstay_verify_checks", "fail"): constant(0),
    series("backstay_drill_good_timestamp_seconds"): at(30 * DAY),
    series("backstay_drill_checks", "fail"): constant(0),
    series("backstay_run_exit_code"): constant(0),
    series("backstay_backups_kept_by_change"): constant(0),
    series("backstay_last_backup_change", "could_not_verify"): constant(0),
    series("backstay_last_backup_change"): constant(1),
    series("backstay_last_backup_members", "fail"): constant(0),
    series("backstay_last_backup_members", "could_not_verify"): constant(1),
    series("backstay_okd_restorable_timestamp_seconds"): constant(0),
    RUNS.format("4.15.3"): constant(1),
}
LAST = "29h"


def assert_firing(tmp_path, found, alerts, moment=LAST):
    """Exactly these alerts fire."""
    expected = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(alerts)]
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "15m",
        "tests": [
            {
                "interval": "15m",
                "input_series": [{"series": name, "values": x} for name, x in found.items()],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": moment,
                        "exp_samples": expected,
                    }
                ],
            }
        ],
    }
    path = tmp_path / "test.yaml"
    with path.open("w") as file:
        YAML(typ="safe").dump(document, file)
    done = subprocess.run(
        [needs.binary("promtool"), "test", "rules", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def without(name):
    return {key: value for key, value in WELL.items() if not key.startswith(f"{name}{{")}


def test_promtool_takes_the_rules():
    done = subprocess.run(
        [needs.binary("promtool"), "check", "rules", "--lint=all", "--lint-fatal", RULES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_fires_where_all_is_well(tmp_path):
    assert_firing(tmp_path, WELL, [])


@pytest.mark.parametrize(
    ("alert", "changed"),
    [
        ("BackstayMetricsStale", {series("backstay_collected_timestamp_seconds"): constant(0)}),
        ("BackstayBackupStale", {series("backstay_latest_timestamp_seconds"): constant(0)}),
        ("BackstayBackupBad", {series("backstay_last_backup_checks", "fail"): constant(1)}),
        (
            "BackstayBackupUnverified",
            {series("backstay_latest_verified_timestamp_seconds"): constant(0)},
        ),
        ("BackstayBackupShrunk", {series("backstay_backups_kept_by_change"): constant(1)}),
        (
            "BackstayBackupShrunk",
            {series("backstay_last_backup_change", "could_not_verify"): constant(1)},
        ),
        (
            "BackstayBackupShrunk",
            {
                series("backstay_backups_kept_by_change"): constant(1),
                series("backstay_last_backup_change", "could_not_verify"): constant(1),
            },
        ),
        ("BackstayMembersDiffer", {series("backstay_last_backup_members", "fail"): constant(1)}),
        ("BackstayManifestUnreadable", {series("backstay_backups_unreadable"): constant(2)}),
        ("BackstayVerifyStale", {series("backstay_verify_good_timestamp_seconds"): at(9 * DAY)}),
        ("BackstayVerifyFailed", {series("backstay_verify_checks", "fail"): constant(1)}),
        ("BackstayDrillStale", {series("backstay_drill_good_timestamp_seconds"): at(36 * DAY)}),
        ("BackstayDrillFailed", {series("backstay_drill_checks", "fail"): constant(1)}),
        ("BackstayRunFailed", {series("backstay_run_exit_code"): constant(1)}),
        ("BackstayRunFailed", {series("backstay_run_exit_code"): constant(143)}),
    ],
)
def test_an_alert_fires_alone(tmp_path, alert, changed):
    assert changed.keys() <= WELL.keys()
    assert_firing(tmp_path, WELL | changed, [alert])


@pytest.mark.parametrize(
    ("gone", "alert"),
    [
        ("backstay_collected_timestamp_seconds", "BackstayMetricsAbsent"),
        ("backstay_latest_timestamp_seconds", "BackstayNoGoodBackup"),
        ("backstay_latest_verified_timestamp_seconds", "BackstayBackupUnverified"),
        ("backstay_verify_good_timestamp_seconds", "BackstayVerifyStale"),
        ("backstay_drill_good_timestamp_seconds", "BackstayDrillStale"),
    ],
)
def test_what_never_was_is_told_too(tmp_path, gone, alert):
    assert_firing(tmp_path, without(gone), [alert])


@pytest.mark.parametrize(
    ("changed", "moment"),
    [
        ({series("backstay_latest_timestamp_seconds"): constant(0)}, "26h"),
        # A compaction: no check says that something changed.
        ({series("backstay_latest_bytes"): "1000+0x33 400+0x86"}, LAST),
        # Could not verify: told where no verified backup comes after it, and not before.
        ({series("backstay_run_exit_code"): constant(4)}, LAST),
    ],
)
def test_what_is_just_tolerable_fires_nothing(tmp_path, changed, moment):
    assert_firing(tmp_path, WELL | changed, [], moment)


def test_a_release_that_no_backup_restores_is_told(tmp_path):
    upgraded = {name: value for name, value in WELL.items() if "cluster_version" not in name}
    upgraded[RUNS.format("4.15.4")] = constant(1)
    assert_firing(tmp_path, upgraded, ["BackstayOkdReleaseNotBackedUp"])
    assert_firing(tmp_path, upgraded, [], "3h")
    # Where no backup of OKD is watched there is nothing to say of its release.
    assert_firing(tmp_path, {k: v for k, v in upgraded.items() if "okd" not in k}, [])


def test_backups_that_are_gone_are_told_though_no_series_has_their_cluster_any_more(tmp_path):
    of_cluster = {
        key: value if "run" in key else value.rpartition("x")[0] + "x60"
        for key, value in WELL.items()
        if 'cluster="prod"' in key
    }
    assert_firing(tmp_path, WELL | of_cluster, ["BackstayBackupsGone"])
    # Where nothing comes in at all, that is what is told.
    nothing = {key: value.rpartition("x")[0] + "x60" for key, value in WELL.items()}
    assert_firing(tmp_path, nothing, ["BackstayMetricsAbsent"])


def rules():
    groups = YAML(typ="safe").load(RULES)["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_rule_asks_for_metrics_that_there_are_and_has_a_page(rule):
    asked = set(re.findall(r"backstay_\w+", rule["expr"]))
    assert asked
    assert asked <= FAMILIES.keys()
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor == rule["alert"].lower()
    assert f"### {rule['alert']}\n" in (ROOT / page).read_text()


def test_the_page_has_no_other_alerts():
    named = re.findall(r"^### (\w+)$", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(rule["alert"] for rule in rules())
