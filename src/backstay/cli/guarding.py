"""What `backup okd` and `preflight okd` share: the rules of the manual, and how they are asked."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backstay.cli import options
from backstay.cli.complete import clusters
from backstay.cli.connect import StoreOptions, spool_directory, store_access
from backstay.cli.options import F
from backstay.cli.values import Duration, FilePath
from backstay.closing import Closing
from backstay.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from backstay.client.proxy import Proxies
    from backstay.kinds.okd.guarding import Guarding, Rules
    from backstay.kinds.okd.host import Host
    from backstay.repo.catalogue import Repository
    from backstay.report import Check, Report


def output_dir(function: F) -> F:
    """Say where both files go that are taken on a host."""
    return click.option(
        "--output-dir",
        type=FilePath(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Leave snapshot and tar there, as cluster-backup.sh does: not encrypted, keys and"
        " all.",
    )(function)


def control_plane_host(function: F) -> F:
    """Say which host it is."""
    return options.compose(
        click.option(
            "--host-root",
            type=FilePath(file_okay=False, path_type=Path),
            default="/",
            show_default=True,
            metavar="DIR",
            help="Where the root of the control plane host is mounted.",
        ),
        click.option(
            "--cluster",
            default="",
            shell_complete=clusters,
            help="Its name, if not the infrastructure's.",
        ),
        click.option(
            "--endpoints",
            default="",
            metavar="URLS",
            help="Client URLs of etcd, if not those that the host names.",
        ),
    )(function)


def guarding(function: F) -> F:
    """Say what the guards are asked about."""
    return options.compose(
        click.option(
            "--kubeconfig",
            type=FilePath(dir_okay=False, path_type=Path),
            help="The cluster's API, which guards ask.  Else KUBECONFIG, the pod's own account, or"
            " the host's own kubeconfig.",
        ),
        click.option("--context", metavar="NAME", help="Another context of it than the current."),
        click.option(
            "--window",
            default="",
            metavar="HH:MM-HH:MM",
            help="The hours for backups, by this machine's clock; refused outside.",
        ),
        click.option(
            "--min-interval",
            type=Duration(),
            default="1h",
            show_default=True,
            help="How long after another host's backup one is refused; 0s: never.",
        ),
        click.option(
            "--lease-namespace",
            default="backstay-okd",
            show_default=True,
            metavar="NAMESPACE",
            help="Where the Lease lies that keeps two hosts from backing up at once.",
        ),
    )(function)


class Asking(Closing):
    """The API of a cluster, what it says, and the guards that ask it; closed at the end.

    Args:
        more: options of the command: those of `guarding`, of stores, `cluster` and `spool_dir`.
        host_root: where the root of the host is mounted.
        output_dir: where both files will stay; None where they go to repositories.

    Raises:
        UsageError: an option makes no sense.
    """

    def __init__(self, more: dict[str, Any], host_root: Path, output_dir: Path | None) -> None:
        from backstay.kinds.okd.reach import open_api

        self._guarding: Guarding | None = None
        self.rules = _rules(more, output_dir)
        self._named = more["cluster"]
        self._force = bool(more.get("force"))
        self.api, self.cluster = open_api(more["kubeconfig"], more["context"], host_root)

    @property
    def proxies(self) -> "Proxies":
        """Those that lead to the stores: the environment's, else the cluster's own.

        Raises:
            RefusedError: one can't be used; with `--force` none is used then.
        """
        from backstay.client.proxy import Proxies
        from backstay.kinds.okd import guards
        from backstay.report import Verdict

        rules = self.rules
        answer = guards.proxy(self.cluster, rules.environment, rules.servers)
        if answer.verdict is not Verdict.FAIL:
            return guards.proxies(self.cluster, rules.environment)
        if not self._force:
            raise RefusedError(f"proxy: {answer.detail}", "or go without by --force")
        return Proxies()

    def guards(
        self, host: "Host", repository: "Repository | None", report: "Report"
    ) -> "Callable[[], tuple[Check, ...]]":
        """Make what asks the guards, and holds the Lease from then on.

        Args:
            host: the backup is made on.
            repository: of the snapshots; None where both files stay in a directory.
            report: is told each verdict.
        """
        asked = self.of(host, report)
        return lambda: asked.ask(repository)

    def of(self, host: "Host", report: "Report") -> "Guarding":
        """Give the guards of a backup on a host; the same for all that ask."""
        from backstay.clock import SystemClock
        from backstay.kinds.okd.guarding import Guarding

        if self._guarding is None:
            self._guarding = Guarding(
                host,
                self.cluster,
                self.api,
                self.rules,
                named=self._named,
                clock=SystemClock(),
                report=report,
            )
        return self._guarding

    def finish(self) -> None:
        """Note that the backup is complete."""
        if self._guarding is not None:
            self._guarding.finish()

    def close(self) -> None:
        """Give back the Lease and the connection."""
        if self._guarding is not None:
            self._guarding.close()
        if self.api is not None:
            self.api.close()


def _rules(more: dict[str, Any], output_dir: Path | None) -> "Rules":
    from backstay.client.proxy import Proxies
    from backstay.kinds.okd.guarding import Rules
    from backstay.kinds.okd.window import Window

    return Rules(
        window=Window.parse(more["window"]) if more["window"] else None,
        least=more["min_interval"],
        namespace=more["lease_namespace"],
        environment=Proxies.of_environment(),
        servers=_servers(more) if output_dir is None else (),
        spool_dir=spool_directory(more["spool_dir"]),
        output_dir=output_dir,
    )


def _servers(more: dict[str, Any]) -> tuple[str, ...]:
    """Name those that are uploaded to, each once; directories are none."""
    from backstay.repo.url import server_of

    access = store_access(StoreOptions.of(more))
    urls = (server_of(more[name], access) for name in ("repo", "keys_repo") if more[name])
    return tuple(dict.fromkeys(url for url in urls if url))
