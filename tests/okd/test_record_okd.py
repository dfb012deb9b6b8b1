"""`record okd`: what an OKD cluster's etcd is told, recorded on one of its hosts, and its keys."""

import base64
import datetime as dt
import json
import time

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.repo.catalogue import Repository
from backstay.repo.keyring import headers
from backstay.repo.stores.file import FileStore
from kit import kube
from kit.certificates import Authority
from kit.etcd import ServerTls
from kit.okd_host import INFRASTRUCTURE, VERSION, OkdHost, okd_etcd
from kit.recorder import last_recorded, running

SECRET = b"/kubernetes.io/secrets/default/late"
ROUTE = b"/openshift.io/routes/default/late"
NEW = b"another key, of thirty-two bytes"


@pytest.fixture
def etcd(tmp_path):
    """One that a test may write to."""
    with okd_etcd(tmp_path / "own") as etcd:
        yield etcd


@pytest.fixture
def words(host):
    return ("okd", "--host-root", host.root)


def put(etcd, key, value):
    with Client(etcd.access) as client:
        return client.put(key, value)


def sealed(name, key=NEW, where=SECRET):
    return kube.sealed("aescbc", name, key, kube.secret("late", "default"), where)


def backups(cli):
    """Newest last."""
    return sorted(cli("list", "--json").json, key=lambda one: one["revision"])


def recorded_keys(cli):
    """What recorders have saved."""
    found = headers(Repository.open(FileStore(cli.folder.parent / "keys")))
    return [one.header for one in found if one.header.lineage]


def rotate(host: OkdHost, name: str):
    """The operator rolls out a key to be written with."""
    document = json.loads(host.encryption_config.read_text())
    for rule in document["resources"]:
        for provider in rule["providers"]:
            if "aescbc" in provider:
                key = {"name": name, "secret": base64.b64encode(NEW).decode()}
                provider["aescbc"]["keys"].insert(0, key)
    temporary = host.encryption_config.with_name("new")
    temporary.write_text(json.dumps(document))
    temporary.replace(host.encryption_config)


def never():
    """Hours that are not now."""
    now = dt.datetime.now().astimezone()
    first, last = now + dt.timedelta(hours=8), now + dt.timedelta(hours=9)
    return f"{first:%H:%M}-{last:%H:%M}"


def other_certificates(etcd, host):
    """Everything is signed by another authority from now on."""
    authority = Authority.make("etcd-signer-2")
    hosts = (etcd.address, "localhost", "127.0.0.1")
    serving = authority.issue("etcd-serving", hosts=hosts)
    etcd.tls = ServerTls(authority, serving, authority.issue("etcd-peer", hosts=hosts))
    host.write_certificates()


def restore(cli, backup, head, target, expect=0):
    return cli(
        *("restore", "okd", backup, "--identity", "identity.txt", "--version", VERSION),
        *("--output-dir", target, "--to-revision", head, "--json"),
        expect=expect,
    )


def test_what_it_records_comes_back_as_a_pair(cli, etcd, words, tmp_path):
    with running(cli, *words) as recorder:
        recorder.until(lambda: last_recorded(cli, INFRASTRUCTURE))
        head = put(etcd, b"/later", b"2")
        recorder.until(lambda: last_recorded(cli, INFRASTRUCTURE) >= head)
        moment = dt.datetime.now(dt.UTC)
        # Times are noted a few milliseconds apart.
        time.sleep(0.05)
        last = put(etcd, b"/later", b"too late")
        recorder.until(lambda: last_recorded(cli, INFRASTRUCTURE) >= last)
    [full] = backups(cli)
    assert full["kind"] == "okd"
    verdicts = {check["name"]: check["verdict"] for check in full["checks"]}
    assert {verdicts["keys"], verdicts["partner"], verdicts["members"]} == {"PASS"}
    assert recorded_keys(cli) == []
    done = restore(cli, full["id"], head, tmp_path / "restored")
    assert done.json["point"]["deltas"] > 0
    # The same by its time.
    timed = cli(
        *("restore", "okd", full["id"], "--identity", "identity.txt", "--version", VERSION),
        *("--output-dir", tmp_path / "timed", "--to-time", moment.isoformat(), "--json"),
    )
    assert timed.json["point"]["to_revision"] == head
    # It goes on where it ended.
    with running(cli, *words) as recorder:
        head = put(etcd, b"/later", b"3")
        recorder.until(lambda: last_recorded(cli, INFRASTRUCTURE) >= head)
    assert len(backups(cli)) == 1


def test_a_consolidated_backup_has_its_tar_and_its_keys(cli, etcd, words, tmp_path):
    with running(cli, *words) as recorder:
        recorder.until(lambda: last_recorded(cli, INFRASTRUCTURE))
        head = put(etcd, b"/later", b"2")
        recorder.until(lambda: last_recorded(cli, INFRASTRUCTURE) >= head)
    [base] = backups(cli)
    identity = ("--identity", "identity.txt")
    made = cli("consolidate", "--cluster", INFRASTRUCTURE, *identity, "--json").json["manifest"]
    verdicts = {check["name"]: check["verdict"] for check in made["checks"]}
    assert {"transfer", "keys", "partner", "proof"} < set(verdicts)
    assert set(verdicts.values()) == {"PASS"}
    assert (made["kind"], made["revision"]) == ("okd", head)
    assert made["okd"]["archive_sha256"] == base["okd"]["archive_sha256"]
    assert made["okd"]["etcd_revision"] is None
    keys = ("--keys-repo", cli.variables["BACKSTAY_KEYS_REPO"])
    found = cli("verify", made["id"], "--read-data", *identity, *keys, "--json").json
    assert {check["verdict"] for check in found["checks"]} == {"PASS"}
    target = tmp_path / "restored"
    cli(
        *("restore", "okd", made["id"], *identity, "--version", VERSION),
        *("--output-dir", target, "--json"),
    )
    [snapshot] = target.glob("snapshot*.db")
    assert cli("status", snapshot, "-w", "json").json["revision"] == head


def test_promise_5_a_new_key_of_kube_apiserver_is_saved_with_its_tar_and_a_backup_follows(
    cli, etcd, host, words, tmp_path
):
    with running(cli, *words) as recorder:
        recorder.until(lambda: last_recorded(cli, INFRASTRUCTURE))
        # Another API server's keys are in etcd itself.
        head = put(etcd, ROUTE, sealed("7", where=ROUTE))
        recorder.until(lambda: last_recorded(cli, INFRASTRUCTURE) >= head)
        assert recorded_keys(cli) == []
        with Client(etcd.access) as client:
            client.delete(ROUTE)
        rotate(host, "8")
        head = put(etcd, SECRET, sealed("8"))
        recorder.until(lambda: last_recorded(cli, INFRASTRUCTURE) >= head)
        [header] = recorded_keys(cli)
        assert "8" in {label.key_name for label in header.keys}
        assert header.archive is not None
        recorder.until(lambda: len(backups(cli)) == 2)
        last = put(etcd, b"/later", b"2")
        recorder.until(lambda: last_recorded(cli, INFRASTRUCTURE) >= last)
    newest = backups(cli)[-1]
    assert header.lineage == newest["snapshots"][0]["lineage"]
    done = restore(cli, newest["id"], last, tmp_path / "restored", expect=None)
    verdicts = {check["name"]: check["verdict"] for check in done.json["checks"]}
    assert verdicts["keys"] == "PASS"


def test_the_client_is_made_anew_from_the_hosts_files(cli, etcd, host, words):
    """Its certificate is another, and so is who signs: what was read once would not do for ever."""
    with running(cli, *words, "--patience", "2s") as recorder:
        recorder.until(lambda: last_recorded(cli, INFRASTRUCTURE))
        etcd.kill()
        recorder.says("another one begins")
        other_certificates(etcd, host)
        etcd.launch()
        head = put(etcd, b"/later", b"2")
        recorder.until(lambda: last_recorded(cli, INFRASTRUCTURE) >= head)
    assert len(backups(cli)) == 1


def test_without_rules_that_let_it_there_is_no_full_backup_and_it_is_told(cli, etcd, host, words):
    del etcd, host
    with running(cli, *words, "--window", never()) as recorder:
        recorder.says("the full backup failed")
        assert "window" in recorder.told
    assert backups(cli) == []


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        (("--host-root", "/nowhere"), 2, "/nowhere"),
        (("--every", "0s"), 2, "--every"),
        (("--cluster", "NO"), 2, "no name for a cluster"),
    ],
)
def test_what_makes_no_sense_is_refused(cli, words, more, code, told):
    assert told in cli("record", *words, *more, expect=code).err
