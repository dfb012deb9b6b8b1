"""What is shipped for a management cluster: objects that its API takes, and that fit together.

What the roles among them allow is held to the code in test_roles.py.
"""

import re
import subprocess
from pathlib import Path

import click
import pytest

from backstay.cli.main import backstay
from backstay.cli.stop import GRACE
from backstay.client.endpoint import DEFAULT_PORT
from backstay.kinds.hosted.cluster import control_plane_namespace
from backstay.kinds.hosted.find import SELECTOR
from kit.rbac import kinds, parse, read

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "hosted"
DOCUMENTS = read(FOLDER)
INSIDE = "clusters-blue"
ACCOUNT = ("ServiceAccount", "backstay", "backstay")


# The CronJob, the recorder and the NetworkPolicy


def only(kind):
    [found] = kinds(DOCUMENTS, kind)
    return found


def pod_templates():
    yield only("CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    yield only("Deployment")["spec"]["template"]


@pytest.fixture(params=["CronJob", "Deployment"])
def pod_template(request):
    """That of the backups, and that of the recorder."""
    [cron, deployed] = pod_templates()
    return {"CronJob": cron, "Deployment": deployed}[request.param]


@pytest.fixture
def container(pod_template):
    [found] = pod_template["spec"]["containers"]
    return found


def test_the_command_line_is_one(container):
    words = container["args"]
    context = click.Context(backstay, info_name="backstay")
    for name in words[:2]:
        command = context.command.get_command(context, name)
        context = click.Context(command, info_name=name, parent=context)
    parsed, rest, _ = context.command.make_parser(context).parse_args(words[2:])
    assert rest == []
    assert parsed["name"] == "blue"
    assert parsed["recipient"] == ["AGE_RECIPIENT"]
    assert parsed["keys_recipient"] == ["AGE_KEYS_RECIPIENT"]


def test_the_variables_are_read_by_the_program(container):
    options = (ROOT / "src/backstay/cli/options.py").read_text()
    known = re.findall(r'"(BACKSTAY_\w+)"', options)
    assert {entry["name"] for entry in container["env"]} <= set(known)


def test_the_network_policy_lets_just_our_pods_reach_etcd():
    policy = only("NetworkPolicy")
    assert policy["metadata"]["namespace"] == INSIDE
    label, _, value = SELECTOR.partition("=")
    spec = policy["spec"]
    assert spec["podSelector"] == {"matchLabels": {label: value}}
    assert spec["policyTypes"] == ["Ingress"]
    [rule] = spec["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": DEFAULT_PORT}]
    [peer] = rule["from"]
    let = peer["podSelector"]["matchLabels"].items()
    assert all(let <= template["metadata"]["labels"].items() for template in pod_templates())
    namespace = only("CronJob")["metadata"]["namespace"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": namespace}


def test_they_run_as_the_account_that_the_roles_are_bound_to(pod_template):
    account = only("ServiceAccount")
    spec = pod_template["spec"]
    assert spec["serviceAccountName"] == account["metadata"]["name"] == ACCOUNT[1]
    for kind in ("CronJob", "Deployment", "ServiceAccount"):
        assert only(kind)["metadata"]["namespace"] == ACCOUNT[2]
    assert only("Namespace")["metadata"]["name"] == ACCOUNT[2]
    # No other pod of that account gets a token that it did not ask for.
    assert account["automountServiceAccountToken"] is False
    assert spec["automountServiceAccountToken"] is True


def test_the_pods_are_restricted(pod_template, container):
    """What the Pod Security Standard `restricted` asks for, and a root that nobody writes to."""
    assert pod_template["spec"]["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    labels = only("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_what_is_written_is_the_spool_alone_and_it_is_bounded(pod_template, container):
    [volume], [mount] = pod_template["spec"]["volumes"], container["volumeMounts"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert volume["name"] == mount["name"]
    assert variables["BACKSTAY_SPOOL_DIR"] == mount["mountPath"]
    assert volume["emptyDir"].keys() == {"sizeLimit"}
    # etcd's quota in HyperShift, and the margin that a backup wants.
    quota = 8 << 30
    assert quota < int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) << 30
    # The image is to bring the directory where a volume is mounted.
    assert f"VOLUME {mount['mountPath']}" in (ROOT / "Containerfile").read_text()


def test_no_two_runs_meet_and_none_is_repeated():
    spec = only("CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert spec["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_the_recorder_is_one_and_is_asked_where_it_listens():
    deployment = only("Deployment")["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    template = deployment["template"]
    assert deployment["selector"]["matchLabels"] == template["metadata"]["labels"]
    [container] = template["spec"]["containers"]
    [port] = container["ports"]
    probe = container["readinessProbe"]["httpGet"]
    assert (probe["path"], probe["port"]) == ("/healthz", port["name"])
    assert f"--listen=:{port['containerPort']}" in container["args"]
    # A recorder that is told to stop leaves within GRACE.
    assert template["spec"]["terminationGracePeriodSeconds"] > GRACE


# The files

META = {"name", "namespace", "labels"}
CONTAINER = {
    "name": None,
    "image": None,
    "imagePullPolicy": None,
    "args": None,
    "env": {"name", "value"},
    "envFrom": {"secretRef": {"name", "optional"}},
    "ports": {"name", "containerPort"},
    "readinessProbe": {
        "httpGet": {"path", "port"},
        "periodSeconds": None,
        "timeoutSeconds": None,
    },
    "securityContext": {
        "allowPrivilegeEscalation": None,
        "readOnlyRootFilesystem": None,
        "capabilities": {"drop"},
    },
    "resources": {
        "requests": {"cpu", "memory", "ephemeral-storage"},
        "limits": {"memory"},
    },
    "volumeMounts": {"name", "mountPath"},
}
POD = {
    "metadata": {"labels": None},
    "spec": {
        "serviceAccountName": None,
        "automountServiceAccountToken": None,
        "restartPolicy": None,
        "terminationGracePeriodSeconds": None,
        "securityContext": {"runAsNonRoot": None, "seccompProfile": {"type"}},
        "containers": CONTAINER,
        "volumes": {"name": None, "emptyDir": {"sizeLimit"}},
    },
}
FIELDS = {
    "Namespace": {"metadata": META},
    "ServiceAccount": {"metadata": META, "automountServiceAccountToken": None},
    "Role": {"metadata": META, "rules": {"apiGroups", "resources", "resourceNames", "verbs"}},
    "RoleBinding": {
        "metadata": META,
        "roleRef": {"apiGroup", "kind", "name"},
        "subjects": {"apiGroup", "kind", "name", "namespace"},
    },
    "NetworkPolicy": {
        "metadata": META,
        "spec": {
            "podSelector": {"matchLabels": None},
            "policyTypes": None,
            "ingress": {
                "from": {
                    "namespaceSelector": {"matchLabels": None},
                    "podSelector": {"matchLabels": None},
                },
                "ports": {"protocol", "port"},
            },
        },
    },
    "CronJob": {
        "metadata": META,
        "spec": {
            "schedule": None,
            "concurrencyPolicy": None,
            "startingDeadlineSeconds": None,
            "successfulJobsHistoryLimit": None,
            "failedJobsHistoryLimit": None,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": None,
                    "activeDeadlineSeconds": None,
                    "template": POD,
                }
            },
        },
    },
    "Deployment": {
        "metadata": META,
        "spec": {
            "replicas": None,
            "strategy": {"type"},
            "selector": {"matchLabels": None},
            "template": POD,
        },
    },
}
VERSIONS = {
    "Namespace": "v1",
    "ServiceAccount": "v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "CronJob": "batch/v1",
    "Deployment": "apps/v1",
}


def unknown(value, fields, path=""):
    """Fields that the API does not have, as a strict server finds them."""
    if isinstance(value, list):
        return [name for item in value for name in unknown(item, fields, f"{path}[]")]
    if fields is None or not isinstance(value, dict):
        return []
    known = fields if isinstance(fields, dict) else dict.fromkeys(fields)
    found = [f"{path}.{name}" for name in value if name not in known]
    for name in value.keys() & known.keys():
        found += unknown(value[name], known[name], f"{path}.{name}")
    return found


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda d: f"{d['kind']}-{d['metadata']['name']}"
)
def test_each_object_is_one_that_the_api_takes(document):
    kind = document["kind"]
    assert document["apiVersion"] == VERSIONS[kind]
    assert not unknown(document, {"apiVersion": None, "kind": None} | FIELDS[kind])
    assert ("namespace" in document["metadata"]) == (kind != "Namespace")


def test_no_object_is_there_twice():
    keys = [(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in DOCUMENTS]
    assert len(keys) == len(set(keys))


def test_the_namespace_comes_before_what_lies_in_it():
    assert DOCUMENTS[0]["kind"] == "Namespace"


def commands_of_the_readme():
    """What names the control plane's namespace, and what edits the files."""
    text = (FOLDER / "README.md").read_text().replace("deploy/hosted/*", f"{FOLDER}/*")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    [named] = [x for block in blocks for x in block.splitlines() if "CONTROL_PLANE=" in x]
    [edit] = [block for block in blocks if block.startswith("sed ")]
    return f"{named}\n{edit.partition(' > ')[0]}"


VALUES = {
    "NAME": "blue.sky",
    "NAMESPACE": "blue-clusters",
    "BACKSTAY_REPO": "s3://my-backups/a/b",
    "BACKSTAY_KEYS_REPO": "s3://their-clusters/keys",
    "RECIPIENT": "age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq",
    "KEYS_RECIPIENT": "age1zqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gz",
    "IMAGE": "quay.example/team/backstay@sha256:0123",
}


def test_the_command_of_the_readme_edits_all_that_is_to_be_edited():
    """With names that have in them what is replaced, and values that sed could take for its own."""
    done = subprocess.run(
        ["sh", "-euc", commands_of_the_readme()],
        env={"PATH": "/usr/bin:/bin", **VALUES},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    edited = parse(done.stdout)
    wanted = replaced(DOCUMENTS)
    assert edited == wanted
    text = str(wanted)
    assert all(value in text for value in VALUES.values())


def replaced(value):
    """The same, edited by hand."""
    if isinstance(value, dict):
        return {name: replaced(item) for name, item in value.items()}
    if isinstance(value, list):
        return [replaced(item) for item in value]
    by_hand = {
        "blue": VALUES["NAME"],
        "clusters": VALUES["NAMESPACE"],
        "--namespace=clusters": f"--namespace={VALUES['NAMESPACE']}",
        INSIDE: control_plane_namespace(VALUES["NAMESPACE"], VALUES["NAME"]),
        "s3://backups/hosted": VALUES["BACKSTAY_REPO"],
        "s3://backup-keys/hosted": VALUES["BACKSTAY_KEYS_REPO"],
        "--recipient=AGE_RECIPIENT": f"--recipient={VALUES['RECIPIENT']}",
        "--keys-recipient=AGE_KEYS_RECIPIENT": f"--keys-recipient={VALUES['KEYS_RECIPIENT']}",
        "registry.example.com/backstay:latest": VALUES["IMAGE"],
    }
    if isinstance(value, str) and value.endswith("-blue") and value != INSIDE:
        return f"{value.removesuffix('blue')}{VALUES['NAME']}"
    return by_hand.get(value, value) if isinstance(value, str) else value
