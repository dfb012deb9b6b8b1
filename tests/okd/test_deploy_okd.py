"""What is shipped for an OKD cluster: objects that its API takes, that fit together, and no more.

The roles are held to the code both ways: each command line is run by who has just these roles, and
what it asked for is what the table of `rights` says, and the table is what the roles say.
"""

import itertools
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from backstay.cli.main import backstay
from backstay.kinds.okd import lease
from backstay.kinds.okd.rights import needed
from backstay.kinds.okd.static_pods import KUBERNETES, PODS, REVISION_FILE
from kit import okd_api
from kit.cli import Cli
from kit.kubeserver import KubeServer
from kit.okd_host import OkdHost
from kit.rbac import Grant, grants, held_to, kinds, parse, read, recorded, rules_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "okd"
DOCUMENTS = read(FOLDER)
NAMESPACE = "backstay-okd"
ACCOUNT = ("ServiceAccount", "backstay", NAMESPACE)
CRONJOBS = {it["metadata"]["name"]: it for it in kinds(DOCUMENTS, "CronJob")}
NAMES = ("backstay-okd", "backstay-okd-upgraded")


def only(kind):
    [found] = kinds(DOCUMENTS, kind)
    return found


def pod(name=NAMES[0]):
    return CRONJOBS[name]["spec"]["jobTemplate"]["spec"]["template"]


def container(name=NAMES[0]):
    [found] = pod(name)["spec"]["containers"]
    return found


def table():
    """What the table of rights says."""
    return {
        Grant(it.namespace, it.verb, it.resource.group, it.resource.plural, "", name)
        for it in needed(NAMESPACE)
        for name in (it.names or ("",))
    }


# The roles and the table


def test_the_roles_are_the_table_no_verb_more():
    roles = kinds(DOCUMENTS, "Role") + kinds(DOCUMENTS, "ClusterRole")
    assert set.union(*map(grants, roles)) == table()


def test_the_account_has_all_of_it_and_nobody_else_has_any():
    granted = set()
    for where, rule in rules_of(DOCUMENTS, *ACCOUNT):
        version = "rbac.authorization.k8s.io/v1"
        granted |= grants(
            {"apiVersion": version, "metadata": {"namespace": where}, "rules": [rule]}
        )
    assert granted == table()
    bindings = kinds(DOCUMENTS, "RoleBinding") + kinds(DOCUMENTS, "ClusterRoleBinding")
    bound = [subject for binding in bindings for subject in binding["subjects"]]
    assert {(it["kind"], it["name"], it["namespace"]) for it in bound} == {ACCOUNT}


def test_nothing_is_listed_or_deleted_and_no_secret_is_read():
    assert {grant.verb for grant in table()} == {"get", "create", "patch"}
    assert {grant.resource for grant in table() if grant.verb != "get"} == {"leases"}
    assert "secrets" not in {grant.resource for grant in table()}


# The table and the calls: the CronJobs' own command lines, by who has just these roles


@pytest.fixture
def world(tmp_path, etcd):
    """A host, the API of its cluster, and a command line with two repositories."""
    with KubeServer.start(tmp_path / "kube") as kube:
        okd_api.okd_api(kube)
        OkdHost.make(tmp_path / "host", etcd)
        home = tmp_path / "home"
        home.mkdir()
        cli = Cli(home, {"KUBECONFIG": str(kube.kubeconfig), "BACKSTAY_SPOOL_DIR": str(tmp_path)})
        cli.recipient = cli("keygen", "-o", "identity.txt", "--json").json["recipient"]
        for role, name in (("data", "BACKSTAY_REPO"), ("keys", "BACKSTAY_KEYS_REPO")):
            cli.variables[name] = f"file://{tmp_path}/{role}"
            cli("init", "--repo", cli.variables[name], "--role", role, "--recipient", cli.recipient)
        yield kube, cli, tmp_path / "host"


def words(cli, host, name=NAMES[0]):
    """A CronJob's command line, on this host."""
    text = " ".join(map(shlex.quote, container(name)["args"]))
    text = re.sub("AGE_(KEYS_)?RECIPIENT", cli.recipient, text)
    return shlex.split(text.replace("--host-root=/host", f"--host-root={host}"))


def test_the_cronjobs_do_what_they_say_with_the_roles_of_their_account(world):
    kube, cli, host = world
    rules = rules_of(DOCUMENTS, *ACCOUNT)
    with held_to(kube, rules) as began:
        cli(*words(cli, host, "backstay-okd-upgraded"))
        assert "nothing to do" in cli(*words(cli, host, "backstay-okd-upgraded")).err
        cli(*words(cli, host))
    asked = recorded(kube, began)
    listed = cli("list", "--json").json
    assert [it["cluster"] for it in listed] == [okd_api.INFRASTRUCTURE] * 2
    assert {check["verdict"] for it in listed for check in it["checks"]} == {"PASS"}
    named = asked | {grant.any_name for grant in asked}
    assert {grant for grant in asked if not {grant, grant.any_name} & table()} == set()
    assert {grant for grant in table() if grant not in named} == set()


def test_a_preflight_passes_and_changes_nothing(world):
    kube, cli, host = world
    taken = [it for it in words(cli, host)[1:] if not it.startswith("--limit-rate")]
    with held_to(kube, rules_of(DOCUMENTS, *ACCOUNT)) as began:
        looked = cli("preflight", *taken, "--json").json
    assert {check["verdict"] for check in looked["checks"]} == {"PASS"}
    assert {grant.verb for grant in recorded(kube, began)} == {"get"}


@pytest.mark.parametrize("right", needed(NAMESPACE), ids=str)
def test_a_right_that_is_missing_is_told_by_name(world, right):
    kube, cli, host = world
    kube.deny(right.verb, right.resource)
    done = cli("preflight", "okd", "--host-root", host, "--json", expect=None)
    [answer] = [it for it in done.json["checks"] if it["name"] == "rights"]
    assert answer["verdict"] == "FAIL"
    assert str(right) in answer["detail"]


# The pods


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_is_one(name):
    args = container(name)["args"]
    context = click.Context(backstay, info_name="backstay")
    for word in args[:2]:
        command = context.command.get_command(context, word)
        context = click.Context(command, info_name=word, parent=context)
    parsed, rest, _ = context.command.make_parser(context).parse_args(args[2:])
    assert rest == []
    assert parsed["recipient"] == ["AGE_RECIPIENT"]
    assert parsed["keys_recipient"] == ["AGE_KEYS_RECIPIENT"]
    assert bool(parsed.get("if_upgraded")) == (name == "backstay-okd-upgraded")


def test_both_differ_in_what_they_are_for_alone():
    first, second = (dict(container(name)) for name in NAMES)
    assert [it for it in second["args"] if it not in first["args"]] == ["--if-upgraded"]
    assert {**pod(NAMES[0]), "spec": None} == {**pod(NAMES[1]), "spec": None}
    assert {**first, "args": None} == {**second, "args": None}


def test_the_variables_are_read_by_the_program():
    known = re.findall(r'"(BACKSTAY_\w+)"', (ROOT / "src/backstay/cli/options.py").read_text())
    assert {entry["name"] for entry in container()["env"]} <= set(known)


@pytest.mark.parametrize("name", NAMES)
def test_no_two_runs_meet_none_is_repeated_and_each_ends(name):
    spec = CRONJOBS[name]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    job = spec["jobTemplate"]["spec"]
    assert job["backoffLimit"] == 0
    assert 0 < job["activeDeadlineSeconds"] <= 7200
    assert pod(name)["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("name", NAMES)
def test_the_pod_runs_on_one_control_plane_host(name):
    spec = pod(name)["spec"]
    [role] = spec["nodeSelector"]
    assert role == "node-role.kubernetes.io/master"
    assert {it["key"] for it in spec["tolerations"]} == {
        role,
        "node-role.kubernetes.io/control-plane",
    }
    assert {(it["operator"], it["effect"]) for it in spec["tolerations"]} == {
        ("Exists", "NoSchedule")
    }
    job = CRONJOBS[name]["spec"]["jobTemplate"]["spec"]
    assert not {"parallelism", "completions"} & job.keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_pod_has_no_more_than_it_needs(name):
    spec, security = pod(name)["spec"], container(name)["securityContext"]
    assert spec["securityContext"] == {
        "runAsUser": 0,
        "seLinuxOptions": {"type": "spc_t"},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


def test_host_paths_are_those_that_the_code_reads_and_none_can_be_written_to():
    mounts = {it["name"]: it for it in container()["volumeMounts"]}
    volumes = {it["name"]: it for it in pod()["spec"]["volumes"]}
    assert mounts.keys() == volumes.keys()
    paths = {it["hostPath"]["path"]: name for name, it in volumes.items() if "hostPath" in it}
    assert set(paths) == {KUBERNETES, REVISION_FILE.rpartition("/")[0]}
    for path, name in paths.items():
        assert mounts[name]["readOnly"] is True
        assert mounts[name]["mountPath"] == f"/host{path}"
    assert "--host-root=/host" in container()["args"]
    [spool] = set(volumes) - set(paths.values())
    variables = {entry["name"]: entry["value"] for entry in container()["env"]}
    assert variables["BACKSTAY_SPOOL_DIR"] == mounts[spool]["mountPath"]
    # etcd's quota on OKD, and the margin that a backup wants.
    assert int(volumes[spool]["emptyDir"]["sizeLimit"].removesuffix("Gi")) << 30 > 8 << 30


def test_a_host_of_which_nothing_else_is_mounted_is_enough(world):
    kube, cli, host = world
    for path in ("etc/passwd", "usr/lib/passwd", "usr/lib/group"):
        (host / path).unlink()
    cli(*words(cli, host))
    assert kube.requests


# What OpenShift lets it do


def test_the_constraints_are_what_the_pods_ask_for_and_no_more():
    scc, spec = only("SecurityContextConstraints"), pod()["spec"]
    assert scc["users"] == [f"system:serviceaccount:{NAMESPACE}:{spec['serviceAccountName']}"]
    assert scc["groups"] == []
    allowed = {name for name, value in scc.items() if name.startswith("allow") and value}
    assert allowed == {"allowHostDirVolumePlugin"}
    assert scc["requiredDropCapabilities"] == container()["securityContext"]["capabilities"]["drop"]
    assert scc["readOnlyRootFilesystem"] is True
    assert scc["runAsUser"] == {"type": "MustRunAs", "uid": spec["securityContext"]["runAsUser"]}
    assert scc["seLinuxContext"]["seLinuxOptions"] == spec["securityContext"]["seLinuxOptions"]
    kinds_of_volumes = {kind for it in spec["volumes"] for kind in it if kind != "name"}
    # The account's token comes by a projected one.
    assert set(scc["volumes"]) == kinds_of_volumes | {"projected"}
    assert pod()["metadata"]["annotations"]["openshift.io/required-scc"] == scc["metadata"]["name"]


def test_all_is_in_one_namespace_and_the_lease_too():
    namespaced = [it for it in DOCUMENTS if "namespace" in it["metadata"]]
    assert {it["metadata"]["namespace"] for it in namespaced} == {NAMESPACE} == {lease.NAMESPACE}
    assert only("Namespace")["metadata"]["name"] == NAMESPACE
    account = only("ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert pod()["spec"]["automountServiceAccountToken"] is True


def test_the_operators_are_those_of_the_static_pods():
    rules = [rule for role in kinds(DOCUMENTS, "ClusterRole") for rule in role["rules"]]
    [names] = [it["resourceNames"] for it in rules if it["resources"] == ["clusteroperators"]]
    assert set(names) == set(PODS)


CLUSTER_WIDE = {
    "Namespace", "ClusterRole", "ClusterRoleBinding", "SecurityContextConstraints",
}  # fmt: skip
VERSIONS = {
    "Namespace": "v1",
    "ServiceAccount": "v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "ClusterRole": "rbac.authorization.k8s.io/v1",
    "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
    "CronJob": "batch/v1",
    "SecurityContextConstraints": "security.openshift.io/v1",
}


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda d: f"{d['kind']}-{d['metadata']['name']}"
)
def test_each_object_is_one_that_the_api_takes(document):
    kind = document["kind"]
    assert document["apiVersion"] == VERSIONS[kind]
    assert ("namespace" in document["metadata"]) == (kind not in CLUSTER_WIDE)


def test_no_object_is_there_twice():
    keys = [(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in DOCUMENTS]
    assert len(keys) == len(set(keys))


# The README

VALUES = {
    "BACKSTAY_REPO": "s3://my-backups/a/b",
    "BACKSTAY_KEYS_REPO": "s3://their-clusters/keys",
    "RECIPIENT": "age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq",
    "KEYS_RECIPIENT": "age1zqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gz",
    "IMAGE": "quay.example/team/backstay@sha256:0123",
}


def blocks():
    return re.findall(r"```sh\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)


def test_the_command_of_the_readme_edits_all_that_is_to_be_edited():
    [edit] = [block for block in blocks() if block.startswith("sed ")]
    text = edit.partition(" > ")[0].replace("deploy/okd/*", f"{FOLDER}/*")
    done = subprocess.run(
        ["sh", "-euc", text],
        env={"PATH": "/usr/bin:/bin", **VALUES},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert parse(done.stdout) == replaced(DOCUMENTS)
    assert all(value in done.stdout for value in VALUES.values())


def replaced(value):
    """The same, edited by hand."""
    if isinstance(value, dict):
        return {name: replaced(item) for name, item in value.items()}
    if isinstance(value, list):
        return [replaced(item) for item in value]
    by_hand = {
        "s3://backups/okd": VALUES["BACKSTAY_REPO"],
        "s3://backup-keys/okd": VALUES["BACKSTAY_KEYS_REPO"],
        "--recipient=AGE_RECIPIENT": f"--recipient={VALUES['RECIPIENT']}",
        "--keys-recipient=AGE_KEYS_RECIPIENT": f"--keys-recipient={VALUES['KEYS_RECIPIENT']}",
        "registry.example.com/backstay:latest": VALUES["IMAGE"],
    }
    return by_hand.get(value, value) if isinstance(value, str) else value


def podman_lines():
    joined = [block.replace("\\\n", " ") for block in blocks()]
    return [line for block in joined for line in block.splitlines() if "podman run" in line]


@pytest.mark.parametrize("line", podman_lines())
def test_podman_has_what_the_pod_has(line):
    found = shlex.split(line)
    mounts = [it for before, it in itertools.pairwise(found) if before == "-v"]
    read_only = {it.split(":")[0] for it in mounts if it.endswith(":ro")}
    paths = {it["hostPath"]["path"] for it in pod()["spec"]["volumes"] if "hostPath" in it}
    assert read_only == paths
    assert all(it.split(":")[1] == f"/host{it.split(':')[0]}" for it in mounts if it.endswith("ro"))
    assert {"--rm", "--read-only", "--network", "--cap-drop"} <= set(found)
    args = found[found.index("$IMAGE") + 1 :]
    context = click.Context(backstay, info_name="backstay")
    for word in args[:2]:
        command = context.command.get_command(context, word)
        context = click.Context(command, info_name=word, parent=context)
    parsed, rest, _ = context.command.make_parser(context).parse_args(args[2:])
    assert rest == []
    assert str(parsed["host_root"]) == "/host"
