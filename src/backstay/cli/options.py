"""Options that several commands share, under the names that people know from the peers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from backstay.cli.complete import clusters
from backstay.cli.session import Session
from backstay.cli.values import Duration, FilePath, Time
from backstay.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


def _switch(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        del param
        session = ctx.find_object(Session)
        if session is not None and value:
            setattr(session, name, value)

    return callback


def compose(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Make one decorator of several, in the order that the help lists them."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def talk(function: F) -> F:
    """Say how the program talks: --json, --quiet, --log-format, --debug."""
    return compose(
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            callback=_switch("json"),
            help="Print one JSON document on standard output.",
        ),
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=_switch("quiet"),
            help="Say nothing but errors.",
        ),
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            default="text",
            expose_value=False,
            callback=_switch("log_format"),
            help="How to write what happens.",
            show_default=True,
        ),
        click.option(
            "--debug",
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_switch("debug"),
            help="Show tracebacks.",
        ),
    )(function)


def store(function: F) -> F:
    """Say where the repository is and how to reach it."""
    return compose(
        click.option(
            "--repo",
            envvar="BACKSTAY_REPO",
            required=True,
            metavar="URL",
            help="The repository: file:///dir, or s3://, gs:// or az://BUCKET/PREFIX."
            "  [env: BACKSTAY_REPO]",
        ),
        store_access,
    )(function)


def store_where(needed: str) -> Callable[[F], F]:
    """Say where the repository is, for commands that can do without.

    Args:
        needed: when it is needed, in a few words.
    """
    return compose(
        click.option(
            "--repo",
            envvar="BACKSTAY_REPO",
            metavar="URL",
            help=f"The repository, {needed}.  [env: BACKSTAY_REPO]",
        ),
        store_access,
    )


def store_optional(function: F) -> F:
    """Say where the repository is, for commands that also take files."""
    return store_where("where an ID is given")(function)


def no_repository(ctx: click.Context) -> click.MissingParameter:
    """Make the error that says that here a repository is needed."""
    param = next(param for param in ctx.command.params if param.name == "repo")
    return click.MissingParameter(ctx=ctx, param=param)


def keys_store(function: F) -> F:
    """Say where the repository for keys is; it is reached as the other is."""
    return click.option(
        "--keys-repo",
        envvar="BACKSTAY_KEYS_REPO",
        metavar="URL",
        help="The repository for keys.  [env: BACKSTAY_KEYS_REPO]",
    )(function)


def store_access(function: F) -> F:
    """Say how to reach an object store."""
    return compose(
        click.option(
            "--s3-endpoint",
            metavar="URL",
            envvar=["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
            help="An S3 server other than Amazon's.  [env: AWS_ENDPOINT_URL_S3]",
        ),
        click.option(
            "--s3-region",
            envvar=["AWS_REGION", "AWS_DEFAULT_REGION"],
            help="The bucket's region.  [env: AWS_REGION]",
        ),
        click.option(
            "--s3-virtual-hosted",
            is_flag=True,
            help="Name the bucket in the host (path style is used with --s3-endpoint).",
        ),
        click.option("--allow-http", is_flag=True, help="Let the endpoint be plain http."),
        click.option(
            "--ca-bundle",
            type=FilePath(exists=True, dir_okay=False),
            envvar="AWS_CA_BUNDLE",
            help="Certificates that the endpoint may be signed by.  [env: AWS_CA_BUNDLE]",
        ),
    )(function)


def recipients(function: F) -> F:
    """Pin the recipients that the repository must have."""
    return click.option(
        "--recipient",
        "recipient",
        multiple=True,
        metavar="AGE1...",
        help="A recipient that the repository must have; any other set is refused.",
    )(function)


def keys_recipients(function: F) -> F:
    """Pin the recipients that the repository for keys must have."""
    return click.option(
        "--keys-recipient",
        "keys_recipient",
        multiple=True,
        metavar="AGE1...",
        help="A recipient that --keys-repo must have; any other set is refused.",
    )(function)


def identity(function: F) -> F:
    """Say where the private key is."""
    return click.option(
        "--identity",
        type=FilePath(dir_okay=False),
        envvar="BACKSTAY_IDENTITY",
        help="File with the age identity (private key).  [env: BACKSTAY_IDENTITY]",
    )(function)


def spool(function: F) -> F:
    """Say where a snapshot may lie while it is worked on."""
    return click.option(
        "--spool-dir",
        type=FilePath(exists=True, file_okay=False),
        envvar="BACKSTAY_SPOOL_DIR",
        help="Where a snapshot may lie while it is worked on; else $TMPDIR or /var/tmp.",
    )(function)


def tools(function: F) -> F:
    """Say which of etcd's own programs to use."""
    return compose(
        click.option("--etcd", type=FilePath(), help="The etcd program.  [default: from PATH]"),
        click.option(
            "--etcdutl",
            type=FilePath(),
            help="The etcdutl program, 3.5 or later.  [default: from PATH]",
        ),
    )(function)


def _only_a_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse etcdctl's NAME:PASSWORD where others can see it; in its variable it is taken."""
    source = ctx.get_parameter_source(param.name or "")
    if value and ":" in value and source is not click.core.ParameterSource.ENVIRONMENT:
        raise UsageError(
            "a password on the command line, or in the settings, can be seen by others",
            "use --password-file, ETCDCTL_PASSWORD or the prompt",
        )
    return value


def etcd(function: F) -> F:
    """Say how to reach a running etcd, as etcdctl's options and variables do."""
    return compose(
        click.option(
            "--endpoints",
            envvar="ETCDCTL_ENDPOINTS",
            default="127.0.0.1:2379",
            show_default=True,
            help="Client URLs, comma-separated.  [env: ETCDCTL_ENDPOINTS]",
        ),
        click.option(
            "--cacert",
            envvar="ETCDCTL_CACERT",
            type=FilePath(dir_okay=False),
            help="The CA of etcd's certificates.  [env: ETCDCTL_CACERT]",
        ),
        click.option(
            "--cert",
            envvar="ETCDCTL_CERT",
            type=FilePath(dir_okay=False),
            help="Our client certificate.  [env: ETCDCTL_CERT]",
        ),
        click.option(
            "--key",
            envvar="ETCDCTL_KEY",
            type=FilePath(dir_okay=False),
            help="Its private key.  [env: ETCDCTL_KEY]",
        ),
        click.option(
            "--server-name",
            help="The name that etcd's certificate must have, if not the host's.",
        ),
        click.option(
            "--user",
            envvar="ETCDCTL_USER",
            callback=_only_a_name,
            help="User name.  The password comes from --password-file, ETCDCTL_PASSWORD or a"
            " prompt.  [env: ETCDCTL_USER]",
        ),
        click.option(
            "--password-file",
            type=FilePath(dir_okay=False),
            help="File with the user's password.",
        ),
        click.option(
            "--dial-timeout",
            envvar="ETCDCTL_DIAL_TIMEOUT",
            type=Duration(),
            default="5s",
            show_default=True,
            help="Patience with a connection.  [env: ETCDCTL_DIAL_TIMEOUT]",
        ),
        click.option(
            "--command-timeout",
            envvar="ETCDCTL_COMMAND_TIMEOUT",
            type=Duration(),
            default="10s",
            show_default=True,
            help="Patience with an answer.  [env: ETCDCTL_COMMAND_TIMEOUT]",
        ),
    )(function)


def snapshot(function: F) -> F:
    """Say which snapshot of a backup is meant."""
    return click.option(
        "--snapshot",
        default="",
        metavar="NAME",
        help="Which snapshot, where a backup has several; `backstay show` names them."
        "  [default: the first]",
    )(function)


def kube(function: F) -> F:
    """Say which management cluster is meant, and where in it the HostedCluster is."""
    return compose(
        click.option(
            "-n",
            "--namespace",
            required=True,
            metavar="NAMESPACE",
            help="The namespace of the HostedCluster, not that of its control plane.",
        ),
        kube_access,
    )(function)


def kube_access(function: F) -> F:
    """Say which management cluster is meant.

    KUBECONFIG is no default of the option: it may name several files.
    """
    return compose(
        click.option(
            "--kubeconfig",
            type=FilePath(dir_okay=False, path_type=Path),
            help="How to reach the management cluster; in a pod its own account will do."
            "  [env: KUBECONFIG]",
        ),
        click.option("--context", metavar="NAME", help="Another context of it than the current."),
    )(function)


def cluster(function: F) -> F:
    """Name the cluster."""
    return click.option(
        "--cluster",
        required=True,
        shell_complete=clusters,
        help="The cluster's name: a-z, 0-9, dots and dashes.",
    )(function)


def members(function: F) -> F:
    """Say whether the members are asked if they have what the snapshot has."""
    return compose(
        click.option(
            "--members",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            show_default=True,
            help="Compare the members' HashKV with the snapshot's.  A member can't write while it"
            " sums: auto asks those that are held up for no longer than --max-stall.",
        ),
        click.option(
            "--max-stall",
            type=Duration(),
            default="1s",
            show_default=True,
            help="For how long --members=auto may keep a member from writing, by estimate.",
        ),
    )(function)


def accepting(function: F) -> F:
    """Say which checks may stay open."""
    return click.option(
        "--accept-unverified",
        "accepted",
        # Those without which a backup is a verified one all the same.
        type=click.Choice(["change", "keys", "members"]),
        multiple=True,
        help="End with 0 although this check COULD NOT VERIFY, as `keys` where a KMS has them."
        "  It is told and stored all the same; may be given again.",
    )(function)


def point(function: F) -> F:
    """Say which point is meant: --to-revision, --to-time, --lost-lease-ttl."""
    return compose(
        click.option(
            "--to-revision",
            type=click.IntRange(min=1),
            metavar="R",
            help="As of this revision: rewound within the snapshot's own window, or with recorded"
            " changes added.",
        ),
        click.option(
            "--to-time",
            type=Time(),
            metavar="TIME",
            help="As of this time, by the clock that recorded: 2026-11-20T23:10:00Z.",
        ),
        click.option(
            "--lost-lease-ttl",
            type=Duration(),
            default="1h",
            show_default=True,
            metavar="DURATION",
            help="With --to-...: for leases that had run out, and whose TTL was not recorded.",
        ),
    )(function)
