"""Users, tokens and failing members, against real servers."""

import time
from dataclasses import replace

import pytest

from backstay.client.endpoint import parse_endpoints
from backstay.client.etcd import Etcd
from backstay.client.health import choose, survey
from backstay.client.secret import Secret
from backstay.client.snapshot import receive
from backstay.errors import AuthenticationError, ConnectionFailedError, EtcdUnavailableError
from backstay.report import Report
from kit import needs
from kit.etcd import Etcd as Server
from kit.etcd import EtcdCluster, free_port

PASSWORD = "Correct-Horse-9"


@pytest.fixture(scope="module", params=["3.5", "3.4"])
def server(request, tmp_path_factory):
    """A server with users, whose tokens live for a second."""
    binary = needs.binary("etcd") if request.param == "3.5" else needs.debian("etcd")
    flags = ("--auth-token-ttl", "1") if request.param == "3.5" else ()
    with Server.start(tmp_path_factory.mktemp("etcd"), binary=binary, flags=flags) as etcd:
        etcd.enable_auth(PASSWORD)
        yield etcd


def everything(error):
    """All that a traceback with --debug could print of an error."""
    parts = []
    while error is not None:
        parts += [str(error), repr(error), repr(error.__dict__)]
        error = error.__cause__ or error.__context__
    return " ".join(parts)


def test_a_user_gets_in(server):
    with Etcd(server.access) as etcd:
        etcd.put(b"k", b"v")
        assert etcd.range(b"k").kvs[0].value == b"v"
        assert etcd.hashkv(etcd.endpoints[0]).revision == etcd.range(b"k").header.revision


def test_promise_5_a_wrong_password_is_refused_and_not_shown(server):
    access = replace(server.access, password=Secret("wr0ng-one"))
    with Etcd(access) as etcd, pytest.raises(AuthenticationError) as caught:
        etcd.range(b"k")
    assert "authentication failed" in str(caught.value)
    assert "wr0ng-one" not in everything(caught.value)


def test_no_user_where_etcd_wants_one(server):
    # etcd takes the name in a client's certificate for the user; this one has no rights.
    with (
        Etcd(replace(server.access, user=None, password=None)) as etcd,
        pytest.raises(AuthenticationError, match="permission denied"),
    ):
        etcd.range(b"k")


def test_no_user_and_no_certificate_where_etcd_wants_a_user(tmp_path):
    with Server.start(tmp_path, tls=None) as server:
        server.enable_auth(PASSWORD)
        with Etcd(replace(server.access, user=None, password=None)) as etcd:
            with pytest.raises(AuthenticationError, match="give --user"):
                etcd.range(b"k")
            assert etcd.status(etcd.endpoints[0]).is_leader


def test_a_user_where_etcd_knows_none(tmp_path):
    with (
        Server.start(tmp_path) as server,
        Etcd(replace(server.access, user="root", password=Secret(PASSWORD))) as etcd,
    ):
        etcd.put(b"k", b"v")
        # Auth is turned on while we are at work.
        server.enable_auth(PASSWORD)
        assert etcd.range(b"k").kvs[0].value == b"v"


def test_promise_5_a_user_without_rights_is_told_so(server):
    if "low" not in server.ctl("user", "list"):
        server.ctl("user", "add", "low", "--interactive=false", stdin="low-password\n")
    access = replace(server.access, user="low", password=Secret("low-password"))
    with Etcd(access) as etcd:
        with pytest.raises(AuthenticationError, match=r"permission denied.*role root") as caught:
            etcd.hashkv(etcd.endpoints[0])
        token = etcd.session._token
        assert token.reveal() not in everything(caught.value) + repr(vars(etcd.session))
        with pytest.raises(AuthenticationError, match="permission denied"):
            receive(etcd, etcd.status(etcd.endpoints[0]), Nowhere(), Report())
        with pytest.raises(AuthenticationError, match="permission denied"), etcd.watch():
            pass


class Nowhere:
    def write(self, data):
        raise AssertionError("nothing is to come")

    reset = write


def test_a_token_that_ran_out_is_renewed(server):
    with Etcd(server.access) as etcd:
        etcd.put(b"k", b"v")
        old = etcd.session._token
        if server.version >= (3, 5):
            time.sleep(2.5)
        else:
            # 3.4 does not let its tokens' life be set: one that it has never seen is the same.
            old = etcd.session._token = Secret("abcdefghijklmnop.7")
        etcd.put(b"k", b"w")
        assert etcd.range(b"k").kvs[0].value == b"w"
        assert etcd.session._token != old


@pytest.mark.parametrize("stale", ["abcdefghijklmnop.7", "nonsense"])
def test_streams_renew_the_token_too(server, stale):
    with Etcd(server.access) as etcd:
        etcd.put(b"k", b"v")
        etcd.session._token = Secret(stale)
        with etcd.watch(start_revision=1) as watch:
            assert watch.next(5).changes
        etcd.session._token = Secret(stale)
        taken = []
        sink = Nowhere()
        sink.write = taken.append
        status = etcd.status(etcd.endpoints[0])
        assert receive(etcd, status, sink, Report()).size == len(b"".join(taken))


def test_users_that_change_meanwhile_do_no_harm(server):
    with Etcd(server.access) as etcd:
        etcd.put(b"k", b"v")
        server.ctl("role", "add", f"role-{time.monotonic_ns()}")
        etcd.put(b"k", b"w")


def test_reads_and_writes_go_to_a_member_that_can_be_reached(tmp_path):
    with Server.start(tmp_path) as server:
        nobody = parse_endpoints(f"https://127.0.0.1:{free_port()}")
        access = replace(server.access, endpoints=nobody + server.access.endpoints)
        with Etcd(access) as etcd:
            revision = etcd.put(b"k", b"v")
            assert etcd.range(b"k").header.revision == revision
            assert [m.name for m in etcd.members()] == ["default"]
            with etcd.watch(b"k", start_revision=revision) as watch:
                assert len(watch.next(5).changes) == 1
            with pytest.raises(ConnectionFailedError):
                etcd.status(nobody[0])
            assert [m.status is None for m in survey(etcd).members] == [True, False]


def test_the_loss_of_a_member_is_survived_and_the_loss_of_most_is_told(tmp_path):
    with EtcdCluster.start(tmp_path, 3) as cluster:
        access = replace(
            cluster.access, timeouts=replace(cluster.access.timeouts, dial=3.0, command=2.0)
        )
        with Etcd(access) as etcd:
            etcd.put(b"k", b"v")
            cluster.members[0].kill()
            deadline = time.monotonic() + 20
            while True:
                try:
                    assert etcd.range(b"k").kvs[0].value == b"v"
                    break
                except EtcdUnavailableError:  # a new leader is being elected
                    assert time.monotonic() < deadline
            cluster.members[1].kill()
            with pytest.raises(EtcdUnavailableError):
                etcd.range(b"k")
            # What one member has, it still gives.
            assert etcd.range(b"k", serializable=True).kvs[0].value == b"v"
            choice = choose(survey(etcd).members)
            (left,) = choice.order
            assert str(left.endpoint) == cluster.members[2].endpoint
