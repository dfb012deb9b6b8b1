"""Every call to etcd that a backup makes goes wrong, in every way that it can, on every way to it.

For all kinds of clusters: straight, on an OKD host, through a port-forward, and by exec, where the
calls are commands in a pod whose streams break. What is told names what happened, nothing is
listed that is not whole, nothing is left that no manifest names, and the next run works.
"""

from dataclasses import dataclass, replace
from functools import partial

import pytest

from backstay.client.access import Timeouts
from backstay.client.etcd import Etcd as Client
from backstay.kinds.hosted.reach.exec_snapshot import ExecSource
from backstay.report import Verdict
from kit.cases import Case, hold_each, spread
from kit.disturbed_rpc import MESSAGE, Harm, Watch, cases
from kit.kubestreams import Fault
from kit.scenes import scene

#: Words that reach etcd, of each way to it.
WAYS = {
    "straight": ("etcd", ()),
    "host": ("okd", ()),
    "port-forward": ("hosted", ("--transport", "port-forward")),
    "exec": ("hosted", ("--transport", "exec")),
}
FORWARDED = ("straight", "host", "port-forward")
#: How many cases are tried in a moment.
SOME = 3
#: What comes damaged is not put away; what a member says of itself may be a lie.
PROOF = {"transfer", "stored", "structure", "content"}
#: Little patience, in seconds, with what stalls; enough for a machine with much to do.
HASTY = Timeouts(dial=4.0, command=2.0, stall=2.0)
LOOK = 4.0


@pytest.fixture(scope="module", autouse=True)
def hasty():
    """Let clients give up soon."""
    real = Client.__init__

    def impatient(self, access, *more, **named):
        real(self, replace(access, timeouts=HASTY), *more, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "__init__", impatient)
        patch.setattr("backstay.client.etcd.HASH_SECONDS", 3.0)
        patch.setattr("backstay.kinds.hosted.reach.exec_snapshot._LOOK_STALL", LOOK)
        patch.setitem(ExecSource.__init__.__kwdefaults__, "stall", LOOK)
        patch.setattr("backstay.kubeapi.http.Patience.__init__.__defaults__", (LOOK, LOOK, 300.0))
        yield


@pytest.fixture(scope="module")
def place(request, tmp_path_factory):
    kind, words = WAYS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with scene(kind, folder, relayed=request.param in FORWARDED) as place:
        place.backup = (*place.backup, *words)
        yield place


def ways(*names):
    return pytest.mark.parametrize("place", names, indirect=True)


# --- calls


def every(place):
    """All that can go wrong with the calls of a backup.

    Of the messages of the snapshot the first two, the last two and one in the middle; each of them
    in tests/flows/test_rpc_faults.py.
    """
    place.relay.watch = Watch()
    place.cli(*place.words("backup"))
    moments = place.relay.watch.moments
    place.reset()
    assert {"MemberList", "Status", "HashKV", MESSAGE} <= {name for name, _ in moments}
    messages = [moment for moment in moments if moment[0] == MESSAGE]
    calls = [moment for moment in moments if moment[0] != MESSAGE]
    last = len(messages) - 1
    chosen = [messages[at] for at in sorted({0, 1, last // 2, last - 1, last})]
    return cases([*calls, *chosen])


def hold(place, case: Case):
    """Let one thing go wrong, and look at everything that may come of it."""
    place.relay.watch = watch = Watch(case)
    done = place.cli(*place.words("backup"), expect=None)
    place.relay.watch = Watch()
    assert watch.hit, "it did not come so far"
    judge(place, done)
    if case.name == MESSAGE and case.lasts and case.harm not in {Harm.LIE, Harm.EMPTY}:
        assert done.code == 1
    if case.name == "HashKV" and case.lasts and case.number == 1:
        assert done.code == 4
    place.reset()


def judge(place, done):
    """Hold what a disturbed backup left and said to the promises."""
    place.judge("backup", done.code)
    for entry in place.listed().values():
        verdicts = {check.name: check.verdict for check in entry.manifest.checks}
        assert {verdicts[name] for name in PROOF} == {Verdict.PASS}
    assert place.stored() == place.named()
    if done.code == 1:
        assert "etcd-0" in done.err or place.relay.endpoint in done.err


def hold_all(place, hold_one, chosen, record_property):
    try:
        hold_each(chosen, partial(hold_one, place), record_property)
        place.mend("backup")
    finally:
        place.reset()


@ways(*FORWARDED)
def test_promise_1_some_calls_go_wrong(place, record_property):
    hold_all(place, hold, spread(every(place), SOME), record_property)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@ways(*FORWARDED)
def test_promise_1_every_call_goes_wrong(place, record_property):
    hold_all(place, hold, every(place), record_property)


# --- streams of exec


@dataclass(frozen=True)
class Broken:
    """An exec, by its place among those of a backup, and what goes wrong with it."""

    number: int
    fault: Fault
    lasts: bool

    def __call__(self, kind: str, pod: str, number: int) -> Fault | None:
        hit = number == self.number or (self.lasts and number > self.number)
        return self.fault if kind == "exec" and hit else None


def every_exec(place):
    """All that can go wrong with the commands that a backup runs in a pod."""
    streams = place.kube.streams
    streams.begin()
    place.cli(*place.words("backup"))
    sizes = tuple(streams.sent)
    place.reset()
    assert len(sizes) >= 4
    return [
        Broken(number, fault, lasts)
        for number, size in enumerate(sizes, start=1)
        for fault in faults(size)
        for lasts in (False, True)
    ]


def faults(size: int):
    """What can go wrong with a stream of so many bytes."""
    places = sorted({0, size // 2, size - 1})
    return [
        Fault(refuse=403),
        Fault(refuse=500),
        Fault(drop=True),
        Fault(silent=True),
        Fault(protocol=False),
        *(Fault(cut_after=at) for at in places),
        *(Fault(stall_after=at) for at in places),
        *(Fault(end_after=at) for at in places),
        *(Fault(flip_at=at) for at in places),
        Fault(status=b""),
        Fault(status=b"{"),
        Fault(status=b'{"status": "Failure", "message": "gone"}'),
        Fault(messages=(b"\x07what is this",)),
        Fault(text=True),
    ]


def hold_exec(place, case: Broken):
    """Let a stream break, and look at everything that may come of it."""
    streams = place.kube.streams
    streams.begin()
    streams.fault = case
    done = place.cli(*place.words("backup"), expect=None)
    streams.fault = None
    assert sum(kind == "exec" for kind, *_ in streams.opened) >= case.number
    judge(place, done)
    place.reset()


@ways("exec")
def test_promise_1_some_execs_go_wrong(place, record_property):
    hold_all(place, hold_exec, spread(every_exec(place), SOME), record_property)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@ways("exec")
def test_promise_1_every_exec_goes_wrong(place, record_property):
    hold_all(place, hold_exec, every_exec(place), record_property)
