"""Looking whether a backup would work, without making one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from backstay.checks import connection
from backstay.checks.question import Answer, ask, failed, passed, unrefused
from backstay.client.health import Choice
from backstay.clock import Clock
from backstay.files import free_space
from backstay.flows.spool import MARGIN
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role
from backstay.report import Check, Report

#: Names in a repository carry the writer's clock; more than this apart, people get confused.
MAX_SKEW = timedelta(minutes=5)


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
