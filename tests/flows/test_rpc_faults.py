"""Every call of a backup to etcd goes wrong, in every way that it can; the members' check, too."""

from dataclasses import replace
from functools import partial

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.client.hashing import Budget
from backstay.clock import SystemClock
from backstay.errors import EtcdError
from backstay.kinds.etcd import MemberPoller
from backstay.report import Verdict
from kit.cases import Case, hold_each
from kit.disturbed_rpc import MESSAGE, Harm, cases, disturbed

CLOCK = SystemClock()
#: A lie about a member's state may be believed; what it says of itself proves nothing then.
PROOF = {"transfer", "stored", "structure", "content"}


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr("backstay.client.etcd.HASH_SECONDS", 1.0)


def back_up(bench, etcd, case=None):
    """One backup with its members' check; gives what came of it, and what was asked."""
    timeouts = replace(etcd.access.timeouts, stall=0.5, command=0.5, dial=2.0)
    with disturbed(etcd, case) as (dialer, watch):
        try:
            with Client(replace(etcd.access, timeouts=timeouts), dialer) as client:
                poller = MemberPoller.of(client, Budget(patience=0.5), CLOCK)
                return bench.back_up_by(client, poller=poller), watch
        except EtcdError as error:
            return error, watch


def every(bench, etcd):
    """All that can go wrong with a backup."""
    made, watch = back_up(bench, etcd)
    assert {check.verdict for check in made.checks} == {Verdict.PASS}
    assert {"MemberList", "Status", "HashKV", MESSAGE} <= {name for name, _ in watch.moments}
    return cases(watch.moments)


def hold(bench, etcd, case: Case):
    """Let one thing go wrong, and look at what came of it."""
    known = {entry.manifest.id for entry in bench.listed}
    outcome, watch = back_up(bench, etcd, case)
    assert watch.hit
    new = [entry for entry in bench.listed if entry.manifest.id not in known]
    if isinstance(outcome, EtcdError):
        assert new == []
        assert outcome.exit_code == 1
        assert str(etcd.endpoint) in str(outcome)
    else:
        assert [entry.manifest for entry in new] == [outcome]
        assert_honest(bench, new[0], case)
    named = {entry.manifest.objects[0].path for entry in bench.listed}
    assert set(bench.objects) == named
    bench.assert_no_spool()


def assert_honest(bench, entry, case):
    """What is listed is whole; where a member's answer was lost, its check has not passed."""
    verdicts = {check.name: check.verdict for check in entry.manifest.checks}
    assert {verdicts[name] for name in PROOF} == {Verdict.PASS}
    assert set(bench.prove(entry).values()) == {Verdict.PASS}
    if case.lasts and case.number == 1 and case.name in {"HashKV", "MemberList"}:
        assert verdicts["members"] is Verdict.COULD_NOT_VERIFY
    if case.name == MESSAGE:
        assert not case.lasts or case.harm in {Harm.LIE, Harm.EMPTY}


def hold_all(bench, etcd, chosen, record_property):
    hold_each(chosen, partial(hold, bench, etcd), record_property)
    made = bench.back_up(etcd.access)
    assert bench.repository.find("prod/latest").manifest == made


def test_promise_1_some_calls_go_wrong(bench, etcd, record_property):
    found = every(bench, etcd)
    hold_all(bench, etcd, found[:: len(found) // 9], record_property)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_promise_1_every_call_goes_wrong(bench, etcd, record_property):
    hold_all(bench, etcd, every(bench, etcd), record_property)
