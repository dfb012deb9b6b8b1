"""The proof after a restore, asked of real members that etcd-init's own script has made."""

import hashlib
import json
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.clock import SystemClock
from backstay.kinds.hosted.recovery.canary import digest, pick
from backstay.kinds.hosted.recovery.restored import Expected, expect, prove
from backstay.kubedata.configuration import parse_configuration
from backstay.mvcc.export import Edits, export
from backstay.report import Report, Verdict
from kit import kube
from kit.etcd_init import Fleet, https_files

BUMP = Edits(bump=1_000_000_000, mark_compacted=True)
CLOCK = SystemClock()
NAME = "kube-aescbc"


def configuration():
    document = kube.facts(NAME)["encryption_configuration"]
    return parse_configuration(json.dumps(document).encode(), name="configuration")


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """A bumped export of a real snapshot behind https, and what must come of it."""
    folder = tmp_path_factory.mktemp("staged")
    with kube.real_snapshot(NAME) as snapshot:
        with (folder / "snapshot.db").open("wb") as file:
            exported = export(snapshot, file, BUMP)
        expected = expect(snapshot, exported.revision, configuration())
    with https_files(folder) as (url, ca):
        yield f"{url}/snapshot.db", ca, expected


def fleet_of(staged, folder, **options):
    url, ca, _ = staged
    fleet = Fleet(folder, ca=ca, **options)
    ran = fleet.restore(url)
    assert all(one.exit_code == 0 for one in ran.values()), ran
    return fleet


@contextmanager
def clients(etcds):
    with ExitStack() as stack:
        yield {name: stack.enter_context(Client(etcd.access)) for name, etcd in etcds.items()}


def proof(members, expected, replicas=None):
    found = prove(members, expected, replicas or len(members), clock=CLOCK, report=Report())
    return {check.name: check for check in found}


def verdicts(members, expected, replicas=None):
    return {name: check.verdict for name, check in proof(members, expected, replicas).items()}


ALL_PASS = dict.fromkeys(("one-cluster", "hashkv", "revision", "keys"), Verdict.PASS)


@pytest.fixture(scope="module")
def three(staged, tmp_path_factory):
    """Three members, restored by the fixed form."""
    fleet = fleet_of(staged, tmp_path_factory.mktemp("three"))
    with fleet.serving() as etcds, clients(etcds) as members:
        yield members


def test_one_member_is_proven(staged, tmp_path):
    fleet = fleet_of(staged, tmp_path, members=1, fixed=False)
    with fleet.serving() as etcds, clients(etcds) as members:
        found = proof(members, staged[2])
        assert {name: check.verdict for name, check in found.items()} == ALL_PASS
        assert f"{staged[2].keys} keys" in found["keys"].detail


def test_three_members_are_proven_while_somebody_writes(staged, three):
    assert verdicts(three, staged[2]) == ALL_PASS
    three["etcd-1"].put(b"/kubernetes.io/leases/x", b"written since")
    assert verdicts(three, staged[2]) == ALL_PASS


def test_three_clusters_of_one_are_told(staged, tmp_path):
    fleet = fleet_of(staged, tmp_path, fixed=False)
    with fleet.serving() as etcds, clients(etcds) as members:
        found = proof(members, staged[2])
        assert found["one-cluster"].verdict is Verdict.FAIL
        assert "cluster of 1, not of 3" in found["one-cluster"].detail
        # They have even the same ids; through one Service all would look well.
        assert len({m.status(m.endpoints[0]).header.cluster_id for m in members.values()}) == 1
        assert found["keys"].verdict is Verdict.PASS
        # Told where just one of them can be reached, too.
        one = dict(list(members.items())[:1])
        assert verdicts(one, staged[2], 3)["one-cluster"] is Verdict.FAIL
        for number, member in enumerate(members.values()):
            member.put(b"split", b"%d" % number)
        assert verdicts(members, staged[2])["hashkv"] is Verdict.FAIL


def test_an_etcd_that_did_not_restore_is_told(staged, tmp_path):
    url, ca, expected = staged
    fleet = Fleet(tmp_path, members=1, ca=ca)
    fleet.occupy("etcd-0")
    assert fleet.run("etcd-0", url).exit_code == 0
    with fleet.serving() as etcds, clients(etcds) as members:
        found = verdicts(members, expected)
    assert found["revision"] is Verdict.FAIL
    assert found["keys"] is Verdict.FAIL


def test_promise_4_no_question_passes_that_not_all_members_were_asked(staged, three):
    two = {name: three[name] for name in ("etcd-0", "etcd-2")}
    found = proof(two, staged[2], 3)
    assert {check.verdict for check in found.values()} == {Verdict.COULD_NOT_VERIFY}
    assert "2 of 3" in found["hashkv"].detail
    assert {check.verdict for check in proof({}, staged[2], 3).values()} == {
        Verdict.COULD_NOT_VERIFY
    }


def test_addresses_that_lead_to_the_same_member_prove_nothing(staged, three):
    same = dict.fromkeys(three, three["etcd-0"])
    found = proof(same, staged[2])
    assert found["one-cluster"].verdict is Verdict.COULD_NOT_VERIFY
    assert "lead to the same" in found["one-cluster"].detail


def test_fewer_keys_and_lower_revisions_are_told(staged, three):
    expected = staged[2]
    more = verdicts(three, replace(expected, keys=expected.keys + 1))
    assert more == ALL_PASS | {"keys": Verdict.FAIL}
    higher = proof(three, replace(expected, revision=2 * expected.revision))
    assert higher["revision"].verdict is Verdict.FAIL


def test_keys_are_counted_loosely_once_the_beginning_is_compacted(staged, tmp_path):
    fleet = fleet_of(staged, tmp_path, members=1)
    expected = staged[2]
    with fleet.serving() as etcds, clients(etcds) as members:
        etcd = members["etcd-0"]
        etcd.compact(etcd.put(b"new", b""))
        assert verdicts(members, expected) == ALL_PASS
        etcd.delete(b"new")
        etcd.delete(next(iter(etcd.scan())).key)
        etcd.compact(etcd.put(b"/x", b""))
        etcd.delete(b"/x")
        found = proof(members, expected)["keys"]
        assert found.verdict is Verdict.COULD_NOT_VERIFY
        assert f"the backup has {expected.keys} keys, now etcd-0 has {expected.keys - 1}" in (
            found.detail
        )
        assert verdicts(members, Expected(revision=expected.revision, keys=10_000))["keys"] is (
            Verdict.FAIL
        )


def test_canaries_are_what_kubectl_saw():
    known = {secret["key"]: secret for secret in kube.facts(NAME)["secrets"]}
    with kube.real_snapshot(NAME) as snapshot:
        found = pick(snapshot, configuration())
        assert pick(snapshot, None) == ()
    assert len(found) == 5
    for canary in found:
        secret = known[f"/kubernetes.io/secrets/{canary.namespace}/{canary.name}"]
        assert canary.revision == secret["mod_revision"]
        lines = (f"{name} {value}\n" for name, value in sorted(secret["data_sha256"].items()))
        assert canary.digest == hashlib.sha256("".join(lines).encode()).hexdigest()
        assert not canary.namespace.startswith("kube-")


def test_a_digest_tells_names_and_values_apart():
    assert digest({"a": b"bc"}) != digest({"ab": b"c"})
    assert digest({"a": b"1", "b": b"2"}) == digest({"b": b"2", "a": b"1"})
    assert digest({}) != digest({"a": b""})
