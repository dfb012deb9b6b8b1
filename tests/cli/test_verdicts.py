"""What verdicts mean for the exit code: what may be accepted, and what never is."""

import pytest

from backstay.cli.verdicts import exit_code
from backstay.report import Check, Verdict


def checks(**verdicts):
    return [
        Check(name=name, verdict=verdict, detail="", seconds=0.0)
        for name, verdict in verdicts.items()
    ]


@pytest.mark.parametrize(
    ("verdict", "accepted", "code"),
    [
        (Verdict.PASS, (), 0),
        (Verdict.COULD_NOT_VERIFY, (), 4),
        (Verdict.COULD_NOT_VERIFY, ("keys",), 0),
        (Verdict.COULD_NOT_VERIFY, ("members", "change"), 4),
        (Verdict.FAIL, ("keys",), 3),
    ],
)
def test_promise_4_only_what_is_named_may_stay_open_and_no_fail_may(verdict, accepted, code):
    assert exit_code(checks(transfer=Verdict.PASS, keys=verdict), accepted) == code


def test_promise_4_another_check_is_not_accepted_along():
    both = checks(keys=Verdict.COULD_NOT_VERIFY, members=Verdict.COULD_NOT_VERIFY)
    assert exit_code(both, ("keys",)) == 4
    assert exit_code(both, ("keys", "members")) == 0


@pytest.mark.parametrize("name", ["transfer", "stored", "structure", "content", "all"])
def test_promise_4_what_makes_a_backup_a_verified_one_cannot_be_accepted(cli, name):
    words = ("backup", "etcd", "--cluster", "prod", "--accept-unverified", name)
    assert "is not one of" in cli(*words, expect=2).err
