"""Who we are for an API server, by every way that a kubeconfig or a pod has to say it."""

import base64
import json
import os
import ssl
import stat
import subprocess
import sys
from dataclasses import replace

import pytest

from backstay.errors import BackstayError, KubeError, UsageError
from backstay.kubeapi.credentials import Credentials, Login
from kit.certificates import Authority

SECRET = "sha256~never-to-be-seen"
AUTHORITY = Authority.make()
CLIENT = AUTHORITY.issue("backstay", hosts=())


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch, tmp_path):
    """No kubeconfig, no pod, no proxy; a temporary directory in which nothing may be left."""
    for name in os.environ:
        if name.upper().endswith("_PROXY") or name.startswith("KUBE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setenv("TMPDIR", str(scratch))
    yield
    assert list(scratch.iterdir()) == []


def b64(data):
    return base64.b64encode(data).decode()


def document(cluster=None, user=None, **more):
    server = {"server": "https://api.example.com:6443"}
    return {
        "current-context": "one",
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "clusters"}}
        ],
        "clusters": [{"name": "c", "cluster": server | (cluster or {})}],
        "users": [{"name": "u", "user": {"token": SECRET} if user is None else user}],
    } | more


@pytest.fixture
def write(tmp_path):
    def write(content, name="config", folder="kube"):
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.fixture
def read(write, tmp_path):
    """Read a document as a kubeconfig."""

    def read(content, context=None) -> Credentials:
        return Login(write(content), context, tmp_path / "no-pod").read()

    return read


def shake_hands(client: ssl.SSLContext, name="api.example.com", hosts=("api.example.com",)):
    """Shake hands with a server that wants a certificate of ours; gives the one that it saw."""
    import tempfile
    from pathlib import Path

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        server.load_cert_chain(*AUTHORITY.issue("server", hosts=hosts).write(Path(folder)))
    server.load_verify_locations(cadata=AUTHORITY.pem.decode())
    server.verify_mode = ssl.CERT_REQUIRED
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for end in ends * 4:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return ends[1].getpeercert()


def test_a_token(read):
    found = read(document())
    assert found.server == "https://api.example.com:6443"
    assert found.headers == {"Authorization": f"Bearer {SECRET}"}
    assert (found.namespace, found.proxy, found.insecure) == ("clusters", None, False)
    assert found.describe().startswith("https://api.example.com:6443 (context one of ")


def test_yaml_as_people_write_it(read):
    found = read(
        "# ours\napiVersion: v1\nkind: Config\ncurrent-context: a\n"
        "contexts:\n- context: {cluster: b, user: c}\n  name: a\n"
        "clusters:\n- name: b\n  cluster:\n    server: https://[::1]:6443/k8s/clusters/c-1/\n"
        f"users:\n- name: c\n  user:\n    token: >-\n      {SECRET}\n"
    )
    assert found.server == "https://[::1]:6443/k8s/clusters/c-1"
    assert found.headers == {"Authorization": f"Bearer {SECRET}"}


def test_promise_5_no_secret_is_in_what_is_printed(read):
    user = {"token": SECRET, "client-certificate-data": b64(CLIENT.certificate)}
    cluster = {"proxy-url": f"http://user:{SECRET}@proxy:3128"}
    found = read(document(cluster, user | {"client-key-data": b64(CLIENT.key)}))
    for text in (repr(found), str(found), found.describe()):
        assert SECRET not in text
        assert b64(CLIENT.key)[:40] not in text
        assert "PRIVATE" not in text


@pytest.mark.parametrize("way", ["data", "files", "folded"])
def test_promise_5_a_client_certificate_leaves_no_file(read, write, way):
    if way == "files":
        for name, data in (("a.crt", CLIENT.certificate), ("a.key", CLIENT.key)):
            write(data.decode(), name)
        write(AUTHORITY.pem.decode(), "ca.crt")
        cluster = {"certificate-authority": "ca.crt"}
        user = {"client-certificate": "a.crt", "client-key": "a.key"}
    else:
        fold = (lambda t: "\n".join(t[i : i + 64] for i in range(0, len(t), 64))) if (
            way == "folded"
        ) else str  # fmt: skip
        cluster = {"certificate-authority-data": fold(b64(AUTHORITY.pem))}
        user = {
            "client-certificate-data": fold(b64(CLIENT.certificate)),
            "client-key-data": fold(b64(CLIENT.key)),
        }
    found = read(document(cluster, user))
    assert found.headers == {}
    seen = shake_hands(found.tls)
    assert seen["subject"] == ((("commonName", "backstay"),),)


def test_promise_5_killed_while_it_logs_in_it_leaves_no_key(write, tmp_path):
    """Killed in the midst of it: OpenSSL has been shown the key, and goes no further."""
    user = {
        "client-certificate-data": b64(CLIENT.certificate),
        "client-key-data": b64(CLIENT.key),
    }
    path = write(document({}, user))
    program = (
        "import os, signal, ssl, sys; from pathlib import Path\n"
        "from backstay.kubeapi import trust\n"
        "from backstay.kubeapi.credentials import Login\n"
        "def shown(self, path, *a, **k):\n"
        "    assert b'PRIVATE KEY' in open(path, 'rb').read()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "trust.NamedContext.load_cert_chain = shown\n"
        "Login(Path(sys.argv[1])).read()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False, cwd=tmp_path)
    assert done.returncode == -9
    key = CLIENT.key.splitlines()[1]
    left = [p for p in tmp_path.rglob("*") if p.is_file() and key in p.read_bytes()]
    assert left == []


def test_the_authority_of_the_kubeconfig_and_no_other(read):
    other = Authority.make("another")
    user = {
        "client-certificate-data": b64(CLIENT.certificate),
        "client-key-data": b64(CLIENT.key),
    }
    found = read(document({"certificate-authority-data": b64(other.pem)}, user))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(found.tls)
    comment = "# \u00dcber uns\n".encode()
    found = read(document({"certificate-authority-data": b64(comment + AUTHORITY.pem)}, user))
    assert shake_hands(found.tls)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(found.tls, hosts=("elsewhere.example.com",))


def test_a_server_by_another_name(read):
    cluster = {
        "certificate-authority-data": b64(AUTHORITY.pem),
        "tls-server-name": "kubernetes",
    }
    user = {
        "client-certificate-data": b64(CLIENT.certificate),
        "client-key-data": b64(CLIENT.key),
    }
    found = read(document(cluster, user))
    assert found.server_name == "kubernetes"
    assert shake_hands(found.tls, hosts=("kubernetes",))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(found.tls, hosts=("api.example.com",))


def test_a_server_that_is_not_verified_is_warned_of(read):
    found = read(document({"insecure-skip-tls-verify": True}))
    assert found.insecure
    assert found.tls.verify_mode is ssl.CERT_NONE
    assert "WARNING: its certificate is not verified" in found.describe()
    careful = read(document({"insecure-skip-tls-verify": "true"}))  # a text is no yes
    assert careful.tls.verify_mode is ssl.CERT_REQUIRED
    assert careful.tls.check_hostname


def test_nobody_logs_in_where_all_can_listen(read):
    found = read(document({"server": "http://127.0.0.1:8001"}))
    assert (found.tls, found.headers) == (None, {})


@pytest.mark.parametrize("absolute", [True, False])
def test_a_token_in_a_file_is_read_anew(write, tmp_path, absolute):
    file = write("first\n", "token")
    user = {"token": "old", "tokenFile": str(file) if absolute else "token"}
    login = Login(write(document({}, user)))
    assert login.read().headers == {"Authorization": "Bearer first"}
    file.write_text("second")
    assert login.read().headers == {"Authorization": "Bearer second"}
    file.write_text("")
    with pytest.raises(UsageError, match="token holds no token"):
        login.read()
    file.unlink()
    with pytest.raises(BackstayError, match="token"):
        login.read()


def test_acting_as_somebody_else(read):
    found = read(document({}, {"token": "t", "as": "system:serviceaccount:a:b", "as-uid": "7"}))
    assert found.headers == {
        "Authorization": "Bearer t",
        "Impersonate-User": "system:serviceaccount:a:b",
        "Impersonate-Uid": "7",
    }


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"token": "t", "as": "a", "as-groups": ["b"]}, "as-groups"),
        ({"token": "t", "as": "a\r\nX-Other: b"}, "no name"),
        ({"token": f"{SECRET}\r\nX-Other: b"}, "no token"),
        ({"username": "a", "password": SECRET}, "given up"),
        ({"auth-provider": {"name": "oidc", "config": {"id-token": SECRET}}}, "given up"),
        ({"client-key-data": b64(CLIENT.key)}, "key alone"),
        ({"client-certificate-data": b64(CLIENT.certificate)}, "without its key"),
        ({"client-certificate-data": "%%%", "client-key-data": SECRET}, "no base64"),
        ({"client-certificate-data": b64(b"x"), "client-key-data": b64(b"y")}, "can't be used"),
        (
            {
                "client-certificate-data": b64(CLIENT.certificate),
                "client-key-data": b64(AUTHORITY.issue("other").key),
            },
            "can't be used",
        ),
    ],
)
def test_a_user_that_makes_no_sense(read, user, words):
    with pytest.raises(UsageError, match=words) as caught:
        read(document({}, user))
    assert SECRET not in f"{caught.value!r}"


def test_a_key_with_a_passphrase_asks_nobody(read):
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key(CLIENT.key, None).private_bytes(
        form.Encoding.PEM,
        form.PrivateFormat.TraditionalOpenSSL,
        form.BestAvailableEncryption(b"secret"),
    )
    user = {"client-certificate-data": b64(CLIENT.certificate), "client-key-data": b64(key)}
    with pytest.raises(UsageError, match="can't be used"):
        read(document({}, user))


@pytest.mark.parametrize(
    "server",
    [
        "",
        "api.example.com",
        "ftp://api.example.com",
        "https://",
        "https://a:b:c",
        "https://a:99999",
        "https://[::1",
        f"https://user:{SECRET}@api.example.com",
        f"https://api.example.com?token={SECRET}",
        f"https://api.example.com#{SECRET}",
        7,
    ],
)
def test_a_server_that_is_no_address(read, server):
    with pytest.raises(UsageError, match="mend the kubeconfig") as caught:
        read(document({"server": server}))
    assert SECRET not in f"{caught.value!r}"


def test_a_context_is_taken_by_name(read):
    more = {
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u"}},
            {"name": "two", "context": {"cluster": "d", "user": "v"}},
        ],
        "clusters": [
            {"name": "c", "cluster": {"server": "https://c"}},
            {"name": "d", "cluster": {"server": "https://d"}},
        ],
        "users": [
            {"name": "u", "user": {"token": "of-u"}},
            {"name": "v", "user": {"token": "of-v"}},
        ],
    }
    assert read(document(**more)).server == "https://c"
    found = read(document(**more), "two")
    assert found.server == "https://d"
    assert found.headers == {"Authorization": "Bearer of-v"}
    with pytest.raises(UsageError, match="has no context 'three': there are: one, two") as caught:
        read(document(**more), "three")
    assert "config" in caught.value.what


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no current context"),
        ("[]", "is no kubeconfig"),
        ("just words", "is no kubeconfig"),
        (f"users: [{{token: {SECRET}", "is no kubeconfig"),
        (f"a: b: {SECRET}", "is no kubeconfig"),
        ("a: !!python/object:os.system x", "is no kubeconfig"),
        ("[" * 1200, "is no kubeconfig"),
        (document(**{"current-context": ""}), "no current context"),
        (document(contexts=None), "no context 'one': there are: none"),
        (document(contexts=[1, {"name": "one"}]), "names no cluster"),
        (document(clusters=[]), "names no cluster"),
        (document(clusters=[{"name": "c"}]), "no server"),
        (document(users=[{"name": "u", "user": [1]}], clusters={}), "names no cluster"),
    ],
)
def test_a_file_that_is_no_kubeconfig(read, content, words):
    with pytest.raises(UsageError, match=words) as caught:
        read(content)
    assert SECRET not in f"{caught.value!r}"
    assert caught.value.__context__ is None or SECRET not in str(caught.value.__context__)


def test_a_context_without_a_user_is_nobody(read):
    assert read(document(users=[])).headers == {}


def test_files_that_are_not_there(write, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"there is no kubeconfig .*/none"):
        Login(tmp_path / "none").read()
    with pytest.raises(UsageError, match="no kubeconfig"):
        Login(tmp_path).read()
    with pytest.raises(UsageError, match="no kubeconfig, and this is no pod"):
        Login(service_account=tmp_path / "no-pod").read()
    with pytest.raises(UsageError, match="no kubeconfig to look for context 'a' in"):
        Login(None, "a", tmp_path / "no-pod").read()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="gone is not there"):
        Login(service_account=tmp_path / "no-pod").read()


def test_of_several_files_the_first_that_says_something(write, monkeypatch, tmp_path):
    (tmp_path / "b").mkdir()
    first = write(
        {
            "clusters": [{"name": "c", "cluster": {"server": "https://first"}}],
            "users": [{"name": "u", "user": {"tokenFile": "token"}}],
        },
        folder="a",
    )
    write("of-a", "token", "a")
    second = write(document(), folder="b")
    write("of-b", "token", "b")
    listed = os.pathsep.join([str(tmp_path / "gone"), "", str(first), str(second)])
    monkeypatch.setenv("KUBECONFIG", listed)
    found = Login(service_account=tmp_path).read()
    assert found.server == "https://first"
    assert found.headers == {"Authorization": "Bearer of-a"}
    assert str(second) in found.origin
    assert Login(second).read().server == "https://api.example.com:6443"


def test_paths_begin_where_they_are_written(write, monkeypatch):
    contexts = write(document(clusters=[], users=[]), folder="a")
    parts = document({"certificate-authority": "ca.crt"}, {"tokenFile": "token"})
    del parts["contexts"]
    cluster = write(parts, folder="b")
    write(AUTHORITY.pem.decode(), "ca.crt", "b")
    write("of-b", "token", "b")
    monkeypatch.setenv("KUBECONFIG", f"{contexts}{os.pathsep}{cluster}")
    found = Login().read()
    assert found.headers == {"Authorization": "Bearer of-b"}
    assert len(found.tls.get_ca_certs()) == 1


def test_the_file_in_the_home_directory(tmp_path, monkeypatch):
    folder = tmp_path / "home" / ".kube"
    folder.mkdir(parents=True)
    (folder / "config").write_text(json.dumps(document()))
    assert Login().read().server == "https://api.example.com:6443"


def pod(tmp_path, monkeypatch, host="10.0.0.1"):
    folder = tmp_path / "pod"
    folder.mkdir()
    (folder / "ca.crt").write_bytes(AUTHORITY.pem)
    (folder / "token").write_text("of-the-pod")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return folder


@pytest.mark.parametrize(
    ("host", "server"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
def test_the_service_account_of_a_pod(tmp_path, monkeypatch, host, server):
    folder = pod(tmp_path, monkeypatch, host)
    login = Login(service_account=folder)
    found = login.read()
    assert found.server == server
    assert found.headers == {"Authorization": "Bearer of-the-pod"}
    assert "service account" in found.describe()
    (folder / "token").write_text("rotated\n")
    again = login.read()
    assert again.headers == {"Authorization": "Bearer rotated"}
    assert again.connection == found.connection


def test_a_kubeconfig_comes_before_the_pod(tmp_path, monkeypatch, write):
    folder = pod(tmp_path, monkeypatch)
    monkeypatch.setenv("KUBECONFIG", str(write(document())))
    assert Login(service_account=folder).read().server == "https://api.example.com:6443"


def test_other_certificates_are_another_connection(read):
    def user(identity):
        return {
            "client-certificate-data": b64(identity.certificate),
            "client-key-data": b64(identity.key),
        }

    one = read(document({}, user(CLIENT)))
    assert one.connection == read(document({}, user(CLIENT))).connection
    assert one.connection != read(document({}, user(AUTHORITY.issue("b")))).connection
    assert one.connection != replace(one, proxy="http://other").connection


PLUGIN = """\
#!{python}
import json, os, sys
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
with open({log!r}, "a") as log:
    log.write(json.dumps([sys.argv[1:], os.environ.get("MORE"), info]) + "\\n")
print(json.dumps({answer!r}))
"""


@pytest.fixture
def plugin(tmp_path):
    """Write a credential plugin that answers so; gives its entry and its log."""
    log = tmp_path / "log"

    def make(status, version="client.authentication.k8s.io/v1", **more):
        answer = {"apiVersion": version, "kind": "ExecCredential", "status": status}
        path = tmp_path / "kube" / "plugin"
        path.parent.mkdir(exist_ok=True)
        path.write_text(PLUGIN.format(python=sys.executable, log=str(log), answer=answer))
        path.chmod(stat.S_IRWXU)
        return {"exec": {"apiVersion": version, "command": "./plugin"} | more}

    make.calls = lambda: [json.loads(line) for line in log.read_text().splitlines()]
    return make


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_a_plugin_gives_a_token(read, plugin, version):
    user = plugin(
        {"token": SECRET, "expirationTimestamp": "2026-11-21T00:00:00Z"},
        f"client.authentication.k8s.io/{version}",
        args=["get-token", "--cluster=a"],
        env=[{"name": "MORE", "value": "b"}],
        interactiveMode="Never",
    )
    assert read(document({}, user)).headers == {"Authorization": f"Bearer {SECRET}"}
    ((arguments, more, info),) = plugin.calls()
    assert (arguments, more) == (["get-token", "--cluster=a"], "b")
    assert info["apiVersion"] == f"client.authentication.k8s.io/{version}"
    assert (info["kind"], info["spec"]) == ("ExecCredential", {"interactive": False})


def test_a_plugin_is_told_of_the_cluster_where_it_wants_that(read, plugin):
    user = plugin({"token": "t"}, provideClusterInfo=True)
    read(document({"certificate-authority-data": b64(AUTHORITY.pem), "other": "x"}, user))
    assert plugin.calls()[0][2]["spec"]["cluster"] == {
        "server": "https://api.example.com:6443",
        "certificate-authority-data": b64(AUTHORITY.pem),
    }


def test_a_plugin_gives_a_certificate(read, plugin):
    status = {
        "clientCertificateData": CLIENT.certificate.decode(),
        "clientKeyData": CLIENT.key.decode(),
    }
    cluster = {"certificate-authority-data": b64(AUTHORITY.pem)}
    found = read(document(cluster, plugin(status)))
    assert shake_hands(found.tls)["subject"] == ((("commonName", "backstay"),),)


def test_a_plugin_is_not_asked_for_a_server_where_all_can_listen(read, plugin):
    read(document({"server": "http://127.0.0.1:1"}, plugin({"token": SECRET})))
    with pytest.raises(FileNotFoundError):
        plugin.calls()


@pytest.mark.parametrize(
    "status", [None, [], {}, {"token": ""}, {"token": 7}, {"clientKeyData": SECRET}]
)
def test_a_plugin_that_does_not_say_who_we_are(read, plugin, status):
    with pytest.raises(KubeError, match="credential plugin plugin") as caught:
        read(document({}, plugin(status)))
    assert SECRET not in f"{caught.value!r}"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"echo {SECRET}", "did not say"),
        (f"echo {SECRET}; exit 3", "ended with 3"),
        ("kill -9 $$", "ended with -9"),
        ("echo '[]'", "did not say"),
        ("printf '[%.0s' $(seq 100000)", "did not say"),
    ],
)
def test_a_plugin_that_fails(read, script, words):
    entry = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh"}
    user = {"exec": entry | {"args": ["-c", script, SECRET]}}
    with pytest.raises(KubeError, match=words) as caught:
        read(document({}, user))
    assert SECRET not in f"{caught.value!r}"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "sh"}, "v1alpha1"),
        ({"command": "sh"}, "credential plugin is of"),
        ({"apiVersion": "client.authentication.k8s.io/v1"}, "no command"),
        (
            {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": "no-such-program-here",
                "installHint": "get it from the shop",
            },
            "no-such-program-here is not there: get it from the shop",
        ),
        (
            {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": "sh",
                "interactiveMode": "Always",
            },
            "there is no terminal",
        ),
    ],
)
def test_a_plugin_that_can_not_be_run(read, entry, words):
    with pytest.raises(UsageError, match=words):
        read(document({}, {"exec": entry}))
