"""Two files that appear at once, or not at all, whatever kills the program."""

import os
from datetime import UTC, datetime, timedelta, timezone

import pytest

from backstay.errors import AlreadyExistsError, BackstayError, RefusedError
from backstay.kinds.okd import pair
from backstay.kinds.okd.pair import PairNames, new_pair, settle
from backstay.report import Report, Said

MOMENT = datetime(2021, 6, 25, 19, 0, 35, tzinfo=UTC)
NAMES = PairNames.of(MOMENT, dirty=False)


def write(directory, names=NAMES, content="new"):
    with new_pair(directory, names, Report()) as folder:
        for name in names.both:
            (folder / name).write_text(f"{content} {name}")


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


def test_the_names_are_upstreams():
    assert NAMES.snapshot == "snapshot_2021-06-25_190035.db"
    assert NAMES.archive == "static_kuberesources_2021-06-25_190035.tar.gz"
    dirty = PairNames.of(MOMENT.astimezone(timezone(timedelta(hours=5))), dirty=True)
    assert dirty.snapshot == "snapshot_2021-06-25_190035__POSSIBLY_DIRTY__.db"
    assert dirty.archive == "static_kuberesources_2021-06-25_190035__POSSIBLY_DIRTY__.tar.gz"


def test_both_files_are_left_and_nothing_else(tmp_path):
    directory = tmp_path / "a/b"
    write(directory)
    assert names_in(directory) == sorted(NAMES.both)
    for name in NAMES.both:
        assert not (directory / name).is_symlink()
        assert (directory / name).read_text() == f"new {name}"
    assert directory.stat().st_mode & 0o777 == 0o700


def test_nothing_is_left_when_the_block_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), new_pair(tmp_path, NAMES, Report()) as folder:
        (folder / NAMES.snapshot).write_text("half")
        assert [path.name for path in tmp_path.iterdir()] == [folder.name]
        _ = 1 / 0
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("kind", ["file", "dead link", "directory"])
def test_promise_6_what_stood_there_stays(tmp_path, which, kind):
    path = tmp_path / NAMES.both[which]
    if kind == "file":
        path.write_text("old")
    elif kind == "dead link":
        path.symlink_to("nowhere")
    else:
        path.mkdir()
    with pytest.raises(AlreadyExistsError, match=NAMES.both[which]):
        write(tmp_path)
    assert names_in(tmp_path) == [NAMES.both[which]]


@pytest.mark.parametrize("which", [0, 1])
def test_promise_6_what_came_meanwhile_stays(tmp_path, which):
    path = tmp_path / NAMES.both[which]
    with (
        pytest.raises(AlreadyExistsError, match="nothing was overwritten"),
        new_pair(tmp_path, NAMES, Report()) as folder,
    ):
        for name in NAMES.both:
            (folder / name).write_text("new")
        path.write_text("old")
    assert names_in(tmp_path) == [NAMES.both[which]]
    assert path.read_text() == "old"


def test_a_second_run_is_refused_and_disturbs_nothing(tmp_path):
    later = PairNames.of(MOMENT + timedelta(seconds=1), dirty=False)
    with new_pair(tmp_path, NAMES, Report()) as folder:
        for name in NAMES.both:
            (folder / name).write_text("new")
        with pytest.raises(RefusedError, match="another backup is being written to"):
            write(tmp_path, later)
        assert sorted(os.listdir(folder)) == sorted(NAMES.both)
    write(tmp_path, later)
    assert names_in(tmp_path) == sorted((*NAMES.both, *later.both))


class DeadError(BaseException):
    """As a kill: nothing is cleaned up after it."""


def die(tmp_path, monkeypatch, at):
    """Let all that is done end at the call of that number, as a kill ends it; gives what it was."""
    done = []

    def counted(name, real):
        def call(*arguments, **more):
            done.append(name)
            if len(done) == at:
                raise DeadError
            return real(*arguments, **more)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(pair, "_drop", lambda *_: None)
        patch.setattr(pair, "sync_directory", counted("sync", pair.sync_directory))
        for name in ("symlink_to", "rename", "unlink", "rmdir", "mkdir"):
            patch.setattr(pair.Path, name, counted(name, getattr(pair.Path, name)))
        try:
            write(tmp_path)
        except DeadError:
            return done
    return None


def seen(directory):
    """Which of the two can be read, whole, under its name."""
    return [
        name
        for name in NAMES.both
        if (directory / name).is_file() and (directory / name).read_text() == f"new {name}"
    ]


def test_promise_1_at_no_step_is_one_seen_without_the_other(tmp_path, monkeypatch):
    stages = []
    for at in range(1, 100):
        directory = tmp_path / str(at)
        directory.mkdir()
        (directory / "snapshot_old.db").write_text("old")
        died = die(directory, monkeypatch, at)
        stages.append(len(seen(directory)))
        assert stages[-1] in {0, 2}, died
        said = []
        settle(directory, Report(said.append))
        # What was published is brought to its end, and of what was not nothing stays.
        whole = list(NAMES.both) if stages[-1] else []
        assert names_in(directory) == sorted(["snapshot_old.db", *whole])
        assert seen(directory) == whole
        assert not any(path.is_symlink() for path in directory.iterdir())
        settle(directory, Report(said.append))
        assert len([event for event in said if isinstance(event, Said)]) <= 1
        if died is None:
            break
    assert stages.count(0) >= 5
    assert stages.count(2) >= 4
    assert stages == sorted(stages)


def test_what_a_killed_run_left_is_settled_by_the_next(tmp_path, monkeypatch):
    die(tmp_path, monkeypatch, 4)
    assert any(path.is_symlink() for path in tmp_path.iterdir())
    later = PairNames.of(MOMENT + timedelta(seconds=1), dirty=False)
    write(tmp_path, later)
    assert names_in(tmp_path) == sorted(later.both)
    # The same name can be used again.
    write(tmp_path)
    assert names_in(tmp_path) == sorted((*NAMES.both, *later.both))


def test_without_locks_only_what_is_old_is_settled(tmp_path, monkeypatch):
    def without(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(pair.fcntl, "flock", without)
    part = tmp_path / ".backstay-pair-01234567.part"
    part.mkdir()
    (part / NAMES.snapshot).write_text("half")
    (tmp_path / NAMES.snapshot).symlink_to(f".backstay-pair-01234567/{NAMES.snapshot}")
    later = PairNames.of(MOMENT + timedelta(seconds=1), dirty=False)
    write(tmp_path, later)
    assert part.is_dir()
    assert (tmp_path / NAMES.snapshot).is_symlink()
    then = part.stat().st_mtime - 25 * 3600
    os.utime(part, (then, then))
    write(tmp_path)
    assert names_in(tmp_path) == sorted((*NAMES.both, *later.both))


def test_a_name_that_somebody_deleted_after_it_was_published_stays_deleted(tmp_path):
    whole = tmp_path / ".backstay-pair-01234567"
    whole.mkdir()
    for name in NAMES.both:
        (whole / name).write_text("new")
    (tmp_path / NAMES.archive).write_text("of somebody")
    settle(tmp_path, Report())
    assert (tmp_path / NAMES.archive).read_text() == "of somebody"
    assert not (tmp_path / NAMES.snapshot).exists()


def test_what_only_looks_like_ours_is_left_alone(tmp_path):
    (tmp_path / ".backstay-pair-file").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".backstay-pair-link.part").symlink_to("elsewhere")
    (tmp_path / NAMES.snapshot).symlink_to("elsewhere/x")
    before = names_in(tmp_path)
    settle(tmp_path, Report())
    assert names_in(tmp_path) == before


def test_a_directory_that_has_no_links_is_told(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(pair.Path, "symlink_to", refuse)
    with pytest.raises(BackstayError, match="no symbolic links") as caught:
        write(tmp_path)
    assert "another filesystem" in caught.value.do
    assert names_in(tmp_path) == []


def test_a_file_in_the_directorys_place_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file/below", tmp_path / ("x" * 300)):
        with pytest.raises(BackstayError) as caught:
            write(path)
        assert "file" in str(caught.value) or "xxx" in str(caught.value)
