"""Lines that runs leave: a failed run is seen, and forgets nothing."""

import fcntl
import os
import threading

from backstay import exposition
from backstay.flows.runfile import CHECKS, CODE, ENDED, FAMILIES, GOOD, Run, merged, write_run
from backstay.repo.measure import Verdicts

LABELS = ("backup etcd", "prod", "s3://a/b")


def run(ended, code=0, command="backup etcd", cluster="prod", **counts):
    return Run(
        command=command,
        cluster=cluster,
        repository="s3://a/b",
        ended=ended,
        seconds=2.5,
        code=code,
        verdicts=Verdicts(**counts),
    )


def value(samples, family, *labels):
    found = [one.value for one in samples if one.family == family and one.labels == labels]
    return found[0] if found else None


def test_a_failed_run_is_seen_and_keeps_when_one_last_went_well():
    good = merged((), run(1000.0, passed=4))
    assert value(good, GOOD, *LABELS) == 1000.0
    failed = merged(good, run(2000.0, code=1))
    assert value(failed, ENDED, *LABELS) == 2000.0
    assert value(failed, CODE, *LABELS) == 1
    assert value(failed, GOOD, *LABELS) == 1000.0
    assert value(failed, CHECKS, *LABELS, "pass") == 0
    again = merged(failed, run(3000.0, code=3, passed=3, failed=1))
    assert value(again, GOOD, *LABELS) == 1000.0
    assert value(again, CHECKS, *LABELS, "fail") == 1
    assert len(again) == len(good)


def test_what_never_went_well_says_nothing_of_when():
    assert value(merged((), run(1.0, code=1)), GOOD, *LABELS) is None


def test_the_lines_of_other_runs_stay():
    before = merged((), run(1.0, command="drill"))
    before = merged(before, run(2.0, cluster="other"))
    after = merged(before, run(3.0))
    assert value(after, ENDED, "drill", "prod", "s3://a/b") == 1.0
    assert value(after, ENDED, "backup etcd", "other", "s3://a/b") == 2.0
    assert value(after, ENDED, *LABELS) == 3.0


def test_many_runs_at_once_lose_nothing(tmp_path):
    path = tmp_path / "x.prom"
    clusters = [f"c{number}" for number in range(12)]
    threads = [
        threading.Thread(target=write_run, args=(path, run(1.0, cluster=name))) for name in clusters
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = exposition.read_textfile(path, FAMILIES)
    assert {one.labels[1] for one in found if one.family == ENDED} == set(clusters)


def test_who_holds_the_directory_for_ever_stops_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(exposition, "PATIENCE", 0.1)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        write_run(tmp_path / "x.prom", run(1.0))
    finally:
        os.close(fd)
    assert (tmp_path / "x.prom").is_file()
