"""How a host enters its etcd is read from its files, and nothing in them is ever run."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.client.endpoint import parse_endpoints
from backstay.client.etcd import Etcd
from backstay.errors import BackstayError, FormatError, NotFoundError, UsageError
from backstay.kinds.okd.etcd_files import ENV_FILE, find_etcd, parse_env
from backstay.kinds.okd.hosttree import HostTree
from kit.okd_host import NODE, SAFE, OkdHost


@pytest.fixture
def tree(host):
    with HostTree(host.root) as tree:
        yield tree


@pytest.mark.parametrize("layout", ["host", "pod"])
def test_both_layouts_lead_into_a_real_etcd(tmp_path, etcd, layout):
    host = OkdHost.make(tmp_path / "host", etcd, layout=layout)
    with HostTree(host.root) as tree:
        found = find_etcd(tree)
    assert found.node == NODE
    place = {"host": "static-pod-resources/etcd-certs", "pod": "static-pod-certs"}[layout]
    for path in (found.ca, found.certificate, found.key):
        assert path.startswith(f"/etc/kubernetes/{place}/")
    with Etcd(found.access) as client:
        assert client.status(found.access.endpoints[0]).version.startswith("3.5")
    assert "PRIVATE" not in repr(found)
    assert found.key in repr(found)


def test_this_hosts_member_comes_first_and_then_all(host, tree):
    host.write_env(
        ALL_ETCD_ENDPOINTS=f"https://192.0.2.1:2379,{host.etcd.endpoint},https://192.0.2.3:2379",
        ETCDCTL_ENDPOINTS="https://192.0.2.3:2379,https://[2001:db8::1]:2379",
    )
    found = [str(endpoint) for endpoint in find_etcd(tree).access.endpoints]
    own = host.etcd.endpoint
    others = ["https://192.0.2.1:2379", "https://192.0.2.3:2379", "https://[2001:db8::1]:2379"]
    assert found == [own, *others]


def test_addresses_of_ipv6_stand_in_brackets(host, tree):
    host.write_env(**{f"NODE_{SAFE}_IP": "[2001:db8::7]"})
    assert str(find_etcd(tree).access.endpoints[0]) == "https://[2001:db8::7]:2379"


def test_other_endpoints_can_be_named(tree):
    found = find_etcd(tree, endpoints="https://192.0.2.9:1")
    assert found.access.endpoints == parse_endpoints("https://192.0.2.9:1")
    with pytest.raises(UsageError, match="without TLS"):
        find_etcd(tree, endpoints="http://192.0.2.9:1")


@pytest.mark.parametrize("name", ["ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY"])
def test_a_variable_that_is_missing_is_named(host, tree, name):
    host.write_env(**{name: None})
    with pytest.raises(FormatError, match=name) as caught:
        find_etcd(tree)
    assert str(host.root) + ENV_FILE in caught.value.what


def test_without_any_endpoint_there_is_a_way_out(host, tree):
    host.write_env(ALL_ETCD_ENDPOINTS=None, ETCDCTL_ENDPOINTS=None, **{f"NODE_{SAFE}_IP": None})
    with pytest.raises(BackstayError, match="names no endpoint") as caught:
        find_etcd(tree)
    assert "--endpoints" in caught.value.do


@pytest.mark.parametrize("bad", ["https://", "ftp://x", "https://a:b@c", "https://h:99999"])
def test_an_endpoint_that_makes_no_sense_is_the_files_fault(host, tree, bad):
    host.write_env(ALL_ETCD_ENDPOINTS=bad)
    with pytest.raises(FormatError) as caught:
        find_etcd(tree)
    assert str(host.root) + ENV_FILE in caught.value.what


def test_plain_http_is_refused(host, tree):
    host.write_env(ALL_ETCD_ENDPOINTS="http://192.0.2.1:2379")
    with pytest.raises(BackstayError, match="without TLS"):
        find_etcd(tree)


@pytest.mark.parametrize("name", ["etcd-peer-NODE_NAME.crt", "tls.crt", "etcd-peer-.crt"])
def test_a_certificate_that_names_no_host_is_an_error(host, tree, name):
    host.write("etc/kubernetes/static-pod-resources/etcd-certs/" + name, "x")
    host.write_env(ETCDCTL_CERT=f"/etc/kubernetes/static-pod-certs/{name}")
    with pytest.raises(FormatError, match="does not name a host"):
        find_etcd(tree)


def test_two_names_for_one_host_are_an_error(host, tree):
    host.write_env(**{f"NODE_{SAFE}_ETCD_NAME": "another"})
    with pytest.raises(FormatError, match="calls this host"):
        find_etcd(tree)


@pytest.mark.parametrize(
    "gone",
    ["configmaps/etcd-serving-ca/ca-bundle.crt", f"secrets/etcd-all-certs/etcd-peer-{NODE}.key"],
)
def test_a_certificate_that_is_not_there_is_named(host, tree, gone):
    path = f"etc/kubernetes/static-pod-resources/etcd-certs/{gone}"
    host.remove(path)
    with pytest.raises(NotFoundError) as caught:
        find_etcd(tree)
    assert str(host.root / path) in caught.value.what
    assert "static-pod-certs" in caught.value.what


def test_a_key_that_is_a_pipe_or_leaves_the_tree_is_an_error(host, tree, tmp_path):
    path = f"etc/kubernetes/static-pod-resources/etcd-certs/secrets/etcd-all-certs/etcd-peer-{NODE}"
    host.remove(f"{path}.key")
    os.mkfifo(host.root / f"{path}.key")
    with pytest.raises(NotFoundError, match="etcd-peer"):
        find_etcd(tree)
    host.remove(f"{path}.key")
    (tmp_path / "key").write_text("outside")
    (host.root / f"{path}.key").symlink_to("../" * 12 + "key")
    with pytest.raises(BackstayError, match=r"etcd-peer.*key is a symbolic link that leads out"):
        find_etcd(tree)


def test_a_host_without_etcds_files_is_no_control_plane_host(host, tree):
    host.remove(ENV_FILE[1:])
    with pytest.raises(NotFoundError) as caught:
        find_etcd(tree)
    assert str(host.root) + ENV_FILE in caught.value.what
    assert "control plane host" in caught.value.do


def test_assignments_are_read_as_a_shell_reads_them():
    text = b"""# made by someone
export A="one two"
B='three $x `y`'
export C=plain/path-1.2:3,4@[5]
  export D=""
E=
export A="later"
\t
"""
    expected = {"A": "later", "B": "three $x `y`", "C": "plain/path-1.2:3,4@[5]", "D": "", "E": ""}
    assert parse_env(text, "x") == expected


@pytest.mark.parametrize(
    "value",
    ['"$(touch {0})"', "`touch {0}`", "$HOME", '"a\\"b"', '"a" "b"', "a;touch {0}", "'a", "a b"],
)
def test_what_a_shell_would_have_to_work_out_is_left_out_and_never_run(tmp_path, value):
    mark = tmp_path / "mark"
    text = f"A=1\nexport A={value.format(mark)}\n"
    assert parse_env(text.encode(), "x") == {}
    assert not mark.exists()


@pytest.mark.parametrize(
    "line", ["touch /tmp/x", ". /etc/other", "export", "1A=x", "A B=c", "if true", "=x", "A = b"]
)
def test_a_line_that_is_no_assignment_is_refused_and_not_quoted(line):
    with pytest.raises(FormatError, match="line 2 is no assignment") as caught:
        parse_env(f"A=1\n{line}\n".encode(), "etcd.env")
    assert line not in str(caught.value).replace("etcd.env: line 2 is no assignment", "")


@given(st.binary(max_size=300))
def test_whatever_is_in_the_file_there_is_one_kind_of_error(data):
    try:
        found = parse_env(data, "x")
    except FormatError:
        return
    assert all(isinstance(value, str) for value in found.values())
