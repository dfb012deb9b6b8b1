"""Every request to the Kubernetes API that a backup makes goes wrong, in every way that it can.

For hosted and OKD control planes: what is told names the API, nothing is listed that is not whole,
with all its keys, nothing in the cluster is changed, and the next run works and sweeps.
"""

import json
from functools import partial

import pytest

from backstay.kubeapi.resource import LEASES
from kit.cases import Case, hold_each, spread
from kit.disturbed_api import cases, disturbed
from kit.kubeobjects import KNOWN
from kit.scenes import scene

#: How many cases are tried in a moment.
SOME = 3
WAYS = {"hosted": ("--transport", "port-forward"), "okd": ()}


@pytest.fixture(scope="module", autouse=True)
def hasty():
    """Let clients try again soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backstay.kubeapi.http._WAITS", (0.01, 0.01))
        yield


@pytest.fixture(scope="module", params=WAYS)
def place(request, tmp_path_factory):
    with scene(request.param, tmp_path_factory.mktemp(request.param)) as place:
        place.backup = (*place.backup, *WAYS[request.param])
        yield place


def every(place):
    """All that can go wrong with the requests of a backup."""
    with disturbed(place.kube) as watch:
        place.cli(*place.words("backup"))
    place.reset()
    assert len(watch.moments) >= 10
    return cases(watch.moments)


def standing(place):
    """The cluster's objects, but for the Lease by which hosts take turns."""
    kinds = [kind for kind in KNOWN.values() if kind != LEASES]
    found = [place.kube.objects.list(kind, "") for kind in kinds]
    return json.dumps(found, sort_keys=True)


def hold(place, case: Case):
    """Let one request go wrong, and look at everything that may come of it."""
    before = standing(place)
    with disturbed(place.kube, case) as watch:
        done = place.cli(*place.words("backup"), expect=None)
    assert watch.hit, "it did not come so far"
    assert done.code in {0, 1, 4, 5}
    if done.code == 1:
        assert place.kube.url in done.err
    place.judge("backup", done.code)
    assert standing(place) == before
    place.mend("backup")
    place.reset()


def hold_all(place, chosen, record_property):
    try:
        hold_each(chosen, partial(hold, place), record_property)
    finally:
        place.reset()


def test_promise_1_and_3_some_requests_go_wrong(place, record_property):
    hold_all(place, spread(every(place), SOME), record_property)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_promise_1_and_3_every_request_goes_wrong(place, record_property):
    hold_all(place, every(place), record_property)
