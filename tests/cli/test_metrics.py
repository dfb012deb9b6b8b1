"""`backstay metrics`, and the lines that runs leave with --metrics-file."""

import re
import signal
import stat
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backstay.flows import metrics, runfile
from kit import process

BACKUP = ("backup", "etcd", "--cluster", "prod")
DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def values(text, **labels):
    """Each metric's value, where it has these labels."""
    return {
        sample.name: sample.value
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
        if labels.items() <= sample.labels.items()
    }


def test_a_repository_is_measured(cli, file_repo, identity, tmp_path):
    began = time.time()
    made = cli(*BACKUP, "--json").json
    cli("drill", "prod/latest")
    path = tmp_path / "backstay.prom"
    cli("metrics", "-o", path)
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    found = values(text, cluster="prod", repository=f"file://{file_repo}")
    assert began - 1 <= found["backstay_latest_timestamp_seconds"] <= time.time()
    assert found["backstay_latest_revision"] == made["revision"]
    assert found["backstay_latest_keys"] == made["total_keys"]
    assert found["backstay_latest_duration_seconds"] == made["seconds"] > 0
    assert found["backstay_latest_bytes"] == made["objects"][0]["size"]
    stored = sum(file.stat().st_size for file in file_repo.rglob("*.age"))
    assert found["backstay_latest_stored_bytes"] == found["backstay_stored_bytes"] == stored
    assert found["backstay_backups"] == found["backstay_backups_verified"] == 1
    assert found["backstay_backups_failed"] == found["backstay_backups_unreadable"] == 0
    assert found["backstay_drill_restore_seconds"] > 0
    assert found["backstay_drill_good_timestamp_seconds"] >= began - 1
    passed = values(text, verdict="pass")
    assert passed["backstay_last_backup_checks"] == len(made["checks"])
    assert passed["backstay_drill_checks"] > 3
    assert "backstay_verify_timestamp_seconds" not in found
    printed = cli("metrics", "--cluster", "prod").out
    assert values(printed, cluster="prod") == values(text, cluster="prod")
    document = cli("metrics", "--json").json
    [revision] = [one for one in document if one["name"] == "backstay_latest_revision"]
    assert revision["value"] == made["revision"]
    assert revision["labels"] == {"cluster": "prod", "repository": f"file://{file_repo}"}


def test_a_repository_that_is_gone_leaves_the_file_as_it_was(cli, file_repo, tmp_path):
    path = tmp_path / "backstay.prom"
    cli("metrics", "-o", path)
    before = path.read_bytes()
    file_repo.rename(tmp_path / "gone")
    cli("metrics", "-o", path, expect=1)
    assert path.read_bytes() == before


def test_what_is_none_of_ours_is_not_overwritten(cli, file_repo, tmp_path):
    path = tmp_path / "node.prom"
    path.write_text("node_load1 1\n")
    cli("metrics", "-o", path, expect=5)
    cli(*BACKUP, "--metrics-file", path, expect=1)
    assert path.read_text() == "node_load1 1\n"


def test_a_run_leaves_how_it_ended(cli, file_repo, identity, tmp_path):
    path = tmp_path / "runs.prom"
    cli.variables["BACKSTAY_METRICS_FILE"] = str(path)
    asked = cli(*BACKUP, "--json").json["checks"]
    first = values(path.read_text(), command="backup etcd", cluster="prod")
    assert first["backstay_run_exit_code"] == 0
    assert first["backstay_run_good_timestamp_seconds"] == first["backstay_run_timestamp_seconds"]
    assert first["backstay_run_duration_seconds"] > 0
    assert values(path.read_text(), verdict="pass")["backstay_run_checks"] == len(asked)
    cli(*BACKUP, "--endpoints", "127.0.0.1:1", "--dial-timeout", "300ms", expect=1)
    failed = values(path.read_text(), command="backup etcd", cluster="prod")
    assert failed["backstay_run_exit_code"] == 1
    assert failed["backstay_run_timestamp_seconds"] > first["backstay_run_timestamp_seconds"]
    good = "backstay_run_good_timestamp_seconds"
    assert failed[good] == first[good]
    cli("verify", "prod/latest")
    cli("drill", "prod/latest")
    text = path.read_text()
    assert values(text, command="verify", cluster="prod")["backstay_run_exit_code"] == 0
    assert values(text, command="drill", cluster="prod")["backstay_run_exit_code"] == 0
    assert values(text, command="backup etcd", cluster="prod") == failed


def test_a_look_is_no_run(cli, file_repo, identity, tmp_path):
    path = tmp_path / "runs.prom"
    cli.variables["BACKSTAY_METRICS_FILE"] = str(path)
    cli(*BACKUP, "--dry-run")
    cli("prune", "--keep-last", "1")
    assert not path.exists()
    cli(*BACKUP)
    cli("prune", "--keep-last", "1", "--yes")
    cli("export", "prod/latest", "-o", tmp_path / "taken" / "a.db", expect=1)
    (tmp_path / "taken").mkdir()
    cli("export", "prod/latest", "-o", tmp_path / "taken" / "a.db")
    cli("import", tmp_path / "taken", "--cluster", "other", "--dry-run")
    text = path.read_text()
    assert values(text, command="prune", cluster="")["backstay_run_exit_code"] == 0
    assert values(text, command="import") == {}
    cli("import", tmp_path / "taken", "--cluster", "other")
    found = values(path.read_text(), command="import", cluster="other")
    assert found["backstay_run_exit_code"] == 0


def test_a_check_that_failed_is_seen(cli, file_repo, tmp_path):
    cli(*BACKUP)
    [stored] = file_repo.rglob("*.age")
    stored.chmod(0o600)
    data = bytearray(stored.read_bytes())
    data[-1] ^= 1
    stored.write_bytes(data)
    path = tmp_path / "runs.prom"
    cli("verify", "prod/latest", "--metrics-file", path, expect=3)
    text = path.read_text()
    assert values(text, command="verify")["backstay_run_exit_code"] == 3
    assert values(text, verdict="fail")["backstay_run_checks"] == 1
    found = values(cli("metrics").out, cluster="prod")
    assert found["backstay_backups_failed"] == 1
    assert "backstay_latest_timestamp_seconds" not in found


def test_a_command_line_without_sense_is_no_run(cli, file_repo, tmp_path):
    path = tmp_path / "runs.prom"
    cli("backup", "etcd", "--metrics-file", path, expect=2)
    assert not path.exists()
    # Where it is known what it was about, it is.
    cli(*BACKUP, "--metrics-file", path, "--recipient", "age1nonsense", expect=2)
    assert values(path.read_text(), cluster="prod")["backstay_run_exit_code"] == 2


def test_a_run_that_can_not_be_written_down_is_no_good_one(cli, file_repo, tmp_path):
    done = cli(*BACKUP, "--metrics-file", tmp_path / "nowhere" / "x.prom", expect=1)
    assert "could not be written down" in done.err
    assert cli("list", "--json").json


def test_a_run_that_is_stopped_says_so(cli, file_repo, etcd, tmp_path):
    path = tmp_path / "runs.prom"
    # Nobody answers there, so that it can be stopped in the middle.
    words = (*BACKUP, "--metrics-file", path, "--endpoints", "192.0.2.1:2379")
    running = process.start(
        [*words, "--dial-timeout", "60s", "--command-timeout", "60s"], cli.folder, cli.variables
    )
    process.wait_until(lambda: _listens(running.pid))
    _, err, _ = process.stop(running, signal.SIGTERM)
    assert running.returncode == 143, err
    assert values(path.read_text(), cluster="prod")["backstay_run_exit_code"] == 143


def scrape(port, path="metrics"):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
        return answer.read().decode()


def test_metrics_are_served_and_kept_fresh(cli, file_repo):
    made = cli(*BACKUP, "--json").json
    words = ("metrics", "--listen", "127.0.0.1:0", "--every", "100ms")
    running = process.start(words, cli.folder, cli.variables)
    try:
        _keeps_fresh(cli, file_repo, made, running)
        _, err, _ = process.stop(running, signal.SIGTERM)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 143, err
    assert "Traceback" not in err


def _keeps_fresh(cli, file_repo, made, running):
    told = running.stderr.readline()
    port = int(re.search(r"port (\d+)", told)[1])
    found = values(scrape(port), cluster="prod")
    assert found["backstay_latest_revision"] == made["revision"]
    assert values(scrape(port, "metrics?name[]=backstay_backups")) == {"backstay_backups": 1}
    cli(*BACKUP)
    process.wait_until(lambda: values(scrape(port), cluster="prod")["backstay_backups"] == 2)
    hidden = file_repo.parent / "gone"
    file_repo.rename(hidden)
    assert "could not be read" in running.stderr.readline()
    before = scrape(port)
    assert values(before, cluster="prod")["backstay_backups"] == 2
    hidden.rename(file_repo)
    collected = "backstay_collected_timestamp_seconds"
    process.wait_until(lambda: values(scrape(port))[collected] > values(before)[collected])


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--listen", "9479"), 2, "no address"),
        (("--listen", ":99999"), 2, "no address"),
        (("--listen", "[::1:80"), 2, "no address"),
        (("--listen", ":0", "--every", "0s"), 2, "never stop"),
        (("--listen", ":0", "-o", "x.prom"), 2, "leave out"),
        (("--listen", "192.0.2.1:9479"), 1, "nobody can listen"),
        (("--cluster", "NO"), 2, "no name"),
    ],
)
def test_what_can_not_be_served_is_told(cli, file_repo, words, code, told):
    assert told in cli("metrics", *words, expect=code).err


def _listens(pid):
    """Whether the program handles SIGTERM by now, and has opened a connection."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1]
    handled = int(caught, 16) >> (signal.SIGTERM - 1) & 1
    return handled and "grpc" in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.parametrize("family", [*metrics.FAMILIES, *runfile.FAMILIES], ids=lambda f: f.name)
def test_each_metric_is_in_the_docs_with_its_labels_and_meaning(family):
    [row] = [line for line in DOCS.read_text().splitlines() if f"| `{family.name}` |" in line]
    _, _, labels, meaning, _ = (cell.strip() for cell in row.split("|"))
    assert labels == ", ".join(f"`{label}`" for label in family.labels)
    assert meaning == family.help.rstrip(".")


def test_the_docs_have_no_other_metrics():
    named = set(re.findall(r"`(backstay_\w+)`", DOCS.read_text()))
    assert named == {family.name for family in (*metrics.FAMILIES, *runfile.FAMILIES)}
