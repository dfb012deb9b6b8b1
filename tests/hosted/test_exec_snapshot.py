"""Snapshots by exec: our scripts with a real etcdctl against real etcds, cut at every place."""

import hashlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from backstay.client.etcd import Etcd
from backstay.errors import BackstayError, EtcdError, KubeForbiddenError, SpaceError, StreamError
from backstay.kinds.hosted.reach import exec_snapshot, pod_script
from backstay.kinds.hosted.reach.pod_script import PodPaths, parse_look
from backstay.report import Advanced, Finished, Report, Said, Started
from kit import needs
from kit.etcd import EtcdCluster
from kit.hosted import hosted_tls, start_etcd
from kit.kubestreams import Fault
from kit.pods import NAMESPACE, container, within_reach
from kit.sink import Memory

SIZE = 4_000_000
SHELLS = {"sh": "/bin/sh", "bash": "/bin/bash"}


def fill(access, size=SIZE):
    with Etcd(access) as client:
        for number in range(size // 500_000):
            client.put(b"k%d" % number, os.urandom(500_000))


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with start_etcd(tmp_path_factory.mktemp("etcd"), hosted_tls()) as etcd:
        fill(etcd.access)
        yield etcd


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with EtcdCluster.start(tmp_path_factory.mktemp("etcd"), 3) as cluster:
        fill(cluster.access)
        yield cluster


def left(folder):
    return sorted(path.name for path in (folder / "lib").iterdir())


def eventually(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def assert_stock(path, sink, received):
    data = bytes(sink.data)
    path.write_bytes(data)
    assert received.size == len(data)
    assert received.sha256 == hashlib.sha256(data).hexdigest()
    assert received.db_sha256 == hashlib.sha256(data[:-32]).hexdigest() == data[-32:].hex()
    command = [needs.binary("etcdutl"), "snapshot", "restore", path]
    subprocess.run(
        [*command, "--data-dir", path.with_suffix(".dir")], capture_output=True, check=True
    )


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("old_path", [False, True])
def test_a_snapshot_is_what_etcd_has_and_nothing_stays(etcd, tmp_path, shell, old_path):
    pod = container(tmp_path, etcd, shell=SHELLS[shell], old_path=old_path)
    events, sink = [], Memory()
    with within_reach(pod) as (source, streams):
        assert source.choose(Report()) > SIZE
        received = source.fetch(sink, Report(events.append))
        assert left(tmp_path) == []
        eventually(lambda: streams.commands_running == 0, 5)
    assert_stock(tmp_path / "snapshot.db", sink, received)
    with Etcd(etcd.access) as client:
        told = client.status(client.endpoints[0])
    assert received.source.header.cluster_id == told.header.cluster_id
    assert received.source.header.revision == told.header.revision
    assert received.source.raft_index <= told.raft_index
    assert received.source.version == told.version
    assert (received.attempts, sink.resets, source.kind) == (1, 0, "hosted")
    started = next(e for e in events if isinstance(e, Started))
    assert started.total == received.size
    assert sum(e.amount for e in events if isinstance(e, Advanced)) == received.size
    assert events[-1] == Finished(started.task, ok=True)


def test_an_old_etcdctl_knows_the_commands_too(etcd, tmp_path):
    pod = container(tmp_path, etcd, etcdctl=needs.debian("etcdctl"))
    sink = Memory()
    with within_reach(pod) as (source, _):
        source.choose(Report())
        assert_stock(tmp_path / "snapshot.db", sink, source.fetch(sink, Report()))


def test_every_member_is_looked_at_and_a_follower_is_taken(cluster, tmp_path):
    pods = []
    for number, member in enumerate(cluster.members):
        folder = tmp_path / str(number)
        folder.mkdir()
        pods.append(container(folder, member))
    leader = cluster.members.index(cluster.leader())
    said, sink = [], Memory()
    with within_reach(*pods) as (source, streams):
        source.choose(Report(said.append))
        assert sorted(pod for _, _, pod, _ in streams.opened) == ["etcd-0", "etcd-1", "etcd-2"]
        received = source.fetch(sink, Report())
        taken = int(streams.opened[-1][2].rpartition("-")[2])
    assert taken != leader
    assert not received.source.is_leader
    texts = [event.text for event in said]
    assert sum("fit, follows" in text for text in texts) == 2
    assert any(f"etcd-{leader} " in text and "fit, leads" in text for text in texts)


def test_a_pod_that_is_gone_does_not_stop_the_others(cluster, tmp_path):
    pods = []
    for number, member in enumerate(cluster.members):
        (tmp_path / str(number)).mkdir()
        pods.append(container(tmp_path / str(number), member))
    pods[1] |= {"/usr/bin/etcdctl": "/no/such/program"}
    pods[2] |= {"https://localhost:2379": "https://localhost:1"}
    said, sink = [], Memory()
    with within_reach(*pods) as (source, _):
        source.choose(Report(said.append))
        source.fetch(sink, Report())
    texts = " / ".join(event.text for event in said)
    assert "etcd-1 (https://etcd-1.etcd-discovery.clusters-blue.svc:2379): not asked" in texts
    assert "can't be reached" in texts
    assert len(sink.data) > SIZE


def test_none_is_fit(etcd, tmp_path):
    no_ca = container(tmp_path, etcd)
    no_ca[PodPaths().authorities[0]] = "/not/there"
    no_member = pytest.raises(EtcdError, match=r"no member is fit.*no CA at")
    with within_reach(no_ca) as (source, _), no_member:
        source.choose(Report())
    with within_reach() as (source, _), pytest.raises(EtcdError, match="has no pods"):
        source.choose(Report())
    with within_reach(container(tmp_path, etcd)) as (source, streams):
        streams.fault = Fault(refuse=403)
        with pytest.raises(KubeForbiddenError):
            source.choose(Report())


def small_disk(tmp_path, free):
    """A `df` in the container that tells of little room."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "df").write_text(f"#!/bin/sh\necho head\necho /dev/x 100 50 {free} 50% /var/lib\n")
    (folder / "df").chmod(0o755)
    return {"$(df ": f"$({folder}/df "}


def test_room_is_looked_at_first(etcd, tmp_path):
    pod = container(tmp_path, etcd) | small_disk(tmp_path, 40_000)
    (tmp_path / "lib" / "backstay-old.db").touch()
    with within_reach(pod) as (source, streams):
        with pytest.raises(SpaceError, match=r"40960000 bytes free .*left-overs: backstay-old"):
            source.choose(Report())
        assert len(streams.opened) == 1
    unknown = container(tmp_path, etcd) | small_disk(tmp_path, "?")
    no_room = pytest.raises(SpaceError, match="an unknown number of bytes")
    with within_reach(unknown) as (source, _), no_room:
        source.choose(Report())


def test_a_member_with_room_is_taken_instead(cluster, tmp_path):
    pods = []
    for number, member in enumerate(cluster.members):
        (tmp_path / str(number)).mkdir()
        pods.append(container(tmp_path / str(number), member))
        if number:
            pods[-1] |= small_disk(tmp_path / str(number), 1)
    said, sink = [], Memory()
    with within_reach(*pods) as (source, streams):
        source.choose(Report(said.append))
        source.fetch(sink, Report())
        assert streams.opened[-1][2] == "etcd-0"
    assert sum("are needed: not asked" in e.text for e in said if e.warning) == 2


BROKEN = {
    "cut": (Fault(cut_after=2_000_000), "was cut"),
    "cut in the first line": (Fault(cut_after=20), "was cut"),
    "stalls": (Fault(stall_after=2_000_000), "nothing came for 1.5 s"),
    "ends early": (Fault(end_after=2_000_000), "without a status"),
    "ends early, and says that all went well": (
        Fault(end_after=2_000_000, status=b'{"status":"Success"}'),
        "without a status|ended after",
    ),
    "one bit": (Fault(flip_at=2_000_001), "does not match the SHA-256 at its end"),
    "fails at the end": (
        Fault(
            status=b'{"status":"Failure","reason":"NonZeroExitCode","details":'
            b'{"causes":[{"reason":"ExitCode","message":"1"}]}}'
        ),
        "failed: ",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_promise_1_a_broken_stream_is_no_snapshot_and_is_taken_again(etcd, tmp_path, name):
    fault, words = BROKEN[name]
    said, sink = [], Memory()
    with within_reach(container(tmp_path, etcd), stall=1.5) as (source, streams):
        source.choose(Report())
        first = len(streams.opened) + 1
        streams.fault = lambda kind, pod, number: fault if number == first else None
        received = source.fetch(sink, Report(said.append))
        assert received.attempts == 2
        assert_stock(tmp_path / "snapshot.db", sink, received)
        warnings = [e.text for e in said if isinstance(e, Said) and e.warning]
        assert len(warnings) == 1
        assert sink.resets == 1
        streams.fault = fault
        with pytest.raises(StreamError, match=f"no snapshot after 2 tries: .*({words})") as caught:
            source.fetch(Memory(), Report())
        assert "\n" not in str(caught.value)
        # However it ended, the pod comes to rest, and nothing of ours is in it.
        eventually(lambda: streams.commands_running == 0)
        assert left(tmp_path) == []


def slow_etcdctl(tmp_path, script):
    """An etcdctl that does something of its own when it is to save."""
    path = tmp_path / "etcdctl"
    path.write_text(f"""#!/bin/sh
for file; do :; done
case "$*" in *"snapshot save"*) {script} ;; esac
exec {needs.binary("etcdctl")} "$@"
""")
    path.chmod(0o755)
    return path


def test_we_die_while_etcdctl_saves(etcd, tmp_path):
    """Nobody listens any more: the script sees it at its standard input, and clears up."""
    slow = slow_etcdctl(tmp_path, 'echo half >"$file.part"; exec sleep 60')
    pod = container(tmp_path, etcd, etcdctl=slow)
    with within_reach(pod, stall=1.0) as (source, streams):
        source.choose(Report())
        with pytest.raises(StreamError, match="nothing came for 1 s"):
            source.fetch(Memory(), Report())
        eventually(lambda: streams.commands_running == 0)
        assert left(tmp_path) == []
    assert not running(slow)


def running(program):
    found = subprocess.run(["pgrep", "-f", str(program)], capture_output=True, check=False)
    return found.returncode == 0


def test_a_save_that_takes_long_but_goes_on_is_waited_for(etcd, tmp_path):
    """Silence while the file grows is none: a heartbeat goes to standard error."""
    grow = 'for n in 1 2 3 4 5; do echo more >>"$file.part"; sleep 0.5; done; rm "$file.part"'
    pod = container(tmp_path, etcd, etcdctl=slow_etcdctl(tmp_path, grow))
    sink = Memory()
    with within_reach(pod, stall=2.2) as (source, _):
        source.choose(Report())
        assert source.fetch(sink, Report()).attempts == 1


def test_what_etcdctl_says_explains_the_failure(etcd, tmp_path):
    fails = 'echo "Error: disk\x07 of\\nmember is broken" >&2; exit 5'
    pod = container(tmp_path, etcd, etcdctl=slow_etcdctl(tmp_path, fails))
    with within_reach(pod) as (source, _):
        source.choose(Report())
        with pytest.raises(StreamError, match=r"Error: disk of.*is broken") as caught:
            source.fetch(Memory(), Report())
    assert "\x07" not in str(caught.value)


def test_promise_3_what_a_killed_run_left_is_swept_and_a_living_run_is_not(etcd, tmp_path):
    slow = slow_etcdctl(tmp_path, 'echo half >"$file.part"; [ -e "$0.hold" ] && exec sleep 60')
    (tmp_path / "etcdctl.hold").touch()
    library = tmp_path / "lib"
    with within_reach(container(tmp_path, etcd, etcdctl=slow), stall=2.0) as (source, _):
        source.choose(Report())

        def attempt():
            with pytest.raises(BackstayError):
                source.fetch(Memory(), Report())

        dying = threading.Thread(target=attempt)
        dying.start()
        eventually(lambda: left(tmp_path))
        (name,) = left(tmp_path)
        shell = int(name.split("-")[1])
        # Killed while etcdctl saves: no trap runs, the name stays until the next run.
        os.kill(shell, signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{shell}").exists())
        assert name in left(tmp_path)
        dying.join()
        assert name not in left(tmp_path)
        eventually(lambda: left(tmp_path) == [])

        living = subprocess.Popen(
            ["/bin/sh", "-c", f"{pod_script.MARK}\nread l"], stdin=subprocess.PIPE
        )
        try:
            kept = library / f"backstay-{living.pid}-beef.db.part"
            foreign = library / "backstay-notes.db"
            reused = library / f"backstay-{os.getpid()}-dead.db"
            gone = library / f"backstay-{shell}-dead.db"
            for path in (kept, foreign, reused, gone):
                path.touch()
            (tmp_path / "etcdctl.hold").unlink()
            source.fetch(Memory(), Report())
            assert left(tmp_path) == sorted([kept.name, foreign.name])
        finally:
            living.communicate()
        source.fetch(Memory(), Report())
        assert left(tmp_path) == [foreign.name]


def test_the_file_is_nameless_while_it_is_streamed(etcd, tmp_path):
    seen = []

    class Looking(Memory):
        def write(self, data):
            seen.append(left(tmp_path))
            super().write(data)

    with within_reach(container(tmp_path, etcd)) as (source, _):
        source.choose(Report())
        source.fetch(Looking(), Report())
    assert len(seen) > 2
    assert not any(seen)


def test_what_the_sink_raises_ends_it_and_the_pod_is_clean(etcd, tmp_path):
    class Full(Memory):
        def write(self, data):
            raise SpaceError("the disk is full")

    with within_reach(container(tmp_path, etcd)) as (source, streams):
        source.choose(Report())
        with pytest.raises(SpaceError, match="the disk is full"):
            source.fetch(Full(), Report())
        eventually(lambda: streams.commands_running == 0)
        assert left(tmp_path) == []


LIES = {
    "another member": (rb'[{"Status":{"header":{"member_id":7}}}]', b"9000", "another member"),
    "no JSON": (b"oops", b"9000", "form that is not known"),
    "a list in a list": (b"[[]]", b"9000", "form that is not known"),
    "a number that is none": (
        b'[{"Status":{"header":{"member_id":"x"}}}]',
        b"9000",
        "a member_id that is no number",
    ),
    "a negative number": (
        b'[{"Status":{"header":{"member_id":-1}}}]',
        b"9000",
        "a member_id that is no number",
    ),
    "no size": (None, b"", "comes without its size"),
    "a size in words": (None, b"many", "comes without its size"),
    "a size of nothing": (None, b"32", "has just 32 bytes"),
    "the moon": (None, b"9" * 15, "more than the .* allowed"),
    "less than it has": (None, b"40", "has more than the 40 bytes"),
    "more than it has": (None, b"90000", "ended after 1000 of 90000"),
    "no trailer": (None, b"1000", "does not match the SHA-256"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_pod_that_lies(etcd, tmp_path, name):
    status, size, words = LIES[name]
    with within_reach(container(tmp_path, etcd)) as (source, streams):
        source.choose(Report())
        if status is None:
            (chosen,) = source._choice.order
            status = b'[{"Status":{"header":{"member_id":%d}}}]' % chosen.header.member_id
        (tmp_path / "lie").write_bytes(status + b"\n" + size + b"\n" + b"x" * 1000)
        pod = {pod_script.MARK: f"cat {tmp_path}/lie; exit 0\n{pod_script.MARK}"}
        streams.pod(NAMESPACE, "etcd-0", rewrite=pod)
        with pytest.raises(StreamError, match=words):
            source.fetch(Memory(), Report())


def test_a_first_line_without_end(etcd, tmp_path):
    with within_reach(container(tmp_path, etcd)) as (source, streams):
        source.choose(Report())
        pod = {pod_script.MARK: "head -c 3000000 /dev/zero; exit 0\n: x"}
        streams.pod(NAMESPACE, "etcd-0", rewrite=pod)
        with pytest.raises(StreamError, match="begins with something else"):
            source.fetch(Memory(), Report())


def test_a_snapshot_larger_than_allowed(etcd, tmp_path):
    with within_reach(container(tmp_path, etcd), max_size=1000) as (source, _):
        source.choose(Report())
        with pytest.raises(StreamError, match="more than the 1000 allowed"):
            source.fetch(Memory(), Report())


@pytest.mark.parametrize(
    "output",
    [b"", b"\xff\xfe", b"free\n", b"free -1\nstatus", b"free " + b"9" * 99, b"alarms memberID:x"],
)
def test_whatever_a_pod_prints_is_read(output):
    looked = parse_look(output)
    assert looked.free is None
    assert looked.alarms == ()


def test_what_a_pod_prints_is_read():
    looked = parse_look(
        b"free 12\nleft backstay-1-a.db\nalarms memberID:7 alarm:NOSPACE \nstatus [1, 2]\n"
    )
    assert looked.free == 12288
    assert looked.left == ("backstay-1-a.db",)
    assert looked.alarms == ((7, "NOSPACE"),)
    assert looked.status == "[1, 2]"


def test_alarms_are_told(etcd, tmp_path):
    with Etcd(etcd.access) as client:
        member = client.status(client.endpoints[0]).header.member_id
    program = tmp_path / "ctl"
    program.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *"alarm list"*) echo memberID:{member} alarm:CORRUPT; exit;; esac\n'
        f'exec {needs.binary("etcdctl")} "$@"\n'
    )
    program.chmod(0o755)
    unfit = pytest.raises(EtcdError, match="has the alarm CORRUPT")
    with within_reach(container(tmp_path, etcd, etcdctl=program)) as (source, _), unfit:
        source.choose(Report())


def test_the_scripts_fit_into_a_url_and_hold_no_secret():
    from urllib.parse import quote

    for script in (pod_script.look(PodPaths()), pod_script.save(PodPaths(), "0" * 8)):
        assert len(quote(script)) < 6000
        assert script.startswith(pod_script.MARK + "\n")
    assert exec_snapshot.CONTAINER == "etcd"
