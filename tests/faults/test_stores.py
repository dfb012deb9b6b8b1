"""Every operation that a command asks of its stores goes wrong, in every way that it can.

For all kinds of clusters: what is told has a name and advice, nothing is listed that is not whole,
nothing half is left where an export or a restore goes, and the next run works.
"""

from functools import partial

import pytest

from kit.cases import hold_each
from kit.disturbed import Case, Disturbed, cases, run, some
from kit.faulty_store import ADVICE, FAULTS_OF, ON_PURPOSE, TOLD, Fault
from kit.scenes import COMMANDS, KINDS, scene

#: How many cases of a command are tried in a moment; and of those that take seconds each.
SOME, SLOW = 3, 1


@pytest.fixture(scope="module", params=KINDS)
def place(request, tmp_path_factory):
    with scene(request.param, tmp_path_factory.mktemp(request.param)) as place:
        yield place


each = pytest.mark.parametrize("command", COMMANDS)


def every(place, command):
    """All that can go wrong with a command."""
    clean = run(place.cli, place.words(command))
    place.reset()
    assert clean.done.code == 0
    assert {"read", "list"} <= {moment.name for moment in clean.moments}
    return cases(clean.moments)


def hold(place, command, case: Case):
    """Let one thing go wrong, and look at everything that may come of it."""
    disturbed = run(place.cli, place.words(command), case)
    assert disturbed.hit is not None, "it did not come so far"
    if case.fault in TOLD:
        assert_told(disturbed)
    older = older_is_taken(disturbed, case)
    place.judge(command, disturbed.done.code, older=older)
    place.mend(command)
    place.reset()


def assert_told(disturbed: Disturbed):
    """What a store said reaches the user: what happened, to what, and what to do."""
    assert ON_PURPOSE in disturbed.told
    if disturbed.done.code == 1:
        assert disturbed.hit.path in disturbed.told
        assert ADVICE in disturbed.told or "run it again" in disturbed.told


def older_is_taken(disturbed, case):
    """Nobody can know of a backup that is not listed; of one that can't be read it is told."""
    if case.fault in TOLD or "/backups/" not in disturbed.hit.path:
        return False
    if case.moment.name == "list":
        return case.fault in {Fault.SHORT, Fault.LATE}
    return "which is taken instead" in disturbed.told


def number(place, command):
    return SLOW if place.kind != "etcd" and command in {"backup", "restore"} else SOME


def hold_all(place, command, chosen, record_property):
    try:
        hold_each(chosen, partial(hold, place, command), record_property)
    finally:
        place.reset()


@each
def test_promise_1_and_6_some_operations_go_wrong(place, command, record_property):
    chosen = some(every(place, command), number(place, command))
    hold_all(place, command, chosen, record_property)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@each
def test_promise_1_and_6_every_operation_goes_wrong(place, command, record_property):
    hold_all(place, command, every(place, command), record_property)


def test_every_fault_is_tried_somewhere():
    assert {fault for faults in FAULTS_OF.values() for fault in faults} == set(Fault)
