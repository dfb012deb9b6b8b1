"""Every request of a quiesce goes wrong, in every way that it can: all is as it was at the end.

By itself, or, where the API answers nothing any more, by `resume`, which is told then.
"""

from functools import partial

import pytest

from backstay.errors import BackstayError
from backstay.kinds.hosted.quiescing.resume import resume
from kit.cases import Case, hold_each, spread
from kit.disturbed_api import Harm, cases, disturbed
from kit.etcd import Etcd
from kit.quiescing import CLOCK, Bench

SOME = 6


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with Etcd.start(tmp_path_factory.mktemp("etcd"), tls=None) as etcd:
        yield etcd


@pytest.fixture(scope="module")
def bench(tmp_path_factory, etcd):
    with (
        pytest.MonkeyPatch.context() as patch,
        Bench.start(tmp_path_factory.mktemp("bench"), etcd, members=1) as bench,
    ):
        patch.setattr("backstay.kubeapi.http._WAITS", (0.01, 0.01))
        yield bench


def quiesce(bench, case=None):
    """Quiesce, and go on at once; gives what was asked, and the error that came of it."""
    bench.told.clear()
    # Nobody waits long for an API that never comes back.
    patience = 3 if case and case.lasts else 30
    with disturbed(bench.kube, case) as watch:
        try:
            with bench.quiesce(quiet=0.0, timeout=patience, back=patience, drain=2, pause=60):
                pass
        except BackstayError as error:
            return watch, error
    return watch, None


def every(bench):
    """All that can go wrong with its requests; of those that are alike the first, and the last."""
    watch, error = quiesce(bench)
    assert error is None
    chosen = []
    for name in dict.fromkeys(name for name, _ in watch.moments):
        alike = [moment for moment in watch.moments if moment[0] == name]
        chosen += dict.fromkeys((alike[0], alike[-1]))
    assert {name.split()[0] for name, _ in chosen} == {"get", "list", "patch"}
    return cases(chosen)


def hold(bench, before, case: Case):
    """Let one request go wrong, and look at what is left."""
    watch, error = quiesce(bench, case)
    dirty = bench.state() != before
    if dirty:
        told = " ".join([str(error or ""), *bench.warnings])
        assert "resume" in told, told
        # What is refused is not asked again; of anything else once is no reason to leave it so.
        assert case.lasts or case.harm is Harm.FORBID
    resume(bench.api, "blue", "clusters", clock=CLOCK, report=bench.report, poll=0.02, patience=60)
    assert bench.state() == before
    bench.settle()
    return watch.hit, dirty


def hold_all(bench, chosen, record_property):
    found = hold_each(chosen, partial(hold, bench, bench.state()), record_property)
    record_property("left to resume", sum(dirty for _, dirty in found))
    # What polls asks now and then: not each comes as often in a run that ends early.
    assert sum(hit for hit, _ in found) > len(found) * 0.8


def test_promise_3_some_requests_go_wrong(bench, record_property):
    hold_all(bench, spread(every(bench), SOME), record_property)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_promise_3_every_request_goes_wrong(bench, record_property):
    hold_all(bench, every(bench), record_property)
