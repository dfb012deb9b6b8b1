"""Manifests that restore a hosted control plane: made, tried, refused; with a real S3 over TLS."""

import base64
import json
import stat

import pytest
from ruamel.yaml import YAML

from backstay.errors import RefusedError, UsageError
from backstay.kinds.hosted.manifests.documents import parse_documents
from backstay.kinds.hosted.manifests.encryption_block import keys_of
from backstay.kinds.hosted.restore import Made, check_written
from backstay.mvcc.snapshot import Snapshot
from kit import restore_documents, s3
from kit.hosted import one
from kit.kube import real_snapshot
from kit.world import CLUSTER, hosted_world
from kit.world import keys_of as keys_in

ID = f"{CLUSTER}/latest"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3.over_tls(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory, server):
    """A world whose control plane was backed up."""
    with hosted_world(tmp_path_factory.mktemp("world")) as world:
        world.cli.variables |= server.environment | {
            "BACKSTAY_IDENTITY": str(world.identity),
            "SSL_CERT_FILE": server.environment["AWS_CA_BUNDLE"],
        }
        world.backup()
        yield world


@pytest.fixture
def place(request):
    """A staging place of the test's own."""
    return f"s3://backups/staging-{abs(hash(request.node.name)) % 10**9}"


@pytest.fixture
def restore(backed_up, place):
    def run(*words, **more):
        return backed_up.cli("restore", "hosted", ID, "--staging", place, *words, **more)

    return run


def documents(path):
    return list(YAML(typ="safe").load_all(path.read_text()))


def staged(world, place):
    return world.cli("list", "--staging", place, "--json").json


def url_of(text):
    hosted = parse_documents(text, "t").hosted_cluster.value
    [url] = hosted["spec"]["etcd"]["managed"]["storage"]["restoreSnapshotURL"]
    return url


def test_from_the_backup_itself(backed_up, restore, place):
    output = backed_up.folder / "restore.yaml"
    done = restore("--from-backup", "-o", output)
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    text = output.read_text()
    assert url_of(text).startswith("https://")
    assert keys_of(text) == list(keys_in("kube-aescbc"))
    found = documents(output)
    assert found[0]["kind"] == "Namespace"
    assert one(found, "HostedCluster")["metadata"]["name"] == "blue"
    [there] = staged(backed_up, place)
    assert there["cluster"] == CLUSTER
    assert not there["expired"]
    # The URL opens the data: it is in the file, and nowhere else.
    assert "X-Amz-Signature" in text
    assert "X-Amz-Signature" not in done.out + done.err


def test_promise_6_an_output_that_exists_is_left_alone(backed_up, restore, place):
    output = backed_up.folder / "there.yaml"
    output.write_text("mine")
    restore("--from-backup", "-o", output, expect=5)
    assert output.read_text() == "mine"
    assert staged(backed_up, place) == []


def test_what_is_downloaded_is_a_stock_snapshot_with_its_revision_raised(
    backed_up, restore, server, tmp_path
):
    import ssl

    import httpx

    output = backed_up.folder / "download.yaml"
    restore("--from-backup", "-o", output)
    context = ssl.create_default_context(cafile=server.environment["AWS_CA_BUNDLE"])
    data = httpx.get(url_of(output.read_text()), verify=context).content
    (tmp_path / "snapshot.db").write_bytes(data)
    with Snapshot.open(tmp_path / "snapshot.db") as snapshot:
        assert snapshot.revision > 1_000_000_000


def test_what_is_downloaded_can_be_of_an_earlier_revision(backed_up, restore, server, tmp_path):
    import ssl

    import httpx

    manifest = backed_up.cli("show", ID, "--json").json
    revision = manifest["snapshots"][0]["compact_revision"] + 7
    assert revision < manifest["revision"]
    output = backed_up.folder / "earlier.yaml"
    done = restore("--from-backup", "-o", output, "--to-revision", str(revision), "--json").json
    assert done["backup"] == f"{manifest['id']} at revision {revision}"
    context = ssl.create_default_context(cafile=server.environment["AWS_CA_BUNDLE"])
    data = httpx.get(url_of(output.read_text()), verify=context).content
    (tmp_path / "snapshot.db").write_bytes(data)
    with Snapshot.open(tmp_path / "snapshot.db") as snapshot:
        assert snapshot.revision == revision + 1_000_000_000
        mains = [int.from_bytes(key[:8], "big") for key, _ in snapshot.bucket(b"key").items()]
    assert mains[-2] == revision
    restore("--from-backup", "--to-revision", "1", "-o", tmp_path / "none.yaml", expect=1)


def rendered(backed_up, *, key=b"a fresh random key of the render", network="10.132.0.0/14"):
    """What `--render-sensitive` prints: like the saved cluster, with a key of its own."""
    output = backed_up.folder / "from-backup.yaml"
    if not output.exists():
        backed_up.cli(
            "restore", "hosted", ID, "--from-backup", "-o", output, "--staging",
            "s3://backups/for-render",
        )  # fmt: skip
    found = [d for d in documents(output) if d["kind"] in {"HostedCluster", "NodePool", "Secret"}]
    found = [d for d in found if d["metadata"]["namespace"] == "clusters"]
    hosted = one(found, "HostedCluster")
    del hosted["spec"]["etcd"]["managed"]["storage"]["restoreSnapshotURL"]
    hosted["spec"]["networking"]["clusterNetwork"][0]["cidr"] = network
    for document in found:
        if document["metadata"]["name"] == "blue-etcd-encryption-key":
            document["data"]["key"] = base64.b64encode(key).decode()
    import io

    stream = io.StringIO()
    YAML(typ="safe").dump_all(found, stream)
    path = backed_up.folder / "rendered.yaml"
    path.write_text(stream.getvalue())
    return path


def test_the_fresh_key_of_a_render_is_replaced_by_the_saved_one(backed_up, restore):
    path = rendered(backed_up)
    output = backed_up.folder / "replaced.yaml"
    restore("--rendered", path, "-o", output)
    assert keys_of(output.read_text()) == list(keys_in("kube-aescbc"))


def test_another_network_is_refused_and_can_be_taken_over(backed_up, restore, place):
    path = rendered(backed_up, network="10.200.0.0/14")
    output = backed_up.folder / "network.yaml"
    refused = restore("--rendered", path, "-o", output, expect=5)
    assert "clusterNetwork" in refused.err
    assert "--take-saved" in refused.err
    assert not output.exists()
    assert staged(backed_up, place) == []
    restore("--rendered", path, "-o", output, "--take-saved")
    hosted = one(documents(output), "HostedCluster")
    assert hosted["spec"]["networking"]["clusterNetwork"][0]["cidr"] == "10.132.0.0/14"


def test_a_dry_run_prints_steps_and_stages_nothing(backed_up, restore, place):
    done = restore("--from-backup", "--apply", "--dry-run")
    assert "aws s3 presign" in done.out
    assert "oc apply" in done.out
    assert staged(backed_up, place) == []


def test_a_url_that_can_not_work_leaves_nothing(backed_up, restore, place):
    # The certificate is not trusted where nobody says so.
    done = restore(
        "--from-backup", "-o", backed_up.folder / "url.yaml", expect=None, SSL_CERT_FILE="/dev/null"
    )
    assert done.code in {0, 3}
    if done.code:
        assert staged(backed_up, place) == []


def test_the_wrong_identity_opens_nothing(backed_up, restore, place):
    backed_up.cli("keygen", "-o", backed_up.folder / "wrong.txt", expect=None)
    restore("--from-backup", "--identity", backed_up.folder / "wrong.txt", expect=1)
    assert staged(backed_up, place) == []


def test_a_file_repository_needs_a_place_that_can_presign(backed_up):
    refused = backed_up.cli("restore", "hosted", ID, "--from-backup", expect=5)
    assert "--staging" in refused.err


@pytest.mark.parametrize(
    "words",
    [(), ("--from-backup", "--rendered", "x"), ("--from-backup", "--wait")],
    ids=["neither", "both", "wait"],
)
def test_usage(restore, words):
    restore(*words, expect=2)


def finished(key):
    """Manifests as they are written, with a key in them."""
    found = restore_documents.documents()
    for document in found:
        if document["metadata"]["name"] == "blue-etcd-encryption-key":
            document["data"]["key"] = base64.b64encode(key).decode()
    return "---\n".join(f"{json.dumps(document)}\n" for document in found)


def test_keys_in_finished_manifests_that_are_not_the_proven_ones_are_tried():
    [right] = keys_in("kube-aescbc")
    wrong = bytes([right[0] ^ 1]) + right[1:]
    with real_snapshot("kube-aescbc") as snapshot:
        check_written(snapshot, finished(right), [right])
        check_written(snapshot, finished(right), [right, wrong])
        with pytest.raises(RefusedError, match="do not open the snapshot"):
            check_written(snapshot, finished(wrong), [right])


def test_the_outlook_of_a_restore_is_there_for_who_asked():
    made = Made(
        text="", name="blue", namespace="clusters", restore=ID, staged="", expires=None,
        outlook=None, changes=(), warnings=(), differences=(),
    )  # fmt: skip
    with pytest.raises(UsageError):
        _ = made.expected
