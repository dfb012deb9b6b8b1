"""What is shipped for backups of any etcd: objects that fit together, and ask for no rights."""

import re
import subprocess
from pathlib import Path

import pytest

from kit.rbac import kinds, parse, read
from kit.words import parsed

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "etcd"
DOCUMENTS = read(FOLDER)
WORKLOADS = {
    one["metadata"]["name"]: one for one in DOCUMENTS if one["kind"] in {"CronJob", "Deployment"}
}
CRONJOBS = {one["metadata"]["name"]: one for one in kinds(DOCUMENTS, "CronJob")}
each = pytest.mark.parametrize("name", sorted(WORKLOADS))
each_cronjob = pytest.mark.parametrize("name", sorted(CRONJOBS))


def template(name):
    spec = WORKLOADS[name]["spec"]
    return spec["jobTemplate"]["spec"]["template"] if "jobTemplate" in spec else spec["template"]


def container(name):
    [found] = template(name)["spec"]["containers"]
    return found


@each
def test_the_command_line_is_one_and_pins_the_recipient(name):
    assert parsed(container(name)["args"])["recipient"] == ["AGE_RECIPIENT"]


def test_the_backup_asks_all_members_over_tls_with_files_that_are_mounted():
    found = parsed(container("backstay-backup")["args"])
    assert found["cluster"] == "prod"
    assert all(url.startswith("https://") for url in found["endpoints"].split(","))
    [folder] = [
        mount["mountPath"]
        for mount in container("backstay-backup")["volumeMounts"]
        if mount.get("readOnly")
    ]
    for option in ("cacert", "cert", "key"):
        assert Path(found[option]).parent == Path(folder)
        assert f"--from-file={Path(found[option]).name}" in (FOLDER / "README.md").read_text()


@each
def test_the_pod_has_no_token_no_root_and_writes_its_spool_alone(name):
    spec, only = template(name)["spec"], container(name)
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in spec
    # What the Pod Security Standard `restricted` asks for, and a root that nobody writes to.
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    written = [mount for mount in only.get("volumeMounts", ()) if not mount.get("readOnly")]
    assert [mount["mountPath"] for mount in written] == (["/var/tmp"] if name in CRONJOBS else [])
    [namespace] = kinds(DOCUMENTS, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@each
def test_memory_is_bounded_and_so_is_what_lies_on_the_nodes_disk(name):
    resources = container(name)["resources"]
    assert resources["limits"]["memory"]
    for volume in template(name)["spec"].get("volumes", ()):
        if "emptyDir" in volume:
            assert volume["emptyDir"] == {"sizeLimit": resources["requests"]["ephemeral-storage"]}


@each_cronjob
def test_no_two_runs_meet_none_is_repeated_and_none_runs_for_ever(name):
    spec = CRONJOBS[name]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert 0 < spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] <= 6 * 3600
    assert template(name)["spec"]["restartPolicy"] == "Never"


@each_cronjob
def test_the_spool_is_where_the_volume_is(name):
    variables = {entry["name"]: entry["value"] for entry in container(name)["env"]}
    assert variables["BACKSTAY_SPOOL_DIR"] == "/var/tmp"
    assert "VOLUME /var/tmp" in (ROOT / "Containerfile").read_text()


@each
def test_each_volume_is_mounted_and_each_mount_is_one(name):
    volumes = {volume["name"] for volume in template(name)["spec"].get("volumes", ())}
    assert volumes == {mount["name"] for mount in container(name).get("volumeMounts", ())}


def test_who_writes_backups_has_no_identity_and_who_has_it_can_not_write():
    text = {path.name: path.read_text() for path in FOLDER.glob("*.yaml")}
    assert "identity" not in text["backup.yaml"]
    assert "identity" not in text["metrics.yaml"]
    assert "backstay-writer" not in text["drill.yaml"] + text["metrics.yaml"]
    # What is applied by the README has none in the cluster.
    assert "drill.yaml" not in command_of_the_readme()


def test_the_service_leads_to_the_metrics():
    [service], only = kinds(DOCUMENTS, "Service"), container("backstay-metrics")
    labels = template("backstay-metrics")["metadata"]["labels"]
    assert service["spec"]["selector"] == labels
    [port] = only["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    host, number = parsed(only["args"])["listen"].rsplit(":", 1)
    assert (host, int(number)) == ("", port["containerPort"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: one["metadata"]["name"])
def test_all_lie_in_one_namespace(document):
    namespace = document["metadata"].get("namespace")
    assert namespace == (None if document["kind"] == "Namespace" else "backstay-etcd")


def command_of_the_readme():
    blocks = re.findall(r"```sh\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    [edit] = [block for block in blocks if block.startswith("sed ")]
    return edit.partition(" > ")[0]


VALUES = {
    "CLUSTER": "other.cluster",
    "ENDPOINTS": "https://10.0.0.1:2379,https://10.0.0.2:2379",
    "BACKSTAY_REPO": "s3://my-backups/a/b",
    "RECIPIENT": "age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq",
    "IMAGE": "quay.example/team/backstay@sha256:0123",
}


def test_the_command_of_the_readme_edits_all_that_is_to_be_edited():
    command = command_of_the_readme().replace("deploy/etcd/", f"{FOLDER}/")
    done = subprocess.run(
        ["sh", "-euc", command],
        env={"PATH": "/usr/bin:/bin", **VALUES},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(parse(done.stdout)) == 4
    assert all(value in done.stdout for value in VALUES.values())
    for mine in ("AGE_RECIPIENT", "s3://backups/prod", "registry.example.com", "=prod", "etcd-0"):
        assert mine not in done.stdout
