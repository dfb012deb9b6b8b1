"""Every block of commands in the docs is run: on a real etcd, a real S3 server, real files.

A page is one script, its `sh` blocks in their order, run by bash with -euo pipefail. Names that
only stand for something (an address, a path) are replaced by what the test has.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kit import fixtures, needs, s3
from kit.cli import Cli, etcd_variables
from kit.etcd import Etcd

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^( *)```sh\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
#: Run by CI itself, or by a test of its own.
ELSEWHERE = re.compile(r"^make [a-z]+$", re.MULTILINE)


def script(page):
    blocks = []
    for indent, block in BLOCK.findall((ROOT / page).read_text()):
        lines = [line.removeprefix(indent) for line in block.splitlines()]
        blocks.append(ELSEWHERE.sub("", "\n".join(lines)))
    assert blocks, f"{page} has no commands"
    return "\n".join(blocks)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with Etcd.start(tmp_path_factory.mktemp("docs-etcd")) as etcd:
        for number in range(20):
            etcd.ctl("put", f"k{number}", "value")
        yield etcd


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3.over_tls(tmp_path_factory.mktemp("docs-s3")) as server:
        yield server


@pytest.fixture
def programs(tmp_path):
    """A PATH with this backstay, and etcd's own tools in one version."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python3").symlink_to(sys.executable)
    for name in ("backstay", "etcd", "etcdctl", "etcdutl"):
        (folder / name).symlink_to(needs.binary(name))
    for name in ("age", "zstd"):
        (folder / name).symlink_to(needs.binary(name))
    return f"{folder}:/usr/bin:/bin"


def run(page, folder, path, variables, replaced):
    text = script(page)
    for old, new in replaced.items():
        assert old in text, f"{page} does not say {old} any more"
        text = text.replace(old, new)
    home = folder / "home"
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", text],
        cwd=home,
        env={
            "PATH": path,
            "HOME": str(home),
            "TMPDIR": str(folder),
            # Without it the script's fingerprints differ from those made in this process.
            "PYTHONPATH": os.environ["PYTHONPATH"],
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return home


@pytest.mark.parametrize("page", ["README.md", "docs/etcd.md"])
def test_backing_up_and_restoring(page, tmp_path, etcd, server, programs):
    pki = etcd_variables(etcd, tmp_path / "pki")
    replaced = {
        "https://etcd-0.example.com:2379": etcd.endpoint,
        "/etc/etcd/pki/ca.crt": pki["ETCDCTL_CACERT"],
        "/etc/etcd/pki/client.crt": pki["ETCDCTL_CERT"],
        "/etc/etcd/pki/client.key": pki["ETCDCTL_KEY"],
        "s3://backups/prod": f"s3://backups/{page}",
    }
    home = run(page, tmp_path, programs, {**server.environment, "ETCDCTL_API": "3"}, replaced)
    assert (home / "restored" / "member").is_dir()


def test_retention(tmp_path, etcd, server, programs):
    cli = Cli(tmp_path, etcd_variables(etcd, tmp_path / "pki") | server.environment)
    cli.variables["BACKSTAY_REPO"] = "s3://backups/docs-retention"
    cli("init", "--no-encryption")
    made = cli("backup", "etcd", "--cluster", "prod", "--json").json
    replaced = {"s3://backups/prod": cli.variables["BACKSTAY_REPO"]}
    run("docs/retention.md", tmp_path, programs, server.environment, replaced)
    assert [one["id"] for one in cli("list", "--json").json] == [made["id"]]
    [block] = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/retention.md").read_text(), re.DOTALL)
    (tmp_path / "backstay.toml").write_text(block)
    assert cli("prune", "--json").json["policy"]["weekly"] == 5


def test_keys_of_a_repository(tmp_path, etcd, server, programs):
    pki = etcd_variables(etcd, tmp_path / "pki")
    replaced = {"s3://backups/prod": "s3://backups/docs-keys"}
    home = run("docs/keys.md", tmp_path, programs, {**server.environment, **pki}, replaced)
    assert (home / "new.txt").is_file()


def test_promise_6_the_night_of_a_disaster(tmp_path, etcd, server, programs):
    """All commands for an etcd, in their order; nothing that was there is gone after them."""
    machine = tmp_path / "machine"
    left = machine / "etcd" / "member" / "snap" / "db"
    left.parent.mkdir(parents=True)
    # A database as a member leaves it: a snapshot without what is added for its way.
    left.write_bytes(fixtures.data("etcd3516-plain")[:-32])
    before = left.read_bytes()
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/systemctl\n')
    systemctl.chmod(0o755)
    repository = "s3://backups/disaster"
    variables = {
        **server.environment,
        **etcd_variables(etcd, tmp_path / "pki"),
        "ETCDCTL_API": "3",
        "BACKSTAY_REPO": repository,
    }
    cli = Cli(tmp_path, variables)
    recipient = cli("keygen", "-o", tmp_path / "identity.txt", "--json").json["recipient"]
    cli("init", "--recipient", recipient)
    cli("backup", "etcd", "--cluster", "prod")
    replaced = {
        "s3://backups/prod-2": "s3://backups/disaster-2",
        "s3://backups/prod": repository,
        "/root/identity.txt": f"{tmp_path}/identity.txt",
        "/var/lib/etcd": f"{machine}/etcd",
    }
    home = run("docs/disaster.md", tmp_path, programs, variables, replaced)
    assert (tmp_path / "systemctl").read_text().split("\n") == [
        "stop etcd",
        "stop etcd",
        "start etcd",
        "",
    ]
    assert (home / "left.db").read_bytes() == before
    assert (machine / "etcd.lost" / "member" / "snap" / "db").read_bytes() == before
    for name in ("etcd", "etcd.new"):
        assert (machine / name / "member" / "snap" / "db").is_file()


def test_measuring(tmp_path, etcd, server, programs):
    variables = {
        **server.environment,
        **etcd_variables(etcd, tmp_path / "pki"),
        "BACKSTAY_REPO": "s3://backups/metrics",
    }
    cli = Cli(tmp_path, variables)
    cli("init", "--no-encryption")
    cli("backup", "etcd", "--cluster", "prod")
    replaced = {"s3://backups/prod": "s3://backups/metrics"}
    home = run("docs/metrics.md", tmp_path, programs, variables, replaced)
    assert "backstay_latest_revision" in (home / "backstay.prom").read_text()
    assert 'command="verify"' in (home / "runs.prom").read_text()


def test_any_revision(tmp_path, etcd, server, programs):
    pki = etcd_variables(etcd, tmp_path / "pki") | {"ETCDCTL_API": "3"}
    variables = {**server.environment, **pki}
    replaced = {"s3://backups/prod": "s3://backups/time-travel"}
    home = run("docs/time-travel.md", tmp_path, programs, variables, replaced)
    assert (home / "restored" / "member").is_dir()


def test_hosted_control_planes(tmp_path, server, programs):
    from kit.hypershift_operator import HypershiftOperator
    from kit.world import hosted_world

    with hosted_world(tmp_path / "world", repositories=False) as world:
        world.kube.actor(HypershiftOperator())
        home = tmp_path / "home"
        home.mkdir()
        (home / "management.kubeconfig").write_text(world.kube.kubeconfig.read_text())
        (home / "rendered.yaml").write_text(rendered(world))
        variables = server.environment | {"SSL_CERT_FILE": server.environment["AWS_CA_BUNDLE"]}
        replaced = {
            "s3://backups/hosted": "s3://backups/docs-hosted",
            "s3://backup-keys/hosted": f"file://{tmp_path}/keys",
        }
        run("docs/hosted.md", tmp_path, programs, variables, replaced)
    assert (home / "restore.yaml").is_file()
    assert (home / "look" / "member").is_dir()


def test_okd_control_planes(tmp_path, server, programs):
    from kit.kubeserver import KubeServer
    from kit.okd_api import okd_api
    from kit.okd_host import OkdHost, okd_etcd

    with okd_etcd(tmp_path / "etcd") as etcd, KubeServer.start(tmp_path / "kube") as kube:
        okd_api(kube)
        host = OkdHost.make(tmp_path / "host", etcd)
        client = (host.resources("kube-apiserver") / "secrets/client/tls.crt").relative_to(
            host.root
        )
        host.write(str(client), etcd.tls.client.certificate)
        replaced = {
            "s3://backups/okd": "s3://backups/docs-okd",
            "s3://backup-keys/okd": f"file://{tmp_path}/keys",
            "--host-root /host": f"--host-root {host.root}",
            "/home/core/assets/backup": str(tmp_path / "backup"),
        }
        variables = {**server.environment, "KUBECONFIG": str(kube.kubeconfig)}
        home = run("docs/okd.md", tmp_path, programs, variables, replaced)
    left = [sorted(it.name.partition("_")[0] for it in folder.iterdir()) for folder in
            (home / "restore", tmp_path / "backup")]  # fmt: skip
    assert left == [["snapshot", "static"]] * 2


def rendered(world):
    """What `hcp create cluster ... --render` prints: no Secrets, no URL."""
    import io

    from ruamel.yaml import YAML

    from backstay.kinds.hosted.belongings.clean import clean

    kinds = {"HostedCluster", "NodePool"}
    stream = io.StringIO()
    found = [clean(document) for document in world.objects if document["kind"] in kinds]
    YAML(typ="safe").dump_all(found, stream)
    return stream.getvalue()


def okd_backup(cli, tmp_path, recipient):
    """A backup of an OKD control plane; gives the pair that it was made of, and where keys are."""
    from kit import fixtures, okd_pair

    content = okd_pair.files(configuration=None)
    pair = okd_pair.write_pair(tmp_path / "assets", fixtures.data("kube-plain"), content=content)
    keys = f"file://{tmp_path}/keys"
    cli("init", "--role", "keys", "--repo", keys, "--recipient", recipient)
    cli("import", tmp_path / "assets", "--keys-repo", keys, "--cluster", "okd-prod")
    return pair, tmp_path / "keys"


def test_promise_2_restoring_by_hand(tmp_path, etcd, programs):
    cli = Cli(tmp_path, etcd_variables(etcd, tmp_path / "pki"))
    home = tmp_path / "home"
    home.mkdir()
    recipient = cli("keygen", "-o", home / "identity.txt", "--json").json["recipient"]
    repository = tmp_path / "repository"
    cli.variables["BACKSTAY_REPO"] = f"file://{repository}"
    cli("init", "--recipient", recipient)
    manifest = cli("backup", "etcd", "--cluster", "prod", "--json").json
    pair, keys = okd_backup(cli, tmp_path, recipient)
    variables = {"REPOSITORY": str(repository), "KEYS_REPOSITORY": str(keys)}
    run("docs/by-hand.md", tmp_path, programs, variables, {})
    assert (home / "restored-by-hand" / "member").is_dir()
    for file in (pair.snapshot, pair.archive):
        assert (home / "pair" / file.name).read_bytes() == file.read_bytes()
        assert (home / "pair" / file.name).stat().st_mode & 0o077 == 0
    import hashlib

    found = hashlib.sha256((home / "snapshot.db").read_bytes()).hexdigest()
    assert found == manifest["objects"][0]["sha256"]


def test_the_settings_in_the_docs_are_settings(tmp_path):
    text = (ROOT / "docs/etcd.md").read_text()
    [block] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "backstay.toml").write_text(block)
    # All of them are taken: what is missing are the keys to the bucket, which are no settings.
    done = Cli(tmp_path)("backup", "etcd", expect=1)
    assert "no credentials for S3" in done.err


def test_the_demonstration(tmp_path):
    needs.binary("etcd")
    done = subprocess.run(
        [sys.executable, "-m", "backstay.cli.main", "demo"],
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for act in ("Act 1.", "Act 2.", "Act 3.", "Act 4.", "Equal:", "one bit", "FAILED"):
        assert act in done.stderr
    assert os.listdir(tmp_path) == []
