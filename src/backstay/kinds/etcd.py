"""Any etcd: its members are reached at endpoints that the user names."""

from backstay.client.etcd import Etcd
from backstay.client.hashing import Budget, EtcdMembers, Members, Poll, poll
from backstay.client.health import Choice, choose, survey
from backstay.client.snapshot import Received, Sink, fetch
from backstay.clock import Clock
from backstay.report import Report


class EtcdSource:
    """A cluster of kind `etcd`, as backups see it.

    Args:
        etcd: an open client.
    """

    kind = "etcd"

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd
        self._choice = Choice()

    def survey(self) -> Choice:
        """Look at every member, and judge each; nothing is told, and none may be fit."""
        return choose(survey(self._etcd).members)

    def choose(self, report: Report) -> int:
        """Look at every member, tell what was found, and put them in order.

        Raises:
            EtcdError: none is fit.
        """
        heard = survey(self._etcd)
        self._choice = choose(heard.members)
        for note in heard.notes:
            report.warn(note)
        for opinion in self._choice.opinions:
            word = "fit" if opinion.usable else "not asked"
            report.say(f"{opinion.member.title}: {word}, {opinion.reason}")
        for warning in self._choice.warnings:
            report.warn(warning)
        best = self._choice.best
        return max(status.db_size for status in (best, *self._choice.order))

    def fetch(self, sink: Sink, report: Report) -> Received:
        """Write a whole snapshot to a sink.

        Raises:
            EtcdError: no member gave one.
        """
        return fetch(self._etcd, self._choice, sink, report)


class MemberPoller:
    """Asks members for their HashKV, as far as a budget goes; see `flows.source.Poller`.

    Args:
        members: whom.
        budget: how much may be asked of them.
        clock: measures, and waits.
    """

    def __init__(self, members: Members, budget: Budget, clock: Clock) -> None:
        self._members = members
        self._budget = budget
        self._clock = clock

    @classmethod
    def of(cls, etcd: Etcd, budget: Budget | None, clock: Clock) -> "MemberPoller | None":
        """Make one for the members that a client reaches; None where nobody is to be asked."""
        return None if budget is None else cls(EtcdMembers(etcd, clock), budget, clock)

    def poll(self, revision: int, *, elements: int | None, took: float | None) -> Poll:
        """Ask every member, one after another."""
        return poll(
            self._members, revision, self._budget, self._clock, elements=elements, took=took
        )
