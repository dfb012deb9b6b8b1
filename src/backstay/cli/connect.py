"""Turns options into the things they name: a repository, an etcd, an identity, a subject."""

import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from backstay.errors import SealError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backstay.client.access import Access as EtcdAccess
    from backstay.client.proxy import Proxies
    from backstay.client.secret import Secret
    from backstay.flows.fetch import BackupSubject, FileSubject
    from backstay.flows.places import Places
    from backstay.flows.timetravel import PointSubject
    from backstay.repo.catalogue import Repository
    from backstay.repo.identity import Identities
    from backstay.repo.store import Store
    from backstay.repo.url import Access
    from backstay.report import Report

_PASSWORD_LIMIT = 4096
#: The variable of etcdctl; a name of ours would be one more place to look for a secret.
_PASSWORD_VARIABLE = "ETCDCTL_PASSWORD"  # noqa: S105 - a variable's name


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Where a repository is, and how to reach it."""

    repo: str
    s3_endpoint: str | None
    s3_region: str | None
    s3_virtual_hosted: bool
    allow_http: bool
    ca_bundle: str | None

    @classmethod
    def of(cls, options: dict[str, Any]) -> Self:
        """Take them out of a command's options."""
        return cls(**{name: options[name] for name in cls.__slots__})


def store_access(options: StoreOptions, proxies: "Proxies | None" = None) -> "Access":
    """Say how to reach a store.

    Args:
        options: of the command.
        proxies: that lead to it; None leaves that to the environment.
    """
    from backstay.client.proxy import Proxies
    from backstay.repo.url import Access

    return Access(
        endpoint=options.s3_endpoint,
        region=options.s3_region,
        virtual_hosted=options.s3_virtual_hosted,
        allow_http=options.allow_http,
        ca_bundle=Path(options.ca_bundle) if options.ca_bundle else None,
        proxies=proxies or Proxies(),
    )


def open_store(options: StoreOptions, proxies: "Proxies | None" = None) -> "Store":
    """Open a store; nothing is asked of it yet.

    Raises:
        UsageError: the URL or an option makes no sense.
    """
    from backstay.repo.url import open_store as opened

    return opened(options.repo, store_access(options, proxies))


def open_repository(
    options: StoreOptions, pinned: "Sequence[str]" = (), proxies: "Proxies | None" = None
) -> "Repository":
    """Open a repository, and hold it to the recipients that are pinned.

    Args:
        options: where it is.
        pinned: the recipients that it must have; empty expects nothing.
        proxies: that lead to it; None leaves that to the environment.

    Raises:
        NotFoundError: there is none.
        RefusedError: it is sealed to others.
    """
    from backstay.repo.catalogue import Repository

    return Repository.open(open_store(options, proxies), pinned)


def check_keys_repo(options: dict[str, Any]) -> None:
    """Hold a command to be told where keys are to lie.

    Raises:
        UsageError: it is not.
    """
    if not options["keys_repo"]:
        raise UsageError(
            "no repository for keys is given", "name it with --keys-repo or BACKSTAY_KEYS_REPO"
        )


def open_keys_repository(options: dict[str, Any], proxies: "Proxies | None" = None) -> "Repository":
    """Open the repository for keys, and hold it to the recipients that are pinned for it.

    Raises:
        UsageError: none is given.
        NotFoundError: there is none.
        RefusedError: it is one for data, or sealed to others.
    """
    from backstay.repo.keyring import check_place

    check_keys_repo(options)
    where = replace(StoreOptions.of(options), repo=options["keys_repo"])
    repository = open_repository(where, options.get("keys_recipient", ()), proxies)
    check_place(repository)
    return repository


def open_places(options: dict[str, Any], proxies: "Proxies | None" = None) -> "Places":
    """Open both repositories that a backup with keys goes to.

    Args:
        options: of the command.
        proxies: that lead to them; None leaves that to the environment.

    Raises:
        UsageError: one is not given.
        NotFoundError: there is none.
        RefusedError: one is not what it should be, or sealed to others.
    """
    from backstay.flows.places import Places

    return Places(
        data=open_repository(StoreOptions.of(options), options["recipient"], proxies),
        keys=open_keys_repository(options, proxies),
    )


def spool_directory(named: str | None) -> Path:
    """Choose where snapshots lie while they are worked on.

    /tmp is memory on many machines, and a snapshot has gigabytes: /var/tmp goes first, unless
    TMPDIR says otherwise.
    """
    if named:
        return Path(named)
    if "TMPDIR" not in os.environ and os.access("/var/tmp", os.W_OK):  # noqa: S108 - no name in it
        return Path("/var/tmp")  # noqa: S108 - the spool has no name
    return Path(tempfile.gettempdir())


def read_identities(path: str | None) -> "Identities | None":
    """Read the identity file, where one is given."""
    from backstay.repo.identity import Identities

    return None if path is None else Identities.read(Path(path))


def is_file(subject: str) -> bool:
    """Whether a FILE is meant: one that exists, or a path that begins with `./` or `/`."""
    if subject.startswith(("/", "./", "../")):
        return True
    try:
        return Path(subject).is_file()
    except OSError:  # too long for a name, or in a directory that we may not look into
        return False


def no_identity(what: str) -> SealError:
    """Make the error that says that an identity is needed.

    Args:
        what: can't be opened without it.
    """
    return SealError(
        f"{what} are encrypted", "give the identity file with --identity or BACKSTAY_IDENTITY"
    )


def subject_of(
    subject: str, options: dict[str, Any], *, need_identity: bool = True
) -> "FileSubject | BackupSubject":
    """Find what a verify, an export, a restore or a drill is about.

    Args:
        subject: FILE or ID.
        options: of the command.
        need_identity: whether it will be opened.

    Raises:
        NotFoundError: there is no such backup, or it has no snapshot of that name.
        SealError: it is encrypted and no identity is given.
        UsageError: it is an ID and no repository is given, or a file and a snapshot is named.
    """
    from backstay.flows.fetch import BackupSubject, FileSubject

    chosen = options.get("snapshot", "")
    if is_file(subject):
        if chosen:
            raise UsageError(f"{subject} is a file, which is one snapshot", "leave out --snapshot")
        return FileSubject(Path(subject))
    if not options["repo"]:
        raise UsageError(
            f"{subject} is no file here, and no repository is given",
            "name the file, or the repository with --repo or BACKSTAY_REPO",
        )
    repository = open_repository(StoreOptions.of(options), options.get("recipient", ()))
    entry = repository.find(subject)
    identities = read_identities(options.get("identity"))
    if identities is None and need_identity and repository.config.recipients:
        raise no_identity(f"the backups in {repository.store.url}")
    spool = spool_directory(options.get("spool_dir"))
    found = BackupSubject(repository, entry, subject, identities, spool, chosen)
    found.check_chosen()
    return found


def check_point(options: dict[str, Any]) -> None:
    """Look whether the options of a command name one point at most.

    Raises:
        UsageError: they name two.
    """
    if options["to_revision"] is not None and options["to_time"] is not None:
        raise UsageError("--to-revision and --to-time name two points", "give one of them")


def at_point(
    subject: "FileSubject | BackupSubject", options: dict[str, Any], report: "Report"
) -> "FileSubject | BackupSubject | PointSubject":
    """Find the point that the options of a command name; without these the subject is it.

    Raises:
        GapError: it was not recorded.
        UsageError: the options contradict each other, or the subject is a file and has no times.
    """
    if options["to_revision"] is None and options["to_time"] is None:
        return subject
    from backstay.flows import timetravel

    target = timetravel.Target(
        options["to_revision"], options["to_time"], max(1, round(options["lost_lease_ttl"]))
    )
    spool = spool_directory(options.get("spool_dir"))
    return timetravel.at_point(subject, target, spool, report)


def etcd_access(options: dict[str, Any]) -> "EtcdAccess":
    """Say how to enter an etcd.

    Raises:
        UsageError: the options contradict each other, or a password is on the command line.
        BackstayError: a file can't be read.
    """
    from backstay.client.access import Access, Timeouts, read_tls
    from backstay.client.endpoint import parse_endpoints

    for name in ("user", "server_name"):
        _check_text(f"--{name.replace('_', '-')}", options[name] or "")
    user, password = _user_and_password(options["user"], options["password_file"])
    return Access(
        endpoints=parse_endpoints(options["endpoints"]),
        tls=read_tls(
            ca=_path(options["cacert"]),
            certificate=_path(options["cert"]),
            key=_path(options["key"]),
            server_name=options["server_name"],
        ),
        user=user,
        password=password,
        timeouts=Timeouts(dial=options["dial_timeout"], command=options["command_timeout"]),
    )


def _check_text(name: str, text: str) -> str:
    """Find bytes that are no text before a library does: what it says may show them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{name} holds bytes that are no text in UTF-8", "mend it") from None
    return text


def _path(name: str | None) -> Path | None:
    return Path(name) if name else None


def _user_and_password(
    user: str | None, password_file: str | None
) -> "tuple[str | None, Secret | None]":
    from backstay.client.secret import Secret
    from backstay.files import read_private

    if not user:
        return None, None
    name, colon, inline = user.partition(":")
    if colon:
        return name, Secret(inline)
    if password_file:
        data = read_private(Path(password_file), limit=_PASSWORD_LIMIT)
        text = data.decode(errors="surrogateescape").rstrip("\r\n")
        return name, Secret(_check_text(password_file, text))
    if _PASSWORD_VARIABLE in os.environ:
        text = os.environ[_PASSWORD_VARIABLE]
        return name, Secret(_check_text(_PASSWORD_VARIABLE, text))
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(
            f"the password of {name} is not given, and there is no terminal to ask at",
            f"use --password-file or {_PASSWORD_VARIABLE}",
        )
    return name, Secret(click.prompt(f"Password of {name}", hide_input=True, err=True))
