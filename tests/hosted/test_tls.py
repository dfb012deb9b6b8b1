"""Certificates out of Secrets and ConfigMaps: right ones enter an etcd, wrong ones are named."""

import base64
import datetime as dt

import pytest

from backstay.client.etcd import Etcd
from backstay.errors import (
    ConnectionFailedError,
    FormatError,
    KubeForbiddenError,
    KubeNotFoundError,
)
from backstay.kinds.hosted.cluster import Hosted, Unmanaged
from backstay.kinds.hosted.reach.tls import client_tls
from kit.certificates import Authority, days
from kit.hosted import hosted_objects, hosted_tls, start_etcd
from kit.kubestreams import Streams, serve

CP = "/api/v1/namespaces/clusters-blue"
SECRET, MAP = f"{CP}/secrets/etcd-client-tls", f"{CP}/configmaps/etcd-ca"
NOW = dt.datetime.now(dt.UTC)


def readable(objects):
    """Objects by the paths that they are read at."""
    return {
        f"/api/v1/namespaces/{o['metadata']['namespace']}/{o['kind'].lower()}s/"
        f"{o['metadata']['name']}": o
        for o in objects
        if o["kind"] in ("Secret", "ConfigMap")
    }


def hosted(**more):
    return Hosted(
        name="blue",
        namespace="clusters",
        control_plane_namespace="clusters-blue",
        hosted_cluster={},
        **more,
    )


@pytest.fixture
def server():
    with serve(Streams(), readable(hosted_objects("blue", tls=hosted_tls()))) as server:
        yield server


def read(server, what=None, now=NOW):
    with server.api() as api:
        return client_tls(api, what or hosted(), now)


def encoded(value):
    return base64.b64encode(value).decode()


def test_what_is_read_enters_a_real_etcd(server, tmp_path):
    with start_etcd(tmp_path, hosted_tls()) as etcd:
        tls = read(server)
        access = etcd.access
        with Etcd(type(access)(endpoints=access.endpoints, tls=tls)) as client:
            assert client.put(b"k", b"v") == 2


def test_promise_5_the_key_is_in_no_repr(server):
    key = hosted_tls().client.key.decode().splitlines()[1]
    assert key in read(server).key.decode()
    assert key not in repr(read(server))


def test_an_unmanaged_etcd_has_its_material_in_one_secret(server):
    it = hosted(unmanaged=Unmanaged(endpoint="https://x:2379", client_secret="their-etcd-client"))
    objects = hosted_objects("blue", tls=hosted_tls(), unmanaged="https://x:2379")
    server.objects = readable(objects)
    copy = f"{CP}/secrets/their-etcd-client"
    assert copy in server.objects
    assert read(server, it).ca == hosted_tls().authority.pem
    # The operator has not copied it yet: the user's own is as good.
    del server.objects[copy]
    assert read(server, it).certificate == hosted_tls().client.certificate
    del server.objects["/api/v1/namespaces/clusters/secrets/their-etcd-client"]
    with pytest.raises(KubeNotFoundError):
        read(server, it)


@pytest.mark.parametrize("path", [SECRET, MAP])
def test_an_object_that_is_not_there(server, path):
    del server.objects[path]
    with pytest.raises(KubeNotFoundError, match=path.rpartition("/")[2]):
        read(server)


def test_an_object_that_we_may_not_read(server):
    with server.api() as api:
        server.token = "another by now"
        with pytest.raises(KubeForbiddenError):
            client_tls(api, hosted(), NOW)


SECRET_WORDS = "c2VjcmV0IHdvcmRz!"
WRONG = [
    (
        SECRET,
        "etcd-client.key",
        None,
        "Secret clusters-blue/etcd-client-tls has no etcd-client.key",
    ),
    (
        SECRET,
        "etcd-client.crt",
        None,
        "Secret clusters-blue/etcd-client-tls has no etcd-client.crt",
    ),
    (SECRET, "etcd-client.key", 7, "has no etcd-client.key"),
    (SECRET, "etcd-client.key", "", "has no etcd-client.key"),
    (SECRET, "etcd-client.key", SECRET_WORDS, "etcd-client.key is no base64"),
    (SECRET, "etcd-client.key", "ü", "etcd-client.key is no base64"),
    (SECRET, "etcd-client.key", "eA==", "etcd-client-tls: the client key can't be read"),
    (SECRET, "etcd-client.crt", "eA==", "etcd-client-tls: the client certificate has no cert"),
    (SECRET, "etcd-client.crt", "A" * (5 << 20), "too many"),
    (MAP, "ca.crt", None, "ConfigMap clusters-blue/etcd-ca has no ca.crt"),
    (MAP, "ca.crt", "not PEM", "ConfigMap clusters-blue/etcd-ca: the CA file has no certificate"),
    (MAP, "ca.crt", ["PEM"], "ConfigMap clusters-blue/etcd-ca has no ca.crt"),
]


@pytest.mark.parametrize(("path", "key", "value", "words"), WRONG)
def test_what_is_wrong_is_named_with_its_object(server, path, key, value, words):
    if value is None:
        del server.objects[path]["data"][key]
    else:
        server.objects[path]["data"][key] = value
    with pytest.raises(FormatError, match=words) as caught:
        read(server)
    assert SECRET_WORDS not in str(caught.value)


@pytest.mark.parametrize("data", [None, 7, [], "data"])
def test_data_that_is_no_map(server, data):
    server.objects[SECRET]["data"] = data
    with pytest.raises(FormatError, match="etcd-client-tls has no"):
        read(server)


def test_a_key_of_another_certificate(server):
    other = Authority.make().issue("other")
    server.objects[SECRET]["data"]["etcd-client.key"] = encoded(other.key)
    with pytest.raises(FormatError, match="etcd-client-tls: the key does not belong"):
        read(server)


def test_certificates_out_of_their_time(server):
    old = hosted_tls().authority.issue("etcd-client", start=days(-9), end=days(-2))
    server.objects[SECRET]["data"] = {
        "etcd-client.crt": encoded(old.certificate),
        "etcd-client.key": encoded(old.key),
    }
    with pytest.raises(ConnectionFailedError, match=r"etcd-client-tls: .*ran out on"):
        read(server)
    authority = Authority.make("etcd-signer", start=days(-9), end=days(-2))
    server.objects[MAP]["data"]["ca.crt"] = authority.pem.decode()
    with pytest.raises(ConnectionFailedError, match=r"etcd-ca: .*ran out on"):
        read(server)
