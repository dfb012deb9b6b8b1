"""What is read of a host stays below its root, ends, and is what was there."""

import contextlib
import os
import socket
import time
from contextlib import closing

import pytest

from backstay.errors import BackstayError, NotFoundError, UsageError
from backstay.kinds.okd.hosttree import ChangedError, HostTree
from kit.okd_host import unprivileged

LIMIT = 1000


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "etc/inner").mkdir(parents=True)
    (root / "etc/inner/file").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    return root


@pytest.fixture
def tree(root):
    with HostTree(root) as tree:
        yield tree


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("etc/link", "inner/file"),
        ("etc/link", "./inner/../inner/file"),
        ("etc/link", "/etc/inner/file"),
        ("etc/inner/link", "../../etc/inner/file"),
        ("etc/link", "//etc//inner/file"),
    ],
)
def test_a_link_leads_where_it_leads_on_the_host(root, tree, link, target):
    (root / link).symlink_to(target)
    before = descriptors()
    assert tree.read(f"/{link}", limit=LIMIT) == b"inside"
    assert tree.is_file(f"/{link}")
    assert descriptors() == before


def test_a_directory_may_be_a_link(root, tree):
    (root / "run").symlink_to("/etc")
    (root / "etc/deep").symlink_to("inner")
    (root / "all").symlink_to("/")
    assert tree.read("/run/deep/file", limit=LIMIT) == b"inside"
    assert tree.read("/all/all/etc/inner/file", limit=LIMIT) == b"inside"
    assert [item.path for item in tree.walk("/run/deep")] == ["/run/deep", "/run/deep/file"]


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("etc/link", "../../secret"),
        ("link", "../secret"),
        ("etc/link", "inner/../../../secret"),
        ("etc/link", "/../secret"),
        ("etc/link", "jump/../../secret"),
        ("etc/inner/link", "/etc/../../root/etc/inner/file"),
    ],
)
def test_a_link_that_leads_out_is_an_error_that_names_it(root, tree, link, target):
    (root / "etc/jump").symlink_to("/")
    (root / link).symlink_to(target)
    before = descriptors()
    for action in (
        lambda: tree.read(f"/{link}", limit=LIMIT),
        lambda: tree.is_file(f"/{link}"),
        lambda: list(tree.walk(f"/{link}")),
    ):
        with pytest.raises(BackstayError, match="leads out of the host's root") as caught:
            action()
        assert str(root / link) in caught.value.what
        assert "outside" not in str(caught.value)
    assert descriptors() == before


def test_an_absolute_link_never_means_this_machines_file(root, tree, tmp_path):
    (root / "etc/link").symlink_to(tmp_path / "secret")
    with pytest.raises(NotFoundError) as caught:
        tree.read("/etc/link", limit=LIMIT)
    assert str(root / "etc/link") in str(caught.value)
    (root / "etc/self").symlink_to("/proc/self/root")
    assert not tree.is_file("/etc/self")


def test_links_that_go_in_circles_end(root, tree):
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(BackstayError, match="too many symbolic links") as caught:
        tree.read("/a", limit=LIMIT)
    assert str(root) in caught.value.what


def test_what_is_no_regular_file_never_hangs_us(root, tree):
    os.mkfifo(root / "etc/pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        with contextlib.chdir(root / "etc"):
            listener.bind("socket")
        began = time.monotonic()
        for name, what in (("pipe", "a pipe"), ("socket", "a socket"), ("inner", "a directory")):
            with pytest.raises(BackstayError, match=f"/etc/{name} is {what}"):
                tree.read(f"/etc/{name}", limit=LIMIT)
            assert not tree.is_file(f"/etc/{name}")
        assert time.monotonic() - began < 5


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_not_opened(root, tree):
    try:
        os.mknod(root / "etc/zero", 0o20600, os.makedev(1, 5))
    except PermissionError:
        (root / "etc/zero").mkdir()
    with pytest.raises(BackstayError, match="/etc/zero is a d"):
        tree.read("/etc/zero", limit=LIMIT)


def test_an_unreadable_file_is_named(root, tree):
    (root / "etc/inner/file").chmod(0)
    (root / "etc/closed").mkdir(mode=0)
    with unprivileged():
        for path, action in (
            ("etc/inner/file", lambda: tree.read("/etc/inner/file", limit=LIMIT)),
            ("etc/closed", lambda: list(tree.walk("/etc/closed"))),
            ("etc/closed/x", lambda: tree.is_file("/etc/closed/x")),
        ):
            with pytest.raises(BackstayError, match="Permission denied") as caught:
                action()
            assert str(root / path) in caught.value.what


@pytest.mark.parametrize(
    "path", ["/etc/none", "/none/file", "/etc/inner/file/below", "/etc/dangling", "/" + "x" * 300]
)
def test_what_is_not_there_is_named(root, tree, path):
    (root / "etc/dangling").symlink_to("/none")
    with pytest.raises(BackstayError) as caught:
        tree.read(path, limit=LIMIT)
    assert str(root) + path in caught.value.what


def test_a_path_with_a_zero_byte_is_no_path(tree):
    with pytest.raises(BackstayError, match="zero byte"):
        tree.read("/etc/\0", limit=LIMIT)


def test_sizes_are_bounded(root, tree):
    (root / "big").write_bytes(b"x" * (LIMIT + 1))
    with pytest.raises(BackstayError, match=f"/big has more than {LIMIT} bytes"):
        tree.read("/big", limit=LIMIT)
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BackstayError, match="/sparse has more than"):
        tree.read("/sparse", limit=LIMIT)


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite", "replace", "vanish"])
def test_a_file_that_changes_while_it_is_read_is_named(root, tree, change):
    path = root / "etc/inner/file"
    path.write_bytes(b"x" * (3 << 20))
    with closing(tree.walk("/etc/inner")) as found:
        item = next(item for item in found if item.name == "file")
        pieces = tree.pieces(item)
        if change == "replace":
            (root / "other").write_bytes(b"x" * (3 << 20))
            (root / "other").rename(path)
        elif change == "vanish":
            path.unlink()
        else:
            next(pieces)
            if change == "grow":
                with path.open("ab") as file:
                    file.write(b"y")
            elif change == "shrink":
                os.truncate(path, 1)
            else:
                with path.open("r+b") as file:
                    file.write(b"y")
        with pytest.raises(ChangedError) as caught:
            list(pieces)
    assert str(path) in caught.value.what


@pytest.mark.parametrize("change", ["comes", "goes", "directory goes"])
def test_a_directory_that_changes_while_it_is_read_is_named(root, tree, change):
    for name in ("a", "b", "c"):
        (root / "etc/inner" / name).mkdir()
    found = tree.walk("/etc/inner")
    assert next(found).path == "/etc/inner"
    assert next(found).path == "/etc/inner/a"
    if change == "comes":
        (root / "etc/inner/new").touch()
    elif change == "goes":
        (root / "etc/inner/file").unlink()
    else:
        (root / "etc/inner/b").rmdir()
    with pytest.raises(ChangedError) as caught:
        list(found)
    assert str(root / "etc/inner") in caught.value.what


def test_a_walk_is_bounded(root, tree):
    deep = root / "deep"
    for _ in range(40):
        deep = deep / "d"
    deep.mkdir(parents=True)
    with pytest.raises(BackstayError, match="lies too deep"):
        list(tree.walk("/deep"))


def test_a_walk_follows_no_link(root, tree, tmp_path):
    (root / "etc/inner/out").symlink_to("../../../secret")
    (root / "etc/inner/loop").symlink_to(".")
    found = {item.name: item.target for item in tree.walk("/etc/inner")}
    assert found == {"inner": "", "file": "", "out": "../../../secret", "loop": "."}


def test_the_root_must_be_there(tmp_path):
    (tmp_path / "file").touch()
    for name in ("none", "file", "zero\0"):
        with pytest.raises(UsageError, match="--host-root"):
            HostTree(tmp_path / name)
