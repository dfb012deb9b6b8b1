"""What preflight asks of a hosted control plane: each question, and that none hides another."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.client.health import choose, survey
from backstay.clock import SystemClock
from backstay.errors import EtcdError, StoreError
from backstay.kinds.hosted import questions
from backstay.kinds.hosted.find import find
from backstay.kinds.hosted.preflight import Plan, preflight
from backstay.kinds.hosted.quiescing.record import ANNOTATION, Record, encode
from backstay.kubeapi.resource import HOSTED_CLUSTERS, SECRETS
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role, new_config
from backstay.repo.identity import generate
from backstay.repo.stores.file import FileStore
from backstay.report import Report, Verdict
from kit.certificates import Authority, days
from kit.etcd import ServerTls
from kit.hosted import (
    ACTIVE,
    TARGET,
    condition,
    hosted_objects,
    hosted_tls,
    load,
    one,
    start_etcd,
    without,
)

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.COULD_NOT_VERIFY
CLOCK = SystemClock()
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    """A real member, under HyperShift's names."""
    with start_etcd(tmp_path_factory.mktemp("etcd")) as etcd:
        etcd.ctl("put", "key", "value")
        yield etcd


@pytest.fixture(scope="module")
def choice(etcd):
    with Client(etcd.access) as client:
        return choose(survey(client).members)


def repository(folder, role=Role.DATA):
    _, recipient = generate(CLOCK.now())
    return Repository.init(FileStore(folder), new_config(role, [recipient], {}, CLOCK.now()))


@pytest.fixture
def places(tmp_path):
    data, keys = repository(tmp_path / "data"), repository(tmp_path / "keys", Role.KEYS)
    return {"data": lambda: data, "keys": lambda: keys}


@pytest.fixture
def look(kube, api, tmp_path):
    """Load objects, ask all questions, and give the checks by name."""

    def ask(objects, **more):
        load(kube, objects)
        plan = Plan(**{"name": "blue", "namespace": "clusters", "spool_dir": tmp_path, **more})
        judged = []
        report = Report(judged.append)
        checks = preflight(api, plan, clock=CLOCK, report=report)
        assert len(judged) == len(checks)
        return {check.name: check for check in checks}

    return ask


def verdicts(checks):
    return {name: check.verdict for name, check in checks.items()}


def test_all_is_well(look, places, choice):
    checks = look(
        hosted_objects(tls=hosted_tls()),
        survey=lambda hosted: {"etcd": choice},
        quota=1 << 30,
        commands=("backup", "direct"),
        **places,
    )
    assert list(checks) == [
        *("found", "rights", "conditions", "quiesced", "pods", "certificates", "keys"),
        *("rotation", "members", "alarms", "quota", "space"),
        *("repository", "keys repository", "writable", "apart"),
    ]
    assert {name: c.detail for name, c in checks.items() if c.verdict is not PASS} == {}
    assert "4.20.3" in checks["found"].detail
    assert "key-881413397" in checks["keys"].detail


def test_what_is_not_given_is_not_listed(look):
    checks = look(hosted_objects())
    assert not {"members", "space", "repository", "apart"} & set(checks)


def test_promise_5_no_key_in_any_verdict(look):
    checks = look(hosted_objects(keys=(ACTIVE, TARGET), rotating=True))
    text = repr(checks)
    for key in (ACTIVE, TARGET):
        assert key.decode() not in text
        assert base64.b64encode(key).decode() not in text


# None hides another


def test_no_such_cluster_hides_nothing_else(kube, look, places):
    kube.deny("get", SECRETS)
    checks = look(hosted_objects("green"), **places)
    assert checks["found"].verdict is FAIL
    assert "in clusters there are green" in checks["found"].detail
    assert checks["rights"].verdict is FAIL
    assert "get secrets in clusters-blue" in checks["rights"].detail
    assert verdicts(checks) | {
        "repository": PASS,
        "keys repository": PASS,
        "writable": PASS,
        "apart": PASS,
    } == verdicts(checks)


def test_promise_4_what_we_may_not_look_at_is_not_passed(kube, look):
    objects = hosted_objects()
    kube.deny("get", HOSTED_CLUSTERS)
    checks = look(objects)
    assert checks["found"].verdict is UNKNOWN
    assert "get hostedclusters.hypershift.openshift.io in clusters" in checks["rights"].detail


def test_promise_4_keys_that_we_may_not_read_are_not_passed(kube, look):
    kube.deny("get", SECRETS)
    checks = look(hosted_objects(keys=(ACTIVE, TARGET), rotating=True))
    assert [checks[name].verdict for name in ("certificates", "keys", "rotation")] == [UNKNOWN] * 3
    assert checks["pods"].verdict is PASS


def test_a_survey_that_fails(look, places):
    def nobody(hosted):
        raise EtcdError("nobody is there")

    checks = look(hosted_objects(), survey=nobody, **places)
    assert checks["members"].verdict is UNKNOWN
    assert "alarms" not in checks
    assert checks["apart"].verdict is PASS


def test_a_repository_that_does_not_open(look, places):
    def broken():
        raise StoreError("the store refuses")

    checks = look(hosted_objects(), data=broken, keys=places["keys"])
    assert checks["repository"].verdict is UNKNOWN
    assert checks["keys repository"].verdict is PASS
    assert checks["writable"].verdict is PASS
    assert "apart" not in checks


# The repositories


def test_promise_5_keys_in_the_data_are_refused(look, tmp_path):
    data = repository(tmp_path / "data")
    inside = repository(tmp_path / "data" / "keys", Role.KEYS)
    checks = look(hosted_objects(), data=lambda: data, keys=lambda: inside)
    assert checks["apart"].verdict is FAIL
    assert "keys must not lie with the data" in checks["apart"].detail


def test_roles(look, places):
    checks = look(hosted_objects(), data=places["keys"], keys=places["data"])
    assert checks["repository"].verdict is FAIL
    assert "is for keys: name one for data" in checks["repository"].detail
    assert checks["keys repository"].verdict is FAIL


def test_a_clock_that_is_wrong(look, places, monkeypatch):
    opened = places["data"]()
    monkeypatch.setattr(FileStore, "now", lambda self: CLOCK.now() - timedelta(hours=1))
    checks = look(hosted_objects(), data=lambda: opened)
    assert checks["writable"].verdict is FAIL


# The keys


def test_a_secret_without_its_key(look):
    objects = without(hosted_objects(), "Secret", "blue-etcd-encryption-key")
    checks = look(without(objects, "Secret", "kas-secret-encryption-config"))
    assert checks["keys"].verdict is FAIL


def test_a_secret_that_was_replaced(look):
    objects = hosted_objects()
    data = one(objects, "Secret", "blue-etcd-encryption-key", "clusters")["data"]
    data["key"] = base64.b64encode(TARGET).decode()
    checks = look(objects)
    assert checks["keys"].verdict is FAIL
    assert "no longer holds the key" in checks["keys"].detail


def test_no_encryption(look):
    checks = look(hosted_objects(encryption=None))
    assert checks["keys"].verdict is PASS
    assert "not encrypted" in checks["keys"].detail
    assert "rotation" not in checks


def test_encryption_by_no_key(look):
    objects = hosted_objects(status_keys=False)
    for name in ("HostedCluster", "HostedControlPlane"):
        one(objects, name)["spec"]["secretEncryption"] = {"type": "aescbc"}
    checks = look(without(objects, "Secret", "kas-secret-encryption-config"))
    assert checks["keys"].verdict is FAIL


def test_promise_4_nobody_can_look_into_a_kms(look):
    checks = look(hosted_objects(encryption="kms"))
    assert checks["keys"].verdict is UNKNOWN
    assert "arn:aws:kms" in checks["keys"].detail


def test_a_rotation_with_both_keys(look):
    checks = look(hosted_objects(keys=(ACTIVE, TARGET), rotating="WritePromote"))
    assert checks["rotation"].verdict is PASS
    assert "(WritePromote)" in checks["rotation"].detail


def test_a_rotation_with_one_of_two_keys(look):
    objects = hosted_objects(keys=(ACTIVE, TARGET), rotating=True)
    objects = without(objects, "Secret", "blue-etcd-encryption-key-2")
    checks = look(without(objects, "Secret", "kas-secret-encryption-config"))
    assert checks["rotation"].verdict is FAIL
    assert checks["keys"].verdict is FAIL


# Conditions


@pytest.mark.parametrize(
    ("kind", "status", "reason", "verdict"),
    [
        ("Degraded", "True", "SomethingIsWrong", UNKNOWN),
        ("EtcdAvailable", "False", "EtcdWaitingForQuorum", FAIL),
        ("EtcdAvailable", "Unknown", "StatefulSetNotFound", UNKNOWN),
        ("EtcdRecoveryActive", "True", "AsExpected", FAIL),
        ("EtcdRecoveryActive", "False", "EtcdRecoveryJobFailed", FAIL),
        ("EtcdRecoveryActive", "False", "AsExpected", PASS),
        ("Progressing", "True", "AsExpected", PASS),
    ],
)
def test_conditions(look, kind, status, reason, verdict):
    objects = hosted_objects()
    condition(one(objects, "HostedCluster"), kind, status, reason)
    check = look(objects)["conditions"]
    assert check.verdict is verdict
    if verdict is not PASS:
        assert kind in check.detail or reason in check.detail


def test_conditions_of_an_unmanaged_etcd(look):
    objects = hosted_objects(unmanaged="https://etcd.example:2379")
    assert look(objects)["conditions"].verdict is PASS
    condition(one(objects, "HostedCluster"), "UnmanagedEtcdAvailable", "False", "Gone")
    assert look(objects)["conditions"].verdict is FAIL


def test_a_server_that_says_terminal_codes(look):
    objects = hosted_objects()
    condition(one(objects, "HostedCluster"), "EtcdAvailable", "False", "\x1b[2J\nall is well" * 40)
    detail = look(objects)["conditions"].detail
    assert detail.isprintable()
    assert len(detail) < 200


# Pods


def _unready(objects, *names):
    for name in names:
        one(objects, "Pod", name)["status"]["containerStatuses"][0]["ready"] = False
    return objects


@pytest.mark.parametrize(
    ("unready", "verdict"),
    [((), PASS), (("etcd-1",), UNKNOWN), (("etcd-1", "etcd-2"), FAIL)],
)
def test_pods(look, unready, verdict):
    check = look(_unready(hosted_objects(), *unready))["pods"]
    assert check.verdict is verdict
    assert f"etcd: {3 - len(unready)} of 3 ready" in check.detail


def test_the_pods_of_every_shard_count(look):
    objects = _unready(hosted_objects(shards=("events",)), "etcd-events-0", "etcd-events-1")
    check = look(objects)["pods"]
    assert check.verdict is FAIL
    assert "etcd: 3 of 3 ready; etcd-events: 1 of 3 ready" in check.detail


def test_no_stateful_set_and_no_control_plane(look, kube):
    assert look(without(hosted_objects(), "StatefulSet"))["pods"].verdict is FAIL


def test_no_control_plane_yet(look):
    check = look(without(hosted_objects(), "HostedControlPlane"))["pods"]
    assert check.verdict is FAIL
    assert "no control plane yet" in check.detail


def test_pods_of_an_unmanaged_etcd(look):
    check = look(hosted_objects(unmanaged="https://etcd.example:2379"))["pods"]
    assert (check.verdict, "https://etcd.example:2379" in check.detail) == (PASS, True)


# Quiesced


def test_quiesced_and_not_put_back(look):
    for kind, name in (("HostedCluster", ""), ("NodePool", "blue-workers")):
        objects = hosted_objects()
        record = Record(run="k3f9", by="host", since=NOW, until=NOW + timedelta(minutes=30))
        one(objects, kind, name)["metadata"]["annotations"][ANNOTATION] = encode(record)
        check = look(objects)["quiesced"]
        assert check.verdict is FAIL
        assert "`backstay resume hosted blue -n clusters`" in check.detail


def test_quiesced_and_the_record_is_damaged(look):
    objects = hosted_objects()
    one(objects, "HostedCluster")["metadata"]["annotations"][ANNOTATION] = "{"
    assert look(objects)["quiesced"].verdict is FAIL


def test_a_pause_of_its_owner_is_no_quiescing(look):
    check = look(hosted_objects(paused="true"))["quiesced"]
    assert check.verdict is PASS
    assert "its owner has paused it: true" in check.detail


# Certificates


def _tls(start=None, end=None, *, authority_end=None):
    authority = Authority.make("etcd-signer", end=authority_end)
    client = authority.issue("client", hosts=(), start=start, end=end, usages=("client",))
    return ServerTls(authority, client, client)


@pytest.mark.parametrize(
    ("tls", "verdict", "words"),
    [
        (_tls(end=days(90), authority_end=days(900)), PASS, "our certificate runs out on"),
        (_tls(end=days(3), authority_end=days(900)), PASS, "soon: our certificate"),
        (_tls(start=days(-9), end=days(-2)), FAIL, "ran out on"),
        (_tls(start=days(1), end=days(2)), FAIL, "not valid before"),
        (_tls(end=days(90), authority_end=days(-0.5)), FAIL, "ran out on"),
    ],
)
def test_certificates(look, tls, verdict, words):
    check = look(hosted_objects(tls=tls))["certificates"]
    assert check.verdict is verdict
    assert words in check.detail
    assert ("soon" in check.detail) == ("soon" in words)


def test_certificates_of_an_unmanaged_etcd(look):
    objects = hosted_objects(unmanaged="https://etcd.example:2379", tls=_tls(end=days(90)))
    assert look(objects)["certificates"].verdict is PASS
    expired = hosted_objects(unmanaged="https://etcd.example:2379", tls=_tls(days(-9), days(-2)))
    assert look(expired)["certificates"].verdict is FAIL


@pytest.mark.parametrize(
    ("kind", "name"), [("Secret", "etcd-client-tls"), ("ConfigMap", "etcd-ca")]
)
def test_certificates_that_are_not_there(look, kind, name):
    check = look(without(hosted_objects(), kind, name))["certificates"]
    assert check.verdict is FAIL
    assert name in check.detail


@pytest.mark.parametrize("value", [b"no certificate", b""])
def test_certificates_that_are_none(look, value):
    objects = hosted_objects()
    data = one(objects, "Secret", "etcd-client-tls")["data"]
    data["etcd-client.crt"] = base64.b64encode(value).decode()
    check = look(objects)["certificates"]
    assert check.verdict is FAIL
    assert "no certificate'" not in check.detail


def test_certificates_are_held_against_the_given_time(kube, api):
    load(kube, hosted_objects())
    hosted = find(api, "blue", "clusters")
    assert questions.certificates(api, hosted, NOW).verdict is PASS
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    assert questions.certificates(api, hosted, long_ago).verdict is FAIL


# Members


def test_the_members_of_every_shard(look, choice):
    checks = look(hosted_objects(), survey=lambda h: {"etcd": choice, "etcd-events": choice})
    assert checks["members"].detail.count("will be asked") == 2
    assert "etcd-events: " in checks["members"].detail


def test_promise_4_no_member_was_looked_at(look):
    checks = look(hosted_objects(), survey=lambda hosted: {})
    assert checks["members"].verdict is UNKNOWN


def test_one_shard_that_is_full(look, choice, tmp_path):
    with start_etcd(tmp_path / "full", flags=("--quota-backend-bytes", "100000")) as full:
        for number in range(20):
            full.ctl("put", f"key{number}", "v" * 20_000, check=False)
        with Client(full.access) as client:
            heard = choose(survey(client).members)
    checks = look(
        hosted_objects(), survey=lambda h: {"etcd": choice, "etcd-x": heard}, quota=100_000
    )
    assert checks["alarms"].verdict is FAIL
    assert "etcd-x: " in checks["alarms"].detail
    assert "NOSPACE" in checks["alarms"].detail
    assert checks["quota"].verdict is FAIL


def test_too_little_room(look, choice, monkeypatch):
    monkeypatch.setattr("backstay.flows.preflight.free_space", lambda path: 10)
    check = look(hosted_objects(), survey=lambda h: {"etcd": choice})["space"]
    assert check.verdict is FAIL
    assert "10 bytes free" in check.detail
