"""Which member gives the snapshot: the decision alone, and on real clusters."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.client.answer import Header, Status
from backstay.client.endpoint import parse_endpoint
from backstay.client.etcd import Etcd
from backstay.client.health import MAX_LAG, MemberHealth, choose, survey
from backstay.errors import EtcdError
from kit import needs
from kit.etcd import Etcd as Server
from kit.etcd import EtcdCluster

LEADER = 1


def member(number, **more):
    """A healthy member; number 1 leads."""
    alarms = frozenset(more.pop("alarms", ()))
    elsewhere = frozenset(more.pop("elsewhere", ()))
    cluster = more.pop("cluster", 7)
    status = Status(
        endpoint=parse_endpoint(f"https://m{number}:2379"),
        header=Header(cluster, number, 100, 3),
        **{
            "version": "3.5.1",
            "db_size": 1000,
            "db_size_in_use": 900,
            "quota": None,
            "leader": LEADER,
            "is_learner": False,
            "raft_index": 10_000,
            "raft_applied_index": 10_000,
            "storage_version": "",
            "errors": (),
            **more,
        },
    )
    return MemberHealth(
        endpoints=(status.endpoint,),
        status=status,
        name=f"m{number}",
        alarms=alarms,
        elsewhere=elsewhere,
    )


def unreachable(number):
    endpoint = parse_endpoint(f"https://m{number}:2379")
    return MemberHealth(endpoints=(endpoint,), error=f"{endpoint}: nobody listens there")


def order(choice):
    return [status.header.member_id for status in choice.order]


def reasons(choice):
    return {o.member.title.partition(" ")[0]: o.reason for o in choice.opinions}


def test_a_follower_is_preferred_and_the_given_order_kept():
    choice = choose([member(1), member(3), member(2)])
    assert order(choice) == [3, 2, 1]
    assert choice.best.header.member_id == 3
    assert reasons(choice) == {"m1": "leads", "m3": "follows", "m2": "follows"}
    assert choice.warnings == ()


@pytest.mark.parametrize(
    ("unfit", "reason"),
    [
        (unreachable(2), "can't be reached: https://m2:2379: nobody listens there"),
        (member(2, is_learner=True), "only learns: it may be far behind"),
        (member(2, alarms={"CORRUPT"}), "has the alarm CORRUPT"),
        (
            member(2, raft_applied_index=10_000 - MAX_LAG - 1),
            f"is {MAX_LAG + 1} raft entries behind",
        ),
    ],
)
def test_an_unfit_member_is_left_out_with_its_reason(unfit, reason):
    choice = choose([unfit, member(1)])
    assert order(choice) == [1]
    assert choice.opinions[-1].reason == reason


def test_every_reason_is_told_where_no_member_is_fit():
    with pytest.raises(EtcdError) as caught:
        _ = choose([unreachable(1), member(2, is_learner=True)]).best
    assert caught.value.what.startswith("no member is fit")
    assert "nobody listens" in str(caught.value)
    assert "only learns" in str(caught.value)
    assert caught.value.do


def test_a_little_lag_does_no_harm_and_the_limit_can_be_set():
    late = member(2, raft_applied_index=9_990)
    assert order(choose([member(1), late])) == [2, 1]
    assert order(choose([member(1), late], max_lag=9)) == [1]


def test_nospace_is_a_warning_since_its_snapshot_is_whole():
    choice = choose([member(1), member(2, alarms={"NOSPACE"})])
    assert order(choice) == [2, 1]
    assert "m2 (https://m2:2379) has the alarm NOSPACE" in choice.warnings[0]


def test_an_alarm_of_another_member_is_told_since_the_snapshot_has_it():
    choice = choose([member(1, alarms={"CORRUPT"}), member(2, elsewhere={"CORRUPT"})])
    assert order(choice) == [2]
    assert "m2 (https://m2:2379) is in a cluster with the alarm CORRUPT" in choice.warnings[0]


def test_without_a_leader_the_foremost_comes_first():
    members = [
        member(1, leader=0, raft_applied_index=9_000),
        member(2, leader=0, raft_applied_index=9_500),
    ]
    choice = choose(members)
    assert order(choice) == [2, 1]
    assert all("has no leader" in warning for warning in choice.warnings)
    assert order(choose([*members, member(3, leader=3)])) == [3, 2, 1]


def test_a_file_near_its_quota_is_told():
    near = {"db_size": 900, "db_size_in_use": 90}
    assert choose([member(1, **near)]).warnings == ()
    (told,) = choose([member(1, quota=1000, **near)]).warnings
    assert "90% of its quota; 90% of it are free pages" in told
    (assumed,) = choose([member(1, **near)], assumed_quota=1000).warnings
    assert "the quota that is assumed" in assumed
    assert choose([member(1, quota=2000, **near)], assumed_quota=1000).warnings == ()


def test_endpoints_of_two_clusters_are_refused():
    with pytest.raises(EtcdError, match="belong to 2 clusters") as caught:
        choose([member(1), member(2, cluster=8)])
    assert "m1" in str(caught.value)
    assert "m2" in str(caught.value)


MEMBERS = st.builds(
    lambda number, learner, alarm, applied, leader, gone: (
        unreachable(number)
        if gone
        else member(
            number,
            is_learner=learner,
            alarms=alarm,
            raft_applied_index=applied,
            leader=leader,
        )
    ),
    st.integers(1, 5),
    st.booleans(),
    st.sets(st.sampled_from(["NOSPACE", "CORRUPT"])),
    st.integers(0, 20_000),
    st.sampled_from([0, LEADER]),
    st.booleans(),
)


@given(st.lists(MEMBERS, max_size=6))
def test_whatever_is_heard_each_member_has_its_opinion(members):
    choice = choose(members)
    assert sorted(map(id, (o.member for o in choice.opinions))) == sorted(map(id, members))
    assert all(o.reason for o in choice.opinions)
    usable = [o.usable for o in choice.opinions]
    assert usable == sorted(usable, reverse=True)
    foremost = max((m.status.raft_applied_index for m in members if m.status), default=0)
    for status in choice.order:
        assert not status.is_learner
        assert foremost - status.raft_applied_index <= MAX_LAG


# On real clusters.


@pytest.fixture(scope="module", params=["3.5", "3.4"])
def cluster(request, tmp_path_factory):
    binary = needs.debian("etcd") if request.param == "3.4" else needs.binary("etcd")
    with EtcdCluster.start(tmp_path_factory.mktemp("etcd"), 3, binary=binary) as cluster:
        yield cluster


def test_a_real_cluster_gives_a_follower_a_learner_and_a_dead_member_are_left_out(cluster):
    leader = cluster.leader()
    with Etcd(cluster.access) as etcd:
        found = survey(etcd)
        assert found.notes == ()
        assert [m.name for m in found.members] == ["m1", "m2", "m3"]
        choice = choose(found.members)
    assert len(choice.order) == 3
    assert str(choice.order[-1].endpoint) == leader.endpoint
    learner = cluster.add(learner=True)
    dead = cluster.followers()[0]
    dead.kill()
    with Etcd(cluster.access) as etcd:
        choice = choose(survey(etcd).members)
    assert len(choice.order) == 2
    said = {str(o.member.endpoints[0]): o.reason for o in choice.opinions}
    assert said[learner.endpoint].startswith("only learns")
    assert "nobody listens" in said[dead.endpoint]
    assert said[leader.endpoint] == "leads"


def test_members_are_discovered_only_when_asked_for(tmp_path):
    with (
        EtcdCluster.start(tmp_path, 3) as cluster,
        Etcd(cluster.members[0].access) as etcd,
    ):
        assert len(survey(etcd).members) == 1
        assert len(survey(etcd, discover=True).members) == 3


def test_two_addresses_of_one_member_are_one_member(tmp_path):
    with Server.start(tmp_path) as server:
        second = parse_endpoint(f"https://localhost:{server.port}")
        access = replace(server.access, endpoints=(*server.access.endpoints, second))
        with Etcd(access) as etcd:
            (one,) = survey(etcd).members
    assert one.endpoints == access.endpoints


@pytest.mark.parametrize("release", ["3.5", "3.4"])
def test_a_full_member_is_seen_with_its_alarm(tmp_path, release):
    binary = needs.debian("etcd") if release == "3.4" else needs.binary("etcd")
    flags = ("--quota-backend-bytes", "65536")
    with Server.start(tmp_path, flags=flags, binary=binary) as server, Etcd(server.access) as etcd:
        with pytest.raises(EtcdError, match="space exceeded"):
            # etcd learns its own size when it commits, ten times a second.
            for number in range(5000):
                etcd.put(b"k%d" % number, b"x" * 10_000)
        choice = choose(survey(etcd).members)
        assert "has the alarm NOSPACE" in choice.warnings[0]
        assert len(choice.order) == 1


def test_alarms_are_known_without_a_leader(tmp_path):
    flags = ("--quota-backend-bytes", "65536")
    with EtcdCluster.start(tmp_path, 2, flags=flags) as cluster:
        access = cluster.members[0].access
        timeouts = replace(access.timeouts, command=1.0)
        with Etcd(replace(access, timeouts=timeouts)) as etcd:
            with pytest.raises(EtcdError, match="space exceeded"):
                for number in range(5000):
                    etcd.put(b"k%d" % number, b"x" * 10_000)
            cluster.members[1].kill()
            found = survey(etcd)
    (one,) = found.members
    assert one.alarms | one.elsewhere == {"NOSPACE"}
    assert "alarms are known from the members' own status alone" in found.notes[-1]
