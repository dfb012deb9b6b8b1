"""Textfiles of metrics: read back by the format's own parser and by promtool."""

import os
import stat
import subprocess
import threading

import pytest

from backstay.errors import BackstayError, FormatError, RefusedError
from backstay.exposition import Family, exposed, parsed, read_textfile, write_textfile
from kit import needs

SIZE = Family("backstay_size_bytes", "Bytes of a thing.", ("cluster", "repository"))
OTHER = Family("backstay_other", "Another.", ("cluster",))
ODD = 'a "quoted" \\ back\nslash {x="y"} ünïcode'


def test_what_is_written_is_read_back_whatever_the_labels_are():
    samples = (
        SIZE.of("prod", "s3://a/b", value=1234567890123),
        SIZE.of(ODD, "", value=0.25),
        OTHER.of("prod", value=-1),
    )
    assert parsed(exposed(samples), (SIZE, OTHER), "x") == samples


def test_promtool_takes_it():
    text = exposed([SIZE.of(ODD, "x", value=1), OTHER.of("prod", value=2)])
    done = subprocess.run(
        [needs.binary("promtool"), "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_each_metric_is_described_once_however_its_samples_come():
    text = exposed([SIZE.of("a", "x", value=1), OTHER.of("a", value=1), SIZE.of("b", "x", value=1)])
    lines = text.decode().splitlines()
    assert lines.count("# TYPE backstay_size_bytes gauge") == 1
    # All lines of a metric stand together: the format asks for it.
    assert [line.split("{")[0] for line in lines if line[0] != "#"] == [
        SIZE.name,
        SIZE.name,
        OTHER.name,
    ]


def test_a_textfile_is_replaced_whole_and_others_may_read_it(tmp_path):
    path = tmp_path / "backstay.prom"
    assert read_textfile(path, (SIZE,)) == ()
    before = os.umask(0o077)
    try:
        write_textfile(path, [SIZE.of("a", "x", value=1)])
        first = path.stat()
        write_textfile(path, [SIZE.of("a", "x", value=2)])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    # Another file under the same name: a reader that has the first one open keeps it.
    assert path.stat().st_ino != first.st_ino
    assert read_textfile(path, (SIZE,)) == (SIZE.of("a", "x", value=2),)
    assert os.listdir(tmp_path) == ["backstay.prom"]


def test_a_reader_never_sees_half_of_it(tmp_path):
    path, ended = tmp_path / "x.prom", threading.Event()
    samples = [SIZE.of(f"cluster-{number}", "x", value=number) for number in range(300)]
    write_textfile(path, samples)
    seen = set()

    def read():
        while not ended.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(20):
            write_textfile(path, samples)
    finally:
        ended.set()
        reader.join()
    assert seen == {exposed(samples)}


def test_what_can_not_be_written_leaves_what_was_there(tmp_path):
    path = tmp_path / "x.prom"
    write_textfile(path, [OTHER.of("a", value=1)])

    def breaks():
        yield OTHER.of("a", value=2)
        raise BackstayError("no more")

    with pytest.raises(BackstayError):
        write_textfile(path, breaks())
    assert read_textfile(path, (OTHER,)) == (OTHER.of("a", value=1),)
    with pytest.raises(BackstayError, match="No such file"):
        write_textfile(tmp_path / "nowhere" / "x.prom", [])


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe", b"backstay_x{a=", b'backstay_x{a="b} 1', b"backstay_x one", b"}{", b"x" * 100],
)
def test_what_is_no_textfile_is_an_error_and_is_not_replaced(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises((FormatError, RefusedError)):
        read_textfile(path, (SIZE,))


def test_metrics_of_others_are_not_thrown_away(tmp_path):
    path = tmp_path / "x.prom"
    path.write_text("node_load1 0.5\n")
    with pytest.raises(RefusedError, match="other metrics"):
        read_textfile(path, (SIZE,))


def test_metrics_that_a_later_version_has_are_passed_over(tmp_path):
    path = tmp_path / "x.prom"
    path.write_text('backstay_new 1\nbackstay_other{cluster="a",more="b"} 1\n')
    assert read_textfile(path, (OTHER,)) == ()
