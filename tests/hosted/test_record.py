"""The annotation that tells what was: written, read back, and never believed when it is damaged."""

import datetime as dt
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import FormatError, KubeError
from backstay.kinds.hosted.quiescing.record import (
    ANNOTATION,
    MAX_SIZE,
    Record,
    decode,
    encode,
    paused_until,
    pausing,
    read_time,
    recorded,
    restoring,
    scaling,
    stamp,
)

NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
RECORD = Record(
    run="3f9a",
    by="bastion",
    since=NOON,
    until=NOON + dt.timedelta(minutes=30),
    own="2099-01-01T00:00:00Z",
    writers=(("kube-apiserver", 3), ("openshift-apiserver", 2)),
    available=True,
)
moments = st.integers(10**8, 10**10).map(lambda seconds: dt.datetime.fromtimestamp(seconds, dt.UTC))
words = st.from_regex(r"\A[ -~]{1,60}\Z")


def document(record=None, **spec):
    annotations = {"example.com/mine": "x"} | ({ANNOTATION: encode(record)} if record else {})
    metadata = {"name": "blue", "resourceVersion": "7", "annotations": annotations}
    return {"kind": "HostedCluster", "metadata": metadata, "spec": spec}


@given(
    st.builds(
        Record,
        run=words,
        by=words,
        since=moments,
        until=moments,
        own=st.none() | words,
        writers=st.dictionaries(
            st.from_regex(r"\A[a-z]([a-z-]{0,20}[a-z])?\Z"), st.integers(0, 1000), max_size=4
        ).map(lambda found: tuple(found.items())),
        available=st.just(False),
    )
)
def test_what_is_written_is_read_back(record):
    assert decode(encode(record)) == record


def test_what_it_looks_like():
    assert json.loads(encode(RECORD)) == {
        "format": 1,
        "run": "3f9a",
        "by": "bastion",
        "since": "2026-11-21T12:00:00Z",
        "until": "2026-11-21T12:30:00Z",
        "pausedUntil": "2099-01-01T00:00:00Z",
        "replicas": {"kube-apiserver": 3, "openshift-apiserver": 2},
        "available": True,
    }
    assert decode(encode(RECORD)) == RECORD


def changed(**fields):
    return json.dumps({**json.loads(encode(RECORD)), **fields})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"text"',
        "[" * 3000,
        "x" * (MAX_SIZE + 1),
        changed(format=2),
        changed(format=True),
        changed(format="1"),
        changed(run=""),
        changed(run=7),
        changed(run="a\nb"),
        changed(by=None),
        changed(by="x" * 200),
        changed(since="yesterday"),
        changed(until="2026-11-21T12:30:00"),
        changed(until="2026-02-30T12:30:00Z"),
        changed(pausedUntil=7),
        changed(pausedUntil=""),
        changed(pausedUntil="x" * 300),
        changed(replicas=[]),
        changed(replicas={"kube-apiserver": -1}),
        changed(replicas={"kube-apiserver": True}),
        changed(replicas={"kube-apiserver": 10**9}),
        changed(replicas={"kube-apiserver": "3"}),
        changed(replicas={"../secrets": 3}),
        changed(replicas={f"w{n}": 1 for n in range(99)}),
        # A record that has lost what was must not be taken for "there was no pause".
        json.dumps({k: v for k, v in json.loads(encode(RECORD)).items() if k != "pausedUntil"}),
    ],
)
def test_a_damaged_record_is_no_record(text):
    with pytest.raises(FormatError):
        decode(text)


@given(st.text(max_size=300))
def test_any_text_is_a_record_or_a_format_error(text):
    with pytest.raises(FormatError):
        decode(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda each: st.lists(each, max_size=3)
                    | st.dictionaries(st.sampled_from(["format", "run", "metadata", "spec",
                                                       "annotations", ANNOTATION, "pausedUntil"]),
                                      each, max_size=5)))  # fmt: skip
def test_objects_of_any_shape_raise_nothing_else(found):
    for read in (recorded, paused_until):
        try:
            read(found)
        except (FormatError, KubeError):
            continue


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("2026-01-01T00:00:00Z", True),
        ("2026-01-01T00:00:00.123456789Z", True),
        ("2026-01-01T00:00:00+02:00", True),
        ("2026-01-01T00:00:00", False),
        ("2026-01-01 00:00:00Z", False),
        ("2026-13-01T00:00:00Z", False),
        ("0001-01-01T00:00:00+23:59", False),
        ("٢٠٢٦-01-01T00:00:00Z", False),
        ("true", False),
    ],
)
def test_times_are_read_as_go_reads_them(text, good):
    assert (read_time(text) is not None) is good


def test_a_time_with_an_offset_is_written_in_utc():
    assert stamp(read_time("2026-01-01T01:00:00+02:00")) == "2025-12-31T23:00:00Z"


def test_one_patch_records_and_pauses_that_very_version():
    patch = pausing(document(), RECORD, "2026-11-21T12:30:00Z")
    assert patch["metadata"]["resourceVersion"] == "7"
    assert decode(patch["metadata"]["annotations"][ANNOTATION]) == RECORD
    assert patch["spec"] == {"pausedUntil": "2026-11-21T12:30:00Z"}
    assert set(patch) == {"metadata", "spec"}


def test_one_patch_puts_back_and_takes_the_record_away():
    ours = document(RECORD, pausedUntil="2026-11-21T12:30:00Z")
    assert restoring(ours, RECORD) == {
        "metadata": {"resourceVersion": "7", "annotations": {ANNOTATION: None}},
        "spec": {"pausedUntil": "2099-01-01T00:00:00Z"},
    }
    never = replace(RECORD, own=None)
    assert restoring(ours, never)["spec"] == {"pausedUntil": None}
    assert "annotations" not in restoring(ours, never, keep_record=True)["metadata"]


def test_a_pause_that_someone_else_has_set_stays():
    for theirs in ({"pausedUntil": "true"}, {"pausedUntil": RECORD.own}, {}):
        assert "spec" not in restoring(document(RECORD, **theirs), RECORD)


def test_no_patch_without_a_version():
    blank = document()
    del blank["metadata"]["resourceVersion"]
    for make in (
        lambda: pausing(blank, RECORD, "true"),
        lambda: restoring(blank, RECORD),
        lambda: scaling(blank, 0),
    ):
        with pytest.raises(KubeError, match="resourceVersion"):
            make()
