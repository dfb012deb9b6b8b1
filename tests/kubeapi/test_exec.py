"""Commands in containers: real ones, and streams that are cut, stall and lie about the end."""

import json
import time

import pytest

from backstay.errors import KubeError, KubeForbiddenError, KubeNotFoundError, KubeStreamError
from backstay.kubeapi.exec import execute
from kit.kubestreams import Fault, Streams, serve


@pytest.fixture(scope="module")
def server():
    streams = Streams()
    streams.pod("ns", "p", env={"COLOUR": "blue"})
    with serve(streams) as server:
        yield server


def run(api, *command, pod="p", container="etcd", stdout=lambda _: None, **more):
    return execute(api, pod, "ns", container, command, stdout=stdout, **{"stall": 10.0, **more})


def test_output_errors_and_exit_code(api):
    out = []
    done = run(api, "sh", "-c", 'printf "%s" "$COLOUR"; echo oh >&2; exit 3', stdout=out.append)
    assert b"".join(out) == b"blue"
    assert (done.exit_code, done.stderr) == (3, b"oh\n")
    assert run(api, "true").exit_code == 0
    assert run(api, "no-such-program-anywhere").exit_code == 127


def test_arguments_come_as_they_are(api):
    words = ["a b", "", "ü&=?#+%", "two\nlines"]
    out = []
    run(api, "printf", r"%s\0", *words, stdout=out.append)
    assert b"".join(out).decode().split("\0")[:-1] == words


def test_much_output_comes_whole_and_errors_are_bounded(api):
    count = 0

    def take(data):
        nonlocal count
        count += len(data)

    script = "head -c 20000000 /dev/zero; head -c 1000000 /dev/zero >&2; echo end >&2"
    done = run(api, "sh", "-c", script, stdout=take, stderr_limit=1000)
    assert count == 20_000_000
    assert len(done.stderr) == 1000
    assert done.stderr.endswith(b"\0end\n")


BROKEN = {
    "cut": (Fault(cut_after=100_000), "was cut"),
    "cut at once": (Fault(cut_after=0), "was cut"),
    "stalls": (Fault(stall_after=100_000), "nothing came for 1 s"),
    "ends without a status": (Fault(end_after=100_000), "ended without a status"),
    "ends with an error": (Fault(end_after=100_000, close_code=1011), "code 1011"),
    "no status": (Fault(status=b""), "without a status"),
    "status is no JSON": (Fault(status=b"{oops"), "makes no sense"),
    "status is a list": (Fault(status=b"[]"), "makes no sense"),
    "status is deep": (Fault(status=b"[" * 60000), "makes no sense"),
    "status without end": (Fault(status=b"x" * 70000), "has no end"),
    "an exit code that is no number": (
        Fault(
            status=json.dumps(
                {
                    "status": "Failure",
                    "reason": "NonZeroExitCode",
                    "details": {"causes": [7, {"reason": "ExitCode", "message": "zero"}]},
                }
            ).encode()
        ),
        "exit code makes no sense",
    ),
    "an exit code of 0 that failed": (
        Fault(
            status=json.dumps(
                {
                    "status": "Failure",
                    "reason": "NonZeroExitCode",
                    "details": {"causes": [{"reason": "ExitCode", "message": "0"}]},
                }
            ).encode()
        ),
        "exit code makes no sense",
    ),
    "no details": (
        Fault(status=b'{"status":"Failure","reason":"NonZeroExitCode","details":7}'),
        "exit code makes no sense",
    ),
    "text": (Fault(text=True), "sends text"),
    "an empty message": (Fault(messages=(b"",)), "names no channel"),
    "a channel that there is not": (Fault(messages=(b"\x09x",)), "channel 9"),
    "no protocol": (Fault(protocol=False), "no protocol that we know"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_promise_4_a_command_whose_end_nobody_told_did_not_succeed(api, streams, name):
    streams.fault, words = BROKEN[name]
    with pytest.raises(KubeStreamError, match=words) as caught:
        run(api, "sh", "-c", "head -c 500000 /dev/zero; sleep 0.1", stall=1.0)
    assert "\n" not in str(caught.value)
    assert "ns/p" in str(caught.value)


def test_what_a_cut_command_had_said_is_told(api, streams):
    streams.fault = Fault(cut_after=100_000)
    with pytest.raises(KubeStreamError, match="it said: disk is on fire"):
        run(api, "sh", "-c", "echo 'disk is on fire' >&2; sleep 0.3; head -c 500000 /dev/zero")


def test_what_was_not_started_is_an_error_of_its_own(api, streams):
    with pytest.raises(KubeError, match="container other not found in pod p"):
        run(api, "true", container="other")
    with pytest.raises(KubeNotFoundError):
        run(api, "true", pod="missing")
    streams.fault = Fault(refuse=403)
    with pytest.raises(KubeForbiddenError):
        run(api, "true")
    streams.fault = Fault(status=b'{"status":"Failure"}')
    with pytest.raises(KubeError, match="no reason is given"):
        run(api, "true")


def test_what_the_taker_raises_ends_the_call(api):
    class FullError(Exception):
        pass

    def full(_):
        raise FullError

    with pytest.raises(FullError):
        run(api, "sh", "-c", "while :; do echo y || exit; done", stdout=full, lifeline=True)


def test_a_command_with_a_lifeline_sees_that_we_are_gone(api, streams, tmp_path):
    seen = tmp_path / "seen"
    streams.fault = Fault(cut_after=10)
    with pytest.raises(KubeStreamError):
        run(api, "sh", "-c", f"head -c 99 /dev/zero; cat; touch {seen}", lifeline=True)
    deadline = time.monotonic() + 20
    while not seen.exists():
        assert time.monotonic() < deadline, "its standard input did not end"
        time.sleep(0.02)
