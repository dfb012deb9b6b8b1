"""The rules of the manual: each guard's verdict and way out, and what they come to together."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.client.proxy import Proxies
from backstay.errors import RefusedError, UsageError
from backstay.kinds.okd import guards
from backstay.kinds.okd.cluster import (
    OPERATORS,
    ClusterProxy,
    Condition,
    Operator,
    parse_operator,
    parse_release,
    unread,
)
from backstay.kinds.okd.cluster import Cluster as Known
from backstay.kinds.okd.guards import NAMES, SAFETY, Dated, Made, Room, decide
from backstay.kinds.okd.window import Window
from backstay.report import Check, Verdict
from kit import okd_api

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.COULD_NOT_VERIFY
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DARK = unread("no API at hand")


def known(**told):
    """A cluster as its API tells of it."""
    progressing, proxy = told.pop("progressing", ()), told.pop("proxy", ClusterProxy())
    version = okd_api.cluster_version(**{"installed": NOW - 300 * DAY} | told)
    return Known(
        infrastructure="prod",
        release=parse_release(version),
        operators={
            it: parse_operator(
                it, okd_api.operator(it, progressing="True" if it in progressing else "False")
            )
            for it in OPERATORS
        },
        proxy=proxy,
    )


def certificate(begin, life=30 * DAY):
    return Dated("/host/tls.crt", begin, begin + life)


ROTATED = certificate(NOW - 9 * DAY)


# Not before the first rotation of certificates


@pytest.mark.parametrize(
    ("age", "certificates", "verdict", "words"),
    [
        (300 * DAY, [ROTATED], PASS, "1 certificates"),
        (25 * HOUR, [certificate(NOW - HOUR)], PASS, ""),
        # Too young, whatever its certificates are.
        (23 * HOUR, [ROTATED], FAIL, "wait until 2026-11-20T13:00:00Z"),
        (5 * HOUR, [], FAIL, "wait until"),
        # Old enough, and not rotated: the operators were down, or the host was off.
        (30 * HOUR, [ROTATED, certificate(NOW - 31 * HOUR, DAY)], FAIL, "1 of 2 certificates"),
        # A later one that lives for a day is none of the installer's.
        (300 * DAY, [certificate(NOW - 2 * HOUR, DAY)], PASS, ""),
        # One that the installer made for ten years is not to be rotated so soon.
        (300 * DAY, [certificate(NOW - 300 * DAY, 3650 * DAY)], PASS, ""),
        (300 * DAY, [], UNKNOWN, "run on one"),
    ],
)
def test_the_first_rotation(age, certificates, verdict, words):
    # An installation ends 40 minutes after it began, and counts from there.
    cluster = known(installed=NOW - age - timedelta(minutes=40))
    answer = guards.rotation(cluster, certificates, NOW)
    assert answer.verdict is verdict, answer
    assert words in answer.detail


@pytest.mark.parametrize(
    ("certificates", "verdict", "words"),
    [
        ([], UNKNOWN, "no API at hand"),
        ([ROTATED], UNKNOWN, "the oldest certificate is from 2026-11-11"),
        # These alone are enough for a no.
        ([certificate(NOW - 5 * HOUR)], FAIL, "24 hours"),
        ([ROTATED, certificate(NOW - 30 * HOUR, DAY)], FAIL, "of the installation"),
    ],
)
def test_promise_4_the_first_rotation_without_the_api(certificates, verdict, words):
    answer = guards.rotation(DARK, certificates, NOW)
    assert answer.verdict is verdict
    assert words in answer.detail


# Not while something is rolled out


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_that_is_progressing(name):
    answer = guards.operators(known(progressing=(name,)))
    assert answer.verdict is FAIL
    assert f"progressing: {name} (NodeInstaller)" in answer.detail
    assert "oc get co" in answer.detail


@pytest.mark.parametrize("status", ["", "Unknown", "true", "Maybe"])
def test_promise_4_an_operator_that_does_not_say(status):
    cluster = known()
    silent = Operator(name="etcd", progressing=Condition(status=status))
    answer = guards.operators(replace(cluster, operators=cluster.operators | {"etcd": silent}))
    assert answer.verdict is UNKNOWN
    assert "not known of etcd: Progressing is" in answer.detail


def test_promise_4_an_operator_that_could_not_be_read():
    cluster = known()
    others = {it: found for it, found in cluster.operators.items() if it != "etcd"}
    answer = guards.operators(replace(cluster, operators=others, gaps={"etcd": "403, not you"}))
    assert answer.verdict is UNKNOWN
    assert "not known of etcd: 403, not you" in answer.detail
    dark = guards.operators(DARK)
    assert dark.verdict is UNKNOWN
    # One reason is told once.
    assert dark.detail.count("no API at hand") == 1
    assert ", ".join(OPERATORS) in dark.detail


def test_one_that_progresses_counts_for_more_than_one_that_is_silent():
    cluster = known(progressing=("etcd",))
    others = {it: found for it, found in cluster.operators.items() if it != "kube-scheduler"}
    assert guards.operators(replace(cluster, operators=others)).verdict is FAIL


def test_what_is_broken_is_told_and_does_not_refuse_the_backup():
    cluster = known()
    broken = parse_operator("etcd", okd_api.operator("etcd", degraded="True", available="False"))
    answer = guards.operators(replace(cluster, operators=cluster.operators | {"etcd": broken}))
    assert answer.verdict is PASS
    assert "etcd is degraded" in answer.detail
    assert "etcd is not available" in answer.detail


# Not during an upgrade


@pytest.mark.parametrize(
    ("told", "verdict", "words"),
    [
        ({}, PASS, "release 4.15.3"),
        ({"partial": "4.15.4"}, FAIL, "4.15.4"),
        ({"progressing": True}, FAIL, "progressing"),
        # What is under way counts before the operator has said so.
        ({"history": [okd_api.update("4.16.0", "Partial")]}, FAIL, "4.16.0"),
        ({"history": []}, UNKNOWN, "does not say"),
        ({"history": [okd_api.update("4.16.0", "Half-way")]}, UNKNOWN, "does not say"),
    ],
)
def test_an_upgrade(told, verdict, words):
    progressing = told.pop("progressing", False)
    release = parse_release(okd_api.cluster_version(progressing=progressing, **told))
    answer = guards.upgrade(replace(known(), release=release))
    assert answer.verdict is verdict
    assert words in answer.detail


def test_promise_4_an_upgrade_that_nobody_tells_of():
    answer = guards.upgrade(DARK)
    assert answer.verdict is UNKNOWN
    assert "no API at hand" in answer.detail


# The cluster-wide proxy

CORPORATE = ClusterProxy(
    http="http://me:hunter2@proxy.corp:3128",
    https="http://me:hunter2@proxy.corp:3128",
    no_proxy=".svc,10.0.0.0/14,s3.inside.corp",
    trusted_ca="user-ca-bundle",
)
S3 = "https://s3.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("proxy", "environment", "servers", "verdict", "words"),
    [
        (ClusterProxy(), Proxies(), (S3,), PASS, "no cluster-wide proxy"),
        (CORPORATE, Proxies(), (S3,), PASS, "by http://proxy.corp:3128 (of proxy/cluster"),
        (CORPORATE, Proxies(), (S3,), PASS, "openshift-config/user-ca-bundle"),
        (CORPORATE, Proxies(https="http://mine:1"), (S3,), PASS, "by http://mine:1 (exported here"),
        (CORPORATE, Proxies(), ("https://s3.inside.corp",), PASS, "s3.inside.corp straight"),
        (CORPORATE, Proxies(), ("https://10.1.2.3:9000",), PASS, "10.1.2.3:9000 straight"),
        (CORPORATE, Proxies(), (), PASS, "nothing is uploaded"),
        (replace(CORPORATE, https="socks5://p:1"), Proxies(), (S3,), FAIL, "HTTPS_PROXY"),
        (None, Proxies(), (S3,), UNKNOWN, "not known"),
        (None, Proxies(https="http://mine:1"), (S3,), UNKNOWN, "HTTPS_PROXY is set here"),
    ],
)
def test_the_proxy(proxy, environment, servers, verdict, words):
    answer = guards.proxy(known(proxy=proxy), environment, servers)
    assert answer.verdict is verdict
    assert words in answer.detail
    assert "hunter2" not in answer.detail


def test_what_is_exported_goes_before_what_the_cluster_has():
    mine = Proxies(https="http://mine:1")
    assert guards.proxies(known(proxy=CORPORATE), mine) is mine
    taken = guards.proxies(known(proxy=CORPORATE), Proxies())
    assert taken.leading_to(S3) == CORPORATE.https
    assert taken.leading_to("https://x.svc") is None
    assert not guards.proxies(DARK, Proxies())


def test_promise_5_the_password_of_a_proxy_is_in_no_repr():
    assert "hunter2" not in repr(known(proxy=CORPORATE))
    assert "hunter2" not in repr(guards.proxies(known(proxy=CORPORATE), Proxies()))


# What a Go program would do with noProxy: of names, and of addresses

LABEL = st.text("ab1", min_size=1, max_size=3)
NAME = st.lists(LABEL, min_size=1, max_size=4).map(lambda labels: ".".join([*labels, "example"]))


def leads(no_proxy, host):
    found = Proxies(https="http://p:1", no_proxy=no_proxy)
    return found.leading_to(f"https://{host}/bucket") is not None


@given(host=NAME, part=NAME, others=st.lists(NAME, max_size=3))
def test_a_domain_excepts_itself_and_what_is_below_it(host, part, others):
    below = [host == it or host.endswith(f".{it}") for it in (part, *others)]
    assert leads(",".join([part, *others]), host) == (not any(below))
    # With a dot in front, only what is below it.
    assert leads(f".{part}", host) == (not host.endswith(f".{part}"))
    assert leads(f"*.{part}", host) == (not host.endswith(f".{part}"))
    # With a port, only that one.
    assert leads(f"{part}:443", host) == leads(part, host)
    assert leads(f"{part}:8443", host)
    assert not leads(f" ,,{part.upper()} ,*", host)


@given(
    address=st.ip_addresses(v=4).filter(lambda it: not it.is_loopback),
    other=st.ip_addresses(v=4),
    length=st.integers(0, 32),
)
def test_a_network_excepts_the_addresses_in_it(address, other, length):
    mask = (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF
    inside = int(address) & mask == int(other) & mask
    assert leads(f"{other}/{length}", str(address)) == (not inside)
    assert leads(f"{other}", str(address)) == (address != other)
    # A network never means a name.
    assert leads(f"{other}/{length}", "a.example")


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_words_of_a_cluster_break_it(no_proxy, host):
    found = Proxies(http="http://p:1", https="http://p:1", no_proxy=no_proxy)
    assert found.leading_to(f"https://{host}") in {None, "http://p:1"}
    assert all(found.networks)
    assert "hunter2" not in guards.shown(f"http://me:hunter2@{host}") or "hunter2" in host


# Room


def test_room():
    wide, tight = Room("/a", 10, 10, "--spool-dir"), Room("/b", 10, 9, "--output-dir")
    assert guards.space([wide]).verdict is PASS
    answer = guards.space([wide, tight])
    assert answer.verdict is FAIL
    assert "/b has 9 bytes free, 10 are needed; name another with --output-dir" in answer.detail
    assert "/a" not in answer.detail


# The hours

MINUTES = st.integers(0, 24 * 60 - 1)


def clock(minutes):
    return time(minutes // 60, minutes % 60)


@given(begin=MINUTES, end=MINUTES, now=MINUTES)
def test_a_window_is_so_many_minutes_after_its_begin(begin, end, now):
    if begin == end:
        return
    wanted = Window.parse(f"{clock(begin):%H:%M}-{clock(end):%H:%M}")
    assert wanted == Window(clock(begin), clock(end))
    moment = datetime.combine(NOW.date(), clock(now), UTC)
    inside = (now - begin) % 1440 < (end - begin) % 1440
    answer = guards.window(wanted, moment)
    assert (answer.verdict is PASS) == (moment in wanted) == inside


@given(begin=MINUTES, end=MINUTES)
def test_both_sides_of_a_window_make_the_day(begin, end):
    if begin == end:
        return
    there, back = Window(clock(begin), clock(end)), Window(clock(end), clock(begin))
    for minute in range(0, 1440, 7):
        moment = datetime.combine(NOW.date(), clock(minute), UTC)
        assert (moment in there) != (moment in back)


@pytest.mark.parametrize(
    ("text", "at", "verdict"),
    [
        ("01:00-05:00", "01:00", PASS),
        ("01:00-05:00", "04:59", PASS),
        ("01:00-05:00", "05:00", FAIL),
        ("23:00-02:00", "23:30", PASS),
        ("23:00-02:00", "00:00", PASS),
        ("23:00-02:00", "02:00", FAIL),
        ("23:00-02:00", "12:00", FAIL),
    ],
)
def test_windows(text, at, verdict):
    moment = datetime.combine(NOW.date(), time.fromisoformat(at), UTC)
    answer = guards.window(Window.parse(text), moment)
    assert answer.verdict is verdict
    assert f"it is {at} (UTC) here" in answer.detail
    assert verdict is PASS or f"wait until {text[:5]}" in answer.detail


def test_a_window_is_of_the_machines_own_zone():
    east = timezone(timedelta(hours=9), "east")
    assert NOW.astimezone(east) in Window.parse("21:00-21:01")
    answer = guards.window(Window.parse("21:00-21:01"), NOW.astimezone(east))
    assert "it is 21:00 (east) here" in answer.detail


@pytest.mark.parametrize(
    "text", ["", "1-5", "01:00", "01:00-24:00", "01:60-02:00", "05:00-05:00", "01:00-05:00 ", "x"]
)
def test_what_is_no_window(text):
    with pytest.raises(UsageError):
        Window.parse(text)


# One host, not each


def made(age, node="master-1", where="prod/x"):
    return Made(where=where, node=node, age=age)


@pytest.mark.parametrize(
    ("least", "others", "gaps", "verdict", "words"),
    [
        (3600, [], [], PASS, "within 1h00m"),
        (3600, [made(3601)], [], PASS, ""),
        (3600, [made(600)], [], FAIL, "master-1 backed up this cluster 10m ago (prod/x)"),
        (3600, [made(600)], [], FAIL, "wait 50m"),
        (3600, [made(600)], ["the store is down"], FAIL, "master-1"),
        (3600, [made(600, "master-0")], [], PASS, ""),
        # One of whom nobody knows the host may be of another.
        (3600, [made(600, "")], [], FAIL, "another host"),
        (3600, [made(9000)], ["the store is down"], UNKNOWN, "the store is down"),
        (0, [made(1)], [], PASS, "no other host is at work"),
        # Clocks that are a little apart, and clocks that are wrong.
        (3600, [made(-20)], [], FAIL, "0m ago"),
        (3600, [made(-4000)], [], UNKNOWN, "from the future"),
    ],
)
def test_another_hosts_backup(least, others, gaps, verdict, words):
    answer = guards.interval(least, "master-0", others, gaps)
    assert answer.verdict is verdict
    assert words in answer.detail


# Together


def check(name, verdict):
    return Check(name=name, verdict=verdict, detail=f"of {name}; do this", seconds=0.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verdict", Verdict)
def test_promise_4_what_refuses(name, verdict):
    refuses = verdict is FAIL or (verdict is UNKNOWN and name in SAFETY)
    checks = [check(it, PASS) for it in NAMES if it != name] + [check(name, verdict)]
    assert decide(checks, force=True) == ((name,) if refuses else ())
    if not refuses:
        assert decide(checks, force=False) == ()
        return
    with pytest.raises(RefusedError) as caught:
        decide(checks, force=False)
    assert f"{name}: " in str(caught.value)
    assert f"of {name}; do this" in str(caught.value)
    assert "--force" in str(caught.value)
    assert caught.value.exit_code == 5


def test_all_that_refuse_are_named_in_their_order():
    checks = [check(name, FAIL) for name in reversed(NAMES)]
    assert decide(checks, force=True) == NAMES
    with pytest.raises(RefusedError) as caught:
        decide(checks, force=False)
    assert all(f"{name}: " in caught.value.what for name in NAMES)


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(Verdict)), max_size=12))
def test_force_names_just_what_would_have_refused(told):
    checks = [check(*one) for one in told]
    forced = decide(checks, force=True)
    alone = {it.name for it in checks if decide([it], force=True)}
    assert set(forced) == alone
    assert list(forced) == sorted(forced, key=NAMES.index)
    if not forced:
        assert decide(checks, force=False) == ()


def test_other_checks_decide_nothing_here():
    assert decide([check("members", FAIL), check("found", UNKNOWN)], force=False) == ()


def test_there_is_a_test_for_each():
    asked = [name for name in NAMES if name != "version"]
    assert all(callable(getattr(guards, name)) for name in asked)
    assert set(NAMES) >= SAFETY
