"""Full disks, one after the other: the spool's, the repository's, and that of what is restored."""

import os

import pytest

from backstay.errors import SpaceError
from backstay.flows.spool import MARGIN, Spool
from backstay.repo.catalogue import Repository
from backstay.repo.stores.file import FileStore
from backstay.report import Started, Verdict
from kit import disk
from kit.cli import Cli
from kit.disk import PAGE


def test_a_spool_that_is_too_small_is_found_before_anything_comes(bench, client, tmp_path):
    with disk.small(tmp_path / "small", MARGIN) as bench.spool:
        with pytest.raises(SpaceError, match="--spool-dir") as caught:
            bench.back_up_by(client)
        assert str(bench.spool) in caught.value.what
    assert caught.value.exit_code == 1
    assert bench.objects == bench.listed == []


def test_a_spool_that_fills_up_meanwhile_ends_the_backup(bench, client, tmp_path):
    with disk.small(tmp_path / "small", MARGIN + (8 << 20)) as bench.spool:

        def fill_it(event):
            if isinstance(event, Started) and event.name.startswith("snapshot from"):
                disk.fill(bench.spool, leave=5 * PAGE)

        with pytest.raises(SpaceError, match="--spool-dir"):
            bench.back_up_by(client, None, fill_it)
        (bench.spool / "ballast").unlink()
        bench.assert_no_spool()
    assert bench.objects == bench.listed == []


def test_a_full_spool_tells_how_far_it_came(tmp_path):
    with (
        disk.small(tmp_path / "small", 10 * PAGE) as folder,
        Spool(folder) as spool,
        pytest.raises(SpaceError, match=f"after {4 * PAGE} bytes .*--spool-dir"),
    ):
        for _ in range(20):
            spool.write(b"x" * 2 * PAGE)
            spool.write(b"x" * 2 * PAGE)
            disk.fill(folder)


def test_promise_1_whatever_fits_on_the_repositorys_disk_what_is_listed_is_whole(
    bench, client, tmp_path
):
    with disk.small(tmp_path / "small", 1 << 20) as folder:
        bench.store = FileStore(folder / "repo")
        bench.repository = Repository.init(bench.store, bench.repository.config)
        left_over = 0
        for pages in (0, 5, 20, *range(30, 90)):
            outcome = with_room_for(bench, client, folder, pages * PAGE)
            if not isinstance(outcome, SpaceError):
                break
            assert outcome.exit_code == 1
            assert "in the repository's disk" in outcome.do
            assert bench.listed == []
            left_over = max(left_over, len(bench.objects))
        # There was a moment when the object had room, and the manifest had not.
        assert left_over == 1
        assert [entry.manifest for entry in bench.listed] == [outcome]
        assert set(bench.prove(bench.listed[0]).values()) == {Verdict.PASS}


def with_room_for(bench, client, folder, size):
    ballast = disk.fill(folder, leave=size)
    try:
        return bench.back_up_by(client)
    except SpaceError as error:
        return error
    finally:
        ballast.unlink()
        bench.assert_no_spool()
        assert not [p for p in bench.files if p.name.startswith(".")]


@pytest.fixture
def program(bench, client, tmp_path, etcd):
    """The command line, with a backup to restore."""
    bench.back_up_by(client)
    home = tmp_path / "home"
    home.mkdir()
    (home / "identity.txt").write_text(bench.identity)
    return Cli(
        home,
        {
            "BACKSTAY_REPO": bench.store.url,
            "BACKSTAY_IDENTITY": str(home / "identity.txt"),
            "BACKSTAY_SPOOL_DIR": str(bench.spool),
        },
    )


@pytest.mark.parametrize("size", [20 * PAGE, 1 << 20, 120 << 20])
@pytest.mark.parametrize("name", ["data", "."])
def test_promise_6_nothing_half_made_stays_on_a_full_disk(program, tmp_path, size, name):
    with disk.small(tmp_path / "small", size) as folder:
        done = program("restore", "etcd", "prod/latest", "--data-dir", folder / name, expect=1)
        assert "are needed" in done.err
        assert "--data-dir" in done.err
        assert os.listdir(folder) == []


def test_promise_6_a_disk_that_fills_up_under_etcds_tool_leaves_nothing(program, tmp_path):
    """Another program takes the room that was looked for."""
    with disk.small(tmp_path / "small", 144 << 20) as folder:
        tool = program.folder / "etcdutl"
        tool.write_text(
            '#!/bin/sh\nif [ "$1" = version ]; then echo "etcdutl version: 3.5.1"; exit; fi\n'
            'mkdir -p "$5/member"; cat /dev/zero > "$5/member/db" || exit 1\n'
        )
        tool.chmod(0o755)
        done = program(
            *("restore", "etcd", "prod/latest", "--data-dir", folder / "data"),
            *("--etcdutl", tool),
            expect=1,
        )
        assert "space left" in done.err
        assert "free some space" in done.err
        assert os.listdir(folder) == []
        program("restore", "etcd", "prod/latest", "--data-dir", folder / "data")


@pytest.mark.parametrize("leave", [0, 10 * PAGE])
def test_promise_6_no_half_file_is_exported_to_a_full_disk(program, tmp_path, leave):
    with disk.small(tmp_path / "small", 1 << 20) as folder:
        disk.fill(folder, leave=leave)
        done = program("export", "prod/latest", "-o", folder / "copy.db", expect=1)
        assert "No space left" in done.err
        done = program("keygen", "-o", folder / "key.txt", expect=None)
        assert done.code == (1 if leave == 0 else 0)
        assert sorted({*os.listdir(folder)} - {"key.txt"}) == ["ballast"]
