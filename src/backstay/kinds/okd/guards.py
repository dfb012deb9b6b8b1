"""The rules of the manual, each a question with a verdict and a way out.

Pure functions over what was gathered; who gathers it, and asks in which order, is `asking`.

`rotation`   not before the first rotation of certificates, 24 h after the installation
`operators`  not while one of the four operators rolls something out
`upgrade`    not while the cluster is upgraded
`proxy`      uploads go through the cluster-wide proxy
`space`      there is room for what is written
`window`     outside of peak hours
`interval`   on one host, not on each
`version`    after every upgrade (see `release`)

The first three are about whether the backup restores: where they can't be asked, that refuses a
backup as a FAIL does. Upstream's script, too, ends where it finds no status of an operator. The
others refuse by a FAIL alone; where they can't be asked a backup is better than none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from backstay.checks.question import Answer, failed, passed, unknown
from backstay.client.proxy import Proxies, is_usable, shown
from backstay.client.text import one_line
from backstay.errors import RefusedError
from backstay.kinds.okd.cluster import OPERATORS, Cluster, Condition
from backstay.kinds.okd.window import Window
from backstay.repo.manifest import SAFETY
from backstay.report import Check, Verdict

#: In the order in which they are asked.
NAMES = ("rotation", "operators", "upgrade", "proxy", "space", "window", "interval", "version")
#: The certificates that the installer makes are good for a day; the first rotation replaces them.
FIRST_ROTATION = timedelta(hours=24)
#: Certificates begin a little before they are made, and end a little after their day.
_SLACK = timedelta(hours=1)
#: Clocks of machines are that far apart at most, or nothing is said by comparing them.
_SKEW = timedelta(minutes=5)


def decide(checks: Iterable[Check], *, force: bool) -> tuple[str, ...]:
    """Decide whether a backup may be made.

    A guard refuses where it FAILED, and one of `SAFETY` also where it COULD NOT VERIFY. Checks
    under other names than `NAMES` decide nothing here.

    Args:
        checks: of the guards; those that do not apply are not among them.
        force: whether the user takes it upon themself.

    Returns:
        The guards that were skipped, in their order: for `OkdEntry.forced`, and for the mark in
        the names of files. Empty where none refused, with `force` too.

    Raises:
        RefusedError: a guard refuses, and `force` is not given; each is named with its way out.
    """
    refusing = [check for check in checks if _refuses(check)]
    if not refusing or force:
        order = {name: number for number, name in enumerate(NAMES)}
        return tuple(sorted({check.name for check in refusing}, key=order.__getitem__))
    told = "; ".join(f"{check.name}: {_verdict(check)}{check.detail}" for check in refusing)
    raise RefusedError(told, "mend that, or skip it with --force; nothing was written")


def _refuses(check: Check) -> bool:
    if check.name not in NAMES or check.verdict is Verdict.PASS:
        return False
    return check.verdict is Verdict.FAIL or check.name in SAFETY


def _verdict(check: Check) -> str:
    return "" if check.verdict is Verdict.FAIL else "could not verify, "


@dataclass(frozen=True, slots=True)
class Dated:
    """A certificate of the host, by its dates.

    Attributes:
        name: where it lies, for people.
        not_before: when it begins; aware.
        not_after: when it ends; aware.
    """

    name: str
    not_before: datetime
    not_after: datetime


def rotation(cluster: Cluster, certificates: Sequence[Dated], now: datetime) -> Answer:
    """Are the host's certificates those of a rotation, not those of the installation?

    Args:
        cluster: the ClusterVersion's first history entry says when it was installed.
        certificates: of the static pods of this host.
        now: by this machine's clock; aware.
    """
    oldest = min((it.not_before for it in certificates), default=None)
    installed = cluster.release.installed if cluster.release is not None else None
    begun = installed or oldest
    if begun is not None and now - begun < FIRST_ROTATION:
        # The oldest certificate is younger than a day: without the API that is enough for a no.
        return failed(
            f"the cluster was installed {_ago(now - begun)} ago, and its first certificates are"
            f" rotated after 24 hours; wait until {_time(begun + FIRST_ROTATION)}"
        )
    first = [it for it in certificates if _is_first(it, installed)]
    if first:
        named = ", ".join(one_line(it.name) for it in first[:3])
        return failed(
            f"{named}: still of the installation, {len(first)} of {len(certificates)} certificates"
            f" ({_time(first[0].not_before)}); look at the operators, and wait for the rotation"
        )
    if installed is None:
        return unknown(
            f"when the cluster was installed is not known: {cluster.gap('version')}"
            f"{_oldest(oldest)}; reach its API with --kubeconfig"
        )
    if not certificates:
        return unknown("no certificate of a control plane host was looked at; run on one")
    return passed(
        f"installed {_time(installed)}; none of {len(certificates)} certificates of this host is"
        " of the installation's day"
    )


def _is_first(certificate: Dated, installed: datetime | None) -> bool:
    """Whether it is one of the day-long ones that the installer makes, and no later one."""
    short = certificate.not_after - certificate.not_before <= FIRST_ROTATION + _SLACK
    return short and (installed is None or certificate.not_before < installed + _SLACK)


def _oldest(moment: datetime | None) -> str:
    return f" (the oldest certificate is from {_time(moment)})" if moment is not None else ""


def operators(cluster: Cluster) -> Answer:
    """Does none of the four operators roll something out?

    One that is degraded, or not available, is told and refuses nothing: a backup is wanted most
    where something is broken.
    """
    rolling, notes, dark = [], [], dict[str, list[str]]()
    for name in OPERATORS:
        found = cluster.operators.get(name)
        progressing = Condition() if found is None else found.progressing
        if progressing.status == "True":
            rolling.append(f"{name}{_reason(progressing)}")
        elif progressing.status != "False":
            dark.setdefault(_why(cluster, name, progressing), []).append(name)
        if found is not None and found.degraded.status == "True":
            notes.append(f"{name} is degraded{_reason(found.degraded)}")
        if found is not None and found.available.status == "False":
            notes.append(f"{name} is not available{_reason(found.available)}")
    more = f"; {', '.join(notes)}" if notes else ""
    if rolling:
        return failed(
            f"progressing: {', '.join(rolling)}; wait until `oc get co` says False of them, and"
            f" back up then{more}"
        )
    if dark:
        told = "; ".join(f"{', '.join(names)}: {why}" for why, names in dark.items())
        return unknown(
            f"whether a rollout is in progress is not known of {told}; reach the API with"
            f" --kubeconfig{more}"
        )
    return passed(f"none of {', '.join(OPERATORS)} is progressing{more}")


def upgrade(cluster: Cluster) -> Answer:
    """Is no upgrade under way?"""
    release = cluster.release
    if release is None:
        return unknown(
            f"whether an upgrade is under way is not known: {cluster.gap('version')}; reach the API"
            " with --kubeconfig"
        )
    newest = release.history[0] if release.history else None
    if newest is not None and newest.state == "Partial":
        return failed(
            f"an upgrade to {newest.version or 'another release'} is under way; wait until"
            " `oc get clusterversion` says that it is complete, and back up then"
        )
    if release.progressing.status == "True":
        return failed(
            f"the ClusterVersion is progressing{_reason(release.progressing)}; wait until"
            " `oc get clusterversion` says False, and back up then"
        )
    if release.progressing.status != "False" or newest is None or newest.state != "Completed":
        return unknown("the ClusterVersion does not say; look at `oc get clusterversion`")
    return passed(
        f"release {newest.version or 'unknown'}, complete since {_since(newest.completed)}"
    )


def _since(moment: datetime | None) -> str:
    return "an unknown time" if moment is None else _time(moment)


def proxy(cluster: Cluster, environment: Proxies, servers: Sequence[str]) -> Answer:
    """Does what is uploaded go through the cluster-wide proxy?

    Args:
        cluster: its Proxy says what the manual asks people to export.
        environment: what is exported here; it goes first.
        servers: URLs of those that are uploaded to; empty where nothing leaves this machine.
    """
    found = cluster.proxy
    if found is None:
        said = "; HTTPS_PROXY is set here, and is used" if environment else ""
        return unknown(f"the cluster-wide proxy is not known: {cluster.gap('proxy')}{said}")
    if not found:
        return passed("the cluster has no cluster-wide proxy")
    if not servers:
        return passed("the cluster has a proxy, and nothing is uploaded")
    used = proxies(cluster, environment)
    ways = [(server, used.leading_to(server)) for server in servers]
    bad = [shown(way) for _, way in ways if way is not None and not is_usable(way)]
    if bad:
        return failed(f"{bad[0]} can't be used as a proxy; export another as HTTPS_PROXY")
    origin = "exported here" if environment else "of proxy/cluster, which is not exported here"
    told = "; ".join(
        f"{server} {f'by {shown(way)}' if way else 'straight'}" for server, way in ways
    )
    trust = ""
    if found.trusted_ca and any(way for _, way in ways):
        trust = (
            f"; its authorities are in ConfigMap openshift-config/{found.trusted_ca}: give them"
            " with --ca-bundle where it opens TLS"
        )
    return passed(f"{told} ({origin}){trust}")


def proxies(cluster: Cluster, environment: Proxies) -> Proxies:
    """Choose the proxies for uploads: those that are exported, else those of the cluster."""
    found = cluster.proxy
    if environment or not found:
        return environment
    return Proxies(http=found.http, https=found.https, no_proxy=found.no_proxy)


@dataclass(frozen=True, slots=True)
class Room:
    """A directory that is written to.

    Attributes:
        directory: for people.
        needed: bytes.
        free: bytes.
        option: that names another, as `--spool-dir`.
    """

    directory: str
    needed: int
    free: int
    option: str


def space(rooms: Sequence[Room]) -> Answer:
    """Is there room for what is written?"""
    told = [f"{it.directory} has {it.free} bytes free, {it.needed} are needed" for it in rooms]
    tight = [f"{text}; name another with {it.option}" for text, it in zip(told, rooms, strict=True)
             if it.free < it.needed]  # fmt: skip
    return failed("; ".join(tight)) if tight else passed("; ".join(told))


def window(wanted: Window, now: datetime) -> Answer:
    """Is it the time of day in which backups may be made?

    Args:
        wanted: the hours.
        now: in the machine's own time zone.
    """
    text = f"it is {now:%H:%M} ({now.tzname() or 'local time'}) here"
    if now in wanted:
        return passed(f"{text}, inside {wanted}")
    return failed(f"{text}, outside {wanted}; wait until {wanted.begin:%H:%M}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A backup of this cluster that somebody made.

    Attributes:
        where: that tells of it, for people: an ID, or the Lease.
        node: the host that it was made on; empty where that is not known.
        age: seconds; by the store's own clock, or by the other host's and ours.
    """

    where: str
    node: str
    age: float


def interval(least: float, node: str, made: Sequence[Made], gaps: Sequence[str] = ()) -> Answer:
    """Has no other host backed up this cluster within so many seconds?

    The manual says: on one control plane host only. A CronJob on each would cost the disks of all.

    Args:
        least: seconds.
        node: this host.
        made: the newest backups that are known, from the repository and from the Lease.
        gaps: where could not be looked, each with the reason.
    """
    others = [it for it in made if it.node != node or not it.node]
    odd = [it for it in others if it.age < -_SKEW.total_seconds()]
    fresh = [it for it in others if it not in odd and it.age < least]
    if fresh:
        last = min(fresh, key=lambda it: it.age)
        who = last.node or "another host"
        return failed(
            f"{who} backed up this cluster {_ago(timedelta(seconds=last.age))} ago ({last.where});"
            f" let one host do it, or wait {_ago(timedelta(seconds=least - last.age))}"
        )
    if odd:
        return unknown(f"{odd[0].where} is from the future; set the clock that is wrong")
    if gaps:
        return unknown("; ".join(gaps))
    if not least:
        return passed("no other host is at work")
    limit = _ago(timedelta(seconds=least))
    return passed(f"no other host is at work, or backed up this cluster within {limit}")


def _why(cluster: Cluster, name: str, progressing: Condition) -> str:
    if name in cluster.operators:
        return f"Progressing is {progressing.status or 'not told'}"
    return cluster.gap(name)


def _reason(condition: Condition) -> str:
    return f" ({condition.reason})" if condition.reason else ""


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ago(age: timedelta) -> str:
    minutes = max(0, round(age.total_seconds() / 60))
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m"
