"""Looking whether a backup would work, without making one."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from backstay.checks import connection
from backstay.checks.question import Answer, ask, failed, passed, unknown, unrefused, worst
from backstay.client.health import Choice
from backstay.clock import Clock
from backstay.files import free_space
from backstay.flows.spool import MARGIN
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role
from backstay.repo.place import same_place
from backstay.report import Check, Report

#: Names in a repository carry the writer's clock; more than this apart, people get confused.
MAX_SKEW = timedelta(minutes=5)

#: Asks a question under its name, and keeps the verdict.
Put = Callable[[str, Callable[[], Answer]], None]


@dataclass(slots=True)
class _Heard:
    choice: Choice | None = None
    repository: Repository | None = None
    checks: list[Check] = field(default_factory=list)


def preflight(
    survey: Callable[[], Choice],
    open_repository: Callable[[], Repository],
    spool_dir: Path,
    *,
    quota: int | None,
    clock: Clock,
    report: Report,
) -> tuple[Check, ...]:
    """Ask everything that a backup depends on; each question in turn, none hides another.

    Args:
        survey: looks at the members.
        open_repository: opens the repository, held to the pinned recipients.
        spool_dir: where the snapshot will lie.
        quota: bytes; the quota of members that don't tell it; None leaves them out.
        clock: the machine's.
        report: is told each verdict.
    """
    heard = _Heard()

    def put(name: str, question: Callable[[], Answer]) -> None:
        check = ask(name, question, clock)
        heard.checks.append(check)
        report.judge(check)

    def members() -> Answer:
        heard.choice = survey()
        return connection.members(heard.choice)

    def repository() -> Answer:
        heard.repository = open_repository()
        return role(heard.repository, Role.DATA)

    put("members", members)
    if heard.choice is not None:
        choice = heard.choice
        put("alarms", lambda: connection.alarms(choice))
        if quota or any(status.quota for status in choice.order):
            put("quota", lambda: connection.quota(choice, quota))
        put("space", lambda: space([choice], spool_dir))
    put("repository", lambda: unrefused(repository))
    if heard.repository is not None:
        opened = heard.repository
        put("writable", lambda: writable(opened, clock))
    return tuple(heard.checks)


def role(repository: Repository, wanted: Role) -> Answer:
    """Is the repository for what it is named for, and whom is it sealed to?"""
    config = repository.config
    if config.role is not wanted:
        return failed(f"{repository.store.url} is for {config.role}: name one for {wanted}")
    sealed = f"sealed to {', '.join(config.recipients)}" if config.recipients else "not encrypted"
    return passed(f"{repository.store.url}, {sealed}")


def space(choices: Iterable[Choice], spool_dir: Path) -> Answer:
    """Is there room for the largest snapshot that may come?"""
    sizes = [status.db_size for choice in choices for status in choice.order]
    needed, free = max(sizes, default=0) + MARGIN, free_space(spool_dir)
    text = f"{spool_dir} has {free} bytes free, {needed} are needed"
    return passed(text) if free >= needed else failed(f"{text}; name another with --spool-dir")


def writable(repository: Repository, clock: Clock) -> Answer:
    """Can an object be written, and do the clocks agree?"""
    skew = abs(repository.store.now() - clock.now())
    if skew > MAX_SKEW:
        return failed(f"its clock is {skew} away from this machine's: set the one that is wrong")
    return passed("an object was written, and the clocks agree")


def together(answers: Mapping[str, Answer]) -> Answer:
    """Give one answer for several: the worst, with what was said of each.

    Args:
        answers: by the name of what was asked about; of only one the name is left out.
    """
    if not answers:
        return unknown("no etcd was looked at")
    only = len(answers) == 1
    lines = [it.detail if only else f"{name}: {it.detail}" for name, it in answers.items()]
    return Answer(worst(answers.values()), "; ".join(lines))


@dataclass(slots=True)
class Opened:
    """The repositories that could be opened.

    Attributes:
        data: that of the snapshots.
        keys: that of what goes apart.
    """

    data: Repository | None = None
    keys: Repository | None = None


def ask_repositories(
    data: Callable[[], Repository] | None,
    keys: Callable[[], Repository] | None,
    put: Put,
    clock: Clock,
) -> Opened:
    """Ask whether two repositories can be written to, and are two places.

    Args:
        data: opens that of the snapshots; None leaves it out.
        keys: opens that of what goes apart; None leaves it out.
        put: asks a question.
        clock: the machine's.
    """
    found = Opened()
    if data is not None:
        open_data = data

        def of_data() -> Answer:
            found.data = open_data()
            return role(found.data, Role.DATA)

        put("repository", lambda: unrefused(of_data))
    if keys is not None:
        open_keys = keys

        def of_keys() -> Answer:
            found.keys = open_keys()
            return role(found.keys, Role.KEYS)

        put("keys repository", lambda: unrefused(of_keys))
    opened = [it for it in (found.data, found.keys) if it is not None]
    if opened:
        put("writable", lambda: together({it.store.url: writable(it, clock) for it in opened}))
    if len(opened) == 2:
        put("apart", lambda: _apart(*opened))
    return found


def _apart(data: Repository, keys: Repository) -> Answer:
    why = same_place(data.store, data.config, keys.store, keys.config)
    if why:
        return failed(f"keys must not lie with the data: {why}")
    return passed("data and keys lie in two places")
