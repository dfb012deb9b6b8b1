"""`backup okd` under its guards: what refuses leaves nothing, what is skipped is named."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from backstay.clock import SystemClock
from backstay.kinds.okd import reach
from backstay.kinds.okd.guards import NAMES
from backstay.kinds.okd.lease import ANNOTATION, NAME, NAMESPACE, Turn
from backstay.kubeapi.connect import connect
from backstay.kubeapi.resource import LEASES
from kit import okd_api, s3, wire
from kit.certificates import Authority, days
from kit.okd_host import NODE, VERSION


@pytest.fixture
def backup(host, cli):
    """Backs that host up."""
    return lambda *words, **more: cli("backup", "okd", "--host-root", host.root, *words, **more)


def listed(cli):
    return cli("list", "--json").json


def lease(kube):
    return kube.get(LEASES, NAME, NAMESPACE)


def young(host):
    """Put a certificate of the installer's among those of the host."""
    begin = datetime.now(UTC) - timedelta(hours=30)
    made = Authority.make().issue("first", start=begin, end=begin + timedelta(hours=24))
    path = "static-pod-resources/kube-apiserver-certs/secrets/aggregator-client/tls.crt"
    host.write(f"etc/kubernetes/{path}", made.certificate)


def break_rotation(host, kube):
    kube.put(okd_api.cluster_version(installed=datetime.now(UTC) - timedelta(hours=2)))


def break_rotation_of_the_host(host, kube):
    kube.put(okd_api.cluster_version(installed=datetime.now(UTC) - timedelta(hours=30)))
    young(host)


def break_operators(host, kube):
    kube.put(okd_api.operator("etcd", progressing="True"))


def break_upgrade(host, kube):
    kube.put(okd_api.cluster_version(partial="4.15.4"))


def break_interval(host, kube):
    now = datetime.now(UTC) - timedelta(minutes=5)
    note = json.dumps({"node": "master-7", "at": now.isoformat()})
    document = okd_api.of(LEASES, NAME)
    document["metadata"] |= {"namespace": NAMESPACE, "annotations": {ANNOTATION: note}}
    kube.put(document)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("rotation", break_rotation),
        ("rotation", break_rotation_of_the_host),
        ("operators", break_operators),
        ("upgrade", break_upgrade),
        ("interval", break_interval),
    ],
)
def test_promise_1_a_guard_that_refuses_leaves_nothing_and_force_is_named(
    host, kube, cli, backup, tmp_path, name, spoil
):
    spoil(host, kube)
    done = backup(expect=5)
    assert f"backstay: {name}: " in done.err
    assert "--force" in done.err
    assert listed(cli) == []
    out = tmp_path / "out"
    backup("--output-dir", out, expect=5)
    assert not out.exists() or not list(out.iterdir())
    # By force, and it is said where whoever restores it looks.
    manifest = backup("--force", "--json").json
    assert manifest["okd"]["forced"] == [name]
    assert "__POSSIBLY_DIRTY__" in manifest["okd"]["snapshot_name"]
    assert name not in {check["name"] for check in manifest["checks"]}


def test_nothing_is_marked_where_force_skipped_nothing(kube, backup):
    manifest = backup("--force", "--json").json
    assert manifest["okd"]["forced"] == []
    assert "DIRTY" not in manifest["okd"]["snapshot_name"]
    guarded = [check["name"] for check in manifest["checks"] if check["name"] in NAMES]
    assert guarded == [name for name in NAMES if name != "window"]
    assert {check["verdict"] for check in manifest["checks"]} == {"PASS"}


def test_outside_of_the_hours(kube, cli, backup):
    now = datetime.now().astimezone()
    begin, end = now + timedelta(hours=2), now + timedelta(hours=3)
    window = f"{begin:%H:%M}-{end:%H:%M}"
    assert f"outside {window}; wait until" in backup("--window", window, expect=5).err
    assert listed(cli) == []
    begin, end = now - timedelta(hours=1), now + timedelta(hours=1)
    assert backup("--window", f"{begin:%H:%M}-{end:%H:%M}", "--json").json["okd"]["forced"] == []
    assert "no window" in backup("--window", "1-5", expect=2).err


# Without an API


def test_promise_4_without_an_api_safety_refuses(cli, no_api, backup):
    done = backup(expect=5)
    assert "there is no API at hand" in done.err
    assert listed(cli) == []
    manifest = backup("--force", "--json", expect=4).json
    assert manifest["okd"]["forced"] == ["rotation", "operators", "upgrade"]
    # etcd told name and release; that there is no Lease, and no word of a proxy, is said.
    assert (manifest["cluster"], manifest["okd"]["version"]) == ("prod-x7k2p", VERSION)
    dark = {it["name"] for it in manifest["checks"] if it["verdict"] == "COULD NOT VERIFY"}
    assert dark == {"proxy", "interval"}


def test_the_kubeconfig_that_the_host_has_will_do(host, kube, no_api, backup):
    host.write(reach.LOCAL.lstrip("/"), kube.kubeconfig.read_bytes(), 0o600)
    assert {it["verdict"] for it in backup("--json").json["checks"]} == {"PASS"}


def test_what_the_host_s_kubeconfig_names_is_the_host_s(host, kube, no_api, backup):
    """Links and certificates, relative and absolute, below the root and not on this machine."""
    document = YAML(typ="safe").load(kube.kubeconfig.read_text())
    [cluster], [user] = document["clusters"], document["users"]
    folder = reach.LOCAL.rpartition("/")[0].lstrip("/")
    authority = cluster["cluster"].pop("certificate-authority-data")
    host.write("etc/here-alone/ca.crt", base64.b64decode(authority))
    cluster["cluster"]["certificate-authority"] = "/etc/here-alone/ca.crt"
    host.write(f"{folder}/token", user["user"]["token"])
    user["user"] = {"tokenFile": "../node-kubeconfigs/token"}
    host.write("etc/elsewhere/config", json.dumps(document).encode(), 0o600)
    link = host.root / reach.LOCAL.lstrip("/")
    link.symlink_to("/etc/elsewhere/config")
    assert not Path("/etc/here-alone").exists()
    assert {it["verdict"] for it in backup("--json").json["checks"]} == {"PASS"}


@pytest.mark.parametrize("target", ["/../outside", "../../../../../../../../../../outside"])
def test_a_kubeconfig_that_leads_out_of_the_host_is_none(host, kube, no_api, backup, target):
    (host.root.parent / "outside").write_bytes(kube.kubeconfig.read_bytes())
    link = host.root / reach.LOCAL.lstrip("/")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    done = backup(expect=5)
    assert "leads out of the host's root" in done.err


def test_a_program_of_the_host_is_not_run(host, kube, no_api, backup):
    document = YAML(typ="safe").load(kube.kubeconfig.read_text())
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/true"}
    document["users"][0]["user"] = {"exec": plugin}
    host.write(reach.LOCAL.lstrip("/"), json.dumps(document).encode(), 0o600)
    assert "that is not run here" in backup(expect=5).err


def test_which_kubeconfig(host, kube, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(reach, "connect", lambda *found, **more: asked.append((*found, more)))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(reach, "SERVICE_ACCOUNT", tmp_path / "account")
    reach._connect(None, "c", host.root)
    host.write(reach.LOCAL.lstrip("/"), b"")
    reach._connect(None, "c", host.root)
    reach._connect(tmp_path, "c", host.root)
    # The pod's own account has fewer rights than the host's kubeconfig: it goes first.
    (tmp_path / "account").mkdir()
    (tmp_path / "account" / "token").touch()
    reach._connect(None, "c", host.root)
    (tmp_path / "account" / "token").unlink()
    monkeypatch.setenv("KUBECONFIG", "/anywhere")
    reach._connect(None, "c", host.root)
    own = {"read": reach.HostFiles(host.root)}
    elsewhere = (None, "c", {})
    assert asked == [
        elsewhere,
        (Path(reach.LOCAL), "c", own),
        (tmp_path, "c", {}),
        elsewhere,
        elsewhere,
    ]


def test_a_kubeconfig_that_is_named_and_wrong_is_an_error(backup, tmp_path):
    (tmp_path / "odd").write_text("[]")
    backup("--kubeconfig", tmp_path / "odd", expect=2)
    backup("--kubeconfig", tmp_path / "none", "--force", expect=2)


def test_an_api_that_does_not_answer_is_none(kube, backup):
    kube.fail(500, times=10_000)
    assert "could not verify" in backup(expect=5).err
    assert backup("--force", "--json", expect=4).json["okd"]["forced"] == [
        "rotation",
        "operators",
        "upgrade",
    ]


# Two hosts


def other_host(kube, node="master-7", duration=30):
    return Turn(connect(kube.kubeconfig, None), node, clock=SystemClock(), duration=duration)


def test_a_host_that_is_at_work_keeps_others_from_it(kube, cli, backup):
    with other_host(kube, duration=3) as turn:
        assert turn.take().mine
        done = backup(expect=5)
        assert "master-7 is backing up this cluster now" in done.err
        assert listed(cli) == []
        assert lease(kube)["spec"]["holderIdentity"] == turn.identity
    turn._api.close()
    # Its name is off, and it finished nothing.
    backup()


def test_the_lease_is_given_back_and_says_who_did_it(kube, backup):
    backup()
    spec, note = lease(kube)["spec"], lease(kube)["metadata"]["annotations"][ANNOTATION]
    assert spec["holderIdentity"] == ""
    assert json.loads(note)["node"] == NODE
    # A backup that was refused is none.
    kube.put(okd_api.operator("etcd", progressing="True"))
    backup(expect=5)
    assert lease(kube)["spec"]["holderIdentity"] == ""
    assert lease(kube)["metadata"]["annotations"][ANNOTATION] == note


def test_the_lease_is_held_while_the_backup_is_made(kube, cli, backup, monkeypatch):
    from backstay.flows import backup as flow

    seen = []
    real = flow.backup

    def watched(*words, **more):
        seen.append(lease(kube)["spec"]["holderIdentity"])
        return real(*words, **more)

    monkeypatch.setattr(flow, "backup", watched)
    backup()
    assert [it.partition("_")[0] for it in seen] == [NODE]


def test_another_hosts_backup_in_the_repository_is_seen_by_the_stores_clock(
    host, kube, cli, backup, monkeypatch
):
    backup()
    kube.remove(LEASES, NAME, NAMESPACE)
    # The same files, on a host of another name.
    other = "master-1.prod.example"
    etcd = "etc/kubernetes/static-pod-resources/etcd-certs/secrets/etcd-all-certs"
    for suffix in ("crt", "key"):
        data = (host.root / etcd / f"etcd-peer-{NODE}.{suffix}").read_bytes()
        host.write(f"{etcd}/etcd-peer-{other}.{suffix}", data, 0o600)
    certs = "/etc/kubernetes/static-pod-certs/secrets/etcd-all-certs"
    host.write_env(
        ETCDCTL_CERT=f"{certs}/etcd-peer-{other}.crt",
        ETCDCTL_KEY=f"{certs}/etcd-peer-{other}.key",
        NODE_master_1_prod_example_ETCD_NAME=other,
        NODE_master_1_prod_example_IP=host.etcd.address,
    )
    done = backup(expect=5)
    assert f"interval: {NODE} backed up this cluster" in done.err
    assert len(listed(cli)) == 1
    backup("--min-interval", "0s")
    # The first host's own is no reason against its next one, nor is one of long ago.
    assert len(listed(cli)) == 2


def test_a_lease_that_cannot_be_had_is_told_and_stops_nobody(kube, cli, backup):
    done = backup("--lease-namespace", "nowhere", "--json", expect=4)
    [answer] = [it for it in done.json["checks"] if it["name"] == "interval"]
    assert answer["verdict"] == "COULD NOT VERIFY"
    assert "no namespace nowhere" in answer["detail"]
    assert len(listed(cli)) == 1
    kube.deny("create", LEASES)
    kube.deny("get", LEASES)
    backup(expect=4)
    assert len(listed(cli)) == 2


# After every upgrade


def test_a_backup_only_after_an_upgrade(kube, cli, backup):
    assert backup("--if-upgraded", "--json").json["okd"]["version"] == okd_api.VERSION
    idle = backup("--if-upgraded", "--json").json
    assert idle["backup"] == listed(cli)[0]["id"]
    assert "nothing to do" in backup("--if-upgraded").err
    # While it is under way nothing is due: what runs is still the release of before.
    kube.put(okd_api.cluster_version(partial="4.15.4"))
    assert "nothing to do" in backup("--if-upgraded").err
    history = [okd_api.update("4.15.4", began=days(-0.1)), okd_api.update(okd_api.VERSION)]
    kube.put(okd_api.cluster_version(version="4.15.4", history=history))
    assert "no restorable backup of the running release 4.15.4" in backup("--if-upgraded").err
    assert [it["okd"]["version"] for it in listed(cli)] == [okd_api.VERSION, "4.15.4"]
    assert "nothing to do" in backup("--if-upgraded").err


def test_promise_1_a_backup_without_its_partner_or_past_a_guard_is_none_of_the_release(
    kube, cli, backup, tmp_path
):
    kube.put(okd_api.operator("etcd", progressing="True"))
    backup("--force")
    kube.put(okd_api.operator("etcd"))
    assert "no restorable backup" in backup("--if-upgraded").err
    assert len(listed(cli)) == 2
    # Whoever verifies it sees that the tar is gone; then it restores nothing, and another is due.
    for path in (tmp_path / "keys").rglob("*"):
        if path.is_file() and path.name != "backstay.json":
            path.unlink()
    cli("verify", listed(cli)[-1]["id"], "--keys-repo", f"file://{tmp_path}/keys", expect=3)
    assert "no restorable backup" in backup("--if-upgraded").err


def test_if_upgraded_asks_a_repository(kube, backup, tmp_path):
    assert "--if-upgraded" in backup("--if-upgraded", "--output-dir", tmp_path, expect=2).err


# The cluster-wide proxy


@pytest.fixture
def server(tmp_path):
    with s3.plain(tmp_path / "s3") as server:
        yield server


def test_uploads_go_by_the_clusters_proxy(kube, cli, backup, server, monkeypatch):
    """The S3 server has a name that only the proxy knows."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    recipient = next(
        line.split(": ")[1]
        for line in (cli.folder / "identity.txt").read_text().splitlines()
        if "public key" in line
    )
    access = {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_ENDPOINT_URL_S3": "http://s3.inside.test",
        "BACKSTAY_REPO": "s3://backups/okd",
    }
    with wire.to(server.endpoint) as proxy:
        init = ("init", "--recipient", recipient, "--allow-http")
        cli(*init, **access, HTTP_PROXY=proxy.url)
        told = {"httpProxy": proxy.url, "httpsProxy": proxy.url}
        kube.put(okd_api.proxy(noProxy=".cluster.local,.svc", trusted="user-ca", **told))
        proxy.requests.clear()
        manifest = backup("--allow-http", "--json", **access).json
        assert any(
            line.startswith("PUT http://s3.inside.test/backups/okd/") for line in proxy.requests
        )
        # Neither etcd nor the API is reached by it.
        assert not [it for it in proxy.requests if "s3.inside.test" not in it]
        [answer] = [it for it in manifest["checks"] if it["name"] == "proxy"]
        assert answer["verdict"] == "PASS"
        assert f"http://s3.inside.test by {proxy.url}" in answer["detail"]
        assert "openshift-config/user-ca" in answer["detail"]
        # noProxy is honoured: nobody else knows that name.
        kube.put(okd_api.proxy(noProxy=".inside.test", **told))
        proxy.requests.clear()
        backup("--allow-http", **access, expect=1)
        assert proxy.requests == []


def test_a_proxy_that_cannot_be_used_refuses(kube, backup, cli):
    kube.put(okd_api.proxy(httpProxy="socks5://p:1", httpsProxy="socks5://p:1"))
    access = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1.example:1",
        "BACKSTAY_REPO": "s3://backups/okd",
    }
    assert "proxy: socks5://p:1 can't be used" in backup("--allow-http", expect=5, **access).err
    looked = cli("preflight", "okd", "--allow-http", "--json", expect=3, **access)
    failed = [it["name"] for it in looked.json["checks"] if it["verdict"] == "FAIL"]
    assert {"repository", "proxy"} <= set(failed)
    # A directory is reached by none.
    backup()
