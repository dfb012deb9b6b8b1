"""The tar is the one that cluster-backup.sh makes: compared with GNU tar by its arguments."""

import hashlib
import io
import os
import random
import subprocess
import tarfile
import threading

import pytest

from backstay.errors import BackstayError, FormatError, NotFoundError, SpaceError
from backstay.files import unnamed_file
from backstay.kinds.okd.archive import write_archive
from backstay.kinds.okd.hosttree import ChangedError, HostTree
from backstay.report import Report, Said, Started
from kit import disk, fixtures
from kit.okd_host import PODS, REVISIONS, unprivileged


class Taken:
    """A tar that was taken."""

    def __init__(self, host, folder, *listeners, **more):
        self.said = []
        with HostTree(host.root) as tree, unnamed_file(folder) as file:
            report = Report(self.said.append, *listeners)
            self.archived = write_archive(tree, file, folder, report, **more)
            file.seek(0)
            self.data = file.readall()

    @property
    def texts(self):
        return [event.text for event in self.said if isinstance(event, Said)]


def described(data):
    """Everything that a tar says of each of its members, and what is in it."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        for info in tar:
            content = tar.extractfile(info).read() if info.isreg() else b""
            found[info.name] = (
                *(info.type, info.mode, info.uid, info.gid, info.uname, info.gname),
                *(info.size, info.mtime, info.linkname, content),
            )
    return found


def make_odd(host):
    """Let there be what an installer does not make, and tar takes all the same."""
    folder = host.resources("etcd")
    (folder / "dangling").symlink_to("/none/x")
    (folder / "out").symlink_to("../" * 20 + "etc/passwd")
    (folder / ("long-" + "x" * 200)).write_text("long name")
    (folder / "to-long").symlink_to("y" * 150)
    (folder / "ünï").write_text("no ASCII")
    (folder / os.fsdecode(b"no-utf8-\xff")).write_text("no UTF-8")
    first = host.resources("kube-apiserver") / "hard"
    first.write_text("two names")
    os.link(first, folder / "link")
    (folder / "empty").touch(mode=0o4640)
    (folder / "large").write_bytes(random.Random(1).randbytes(3 << 20))
    if os.geteuid() == 0:
        os.chown(folder / "empty", 0, 0)
        os.chown(folder / "large", 7_000_000, 7_000_001)
        (folder / "empty").chmod(0o4640)
    os.utime(folder / "empty", (1.9, 1.9))


def test_it_is_what_gnu_tar_makes(host, tmp_path):
    make_odd(host)
    expected = described(host.archive_by_tar(tmp_path / "gnu.tar.gz").read_bytes())
    taken = Taken(host, tmp_path)
    assert described(taken.data) == expected
    top = [name for name in expected if name.count("/") == 1]
    assert top == [f"static-pod-resources/{n}-pod-{r}" for n, r in REVISIONS.items()]


def test_gnu_tar_unpacks_it_to_what_was_there(host, tmp_path):
    make_odd(host)
    path, target = tmp_path / "x.tar.gz", tmp_path / "target"
    path.write_bytes(Taken(host, tmp_path).data)
    target.mkdir()
    subprocess.run(["tar", "-C", target, "-xzf", path, "--same-owner", "-p"], check=True)
    for name, revision in REVISIONS.items():
        folder = f"static-pod-resources/{name}-pod-{revision}"
        subprocess.run(
            ["diff", "-r", "--no-dereference", host.kubernetes / folder, target / folder],
            check=True,
        )
    assert sorted(os.listdir(target / "static-pod-resources")) == sorted(
        f"{name}-pod-{revision}" for name, revision in REVISIONS.items()
    )


def test_it_knows_its_size_and_digest_and_says_what_was_found(host, tmp_path):
    taken = Taken(host, tmp_path)
    assert taken.archived.size == len(taken.data)
    assert taken.archived.sha256 == hashlib.sha256(taken.data).hexdigest()
    assert taken.archived.revisions == REVISIONS
    assert taken.texts == [
        f"found latest {name}: /etc/kubernetes/static-pod-resources/{name}-pod-{REVISIONS[name]}"
        for name in PODS
    ]


def test_owners_are_called_as_the_host_calls_them(host, tmp_path):
    if os.geteuid():
        pytest.skip("only root gives files away")
    os.chown(host.resources("etcd") / "etcd-pod.yaml", 1234, 1235)
    found = described(Taken(host, tmp_path).data)
    name = "static-pod-resources/etcd-pod-3"
    assert found[f"{name}/etcd-pod.yaml"][2:6] == (1234, 1235, "etcd", "etcd")
    assert found[name][2:6] == (0, 0, "root", "root")


def test_the_encryption_configuration_is_the_one_in_the_tar(host, tmp_path):
    taken = Taken(host, tmp_path)
    text = host.encryption_config.read_bytes()
    assert taken.archived.encryption == text
    assert described(taken.data)[taken.archived.encryption_name][-1] == text
    key = fixtures.facts("kube-aescbc")["encryption_keys"][0]["key_base64"]
    assert key in text.decode()
    assert key not in repr(taken.archived)
    host.encryption_config.unlink()
    assert Taken(host, tmp_path).archived.encryption is None


def test_an_encryption_configuration_that_is_no_file_is_named(host, tmp_path):
    path = host.encryption_config
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")
    with pytest.raises(FormatError, match="no regular file") as caught:
        Taken(host, tmp_path)
    assert str(path) in caught.value.what
    path.unlink()
    path.write_bytes(b"x" * (65 << 10))
    with pytest.raises(FormatError, match="more than 65536 bytes") as caught:
        Taken(host, tmp_path)
    assert str(path) in caught.value.what


def test_what_is_too_large_is_named_and_not_written(host, tmp_path):
    path = host.resources("etcd") / "large"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(BackstayError, match="more than") as caught:
        Taken(host, tmp_path)
    assert str(path) in caught.value.what


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_does_not_belong_there_is_named_and_hangs_nobody(host, tmp_path, kind):
    path = host.resources("etcd") / "secrets" / kind
    if kind == "pipe":
        os.mkfifo(path)
    else:
        os.mknod(path, 0o140600)
    with pytest.raises(BackstayError, match="neither a file") as caught:
        Taken(host, tmp_path)
    assert str(path) in caught.value.what


def test_an_unreadable_file_is_named(host, tmp_path):
    path = host.resources("kube-scheduler") / "secrets/client/tls.key"
    path.parent.chmod(0o755)
    for name in PODS:
        (host.resources(name) / "secrets/client").chmod(0o755)
        for file in (host.resources(name) / "secrets/client").iterdir():
            file.chmod(0o644)
    host.encryption_config.chmod(0o644)
    path.chmod(0)
    with HostTree(host.root) as tree, unprivileged():
        with pytest.raises(BackstayError, match="Permission denied") as caught:
            write_archive(tree, io.BytesIO(), tmp_path, Report())
        assert str(path) in caught.value.what


def test_a_directory_that_the_manifest_names_must_be_there(host, tmp_path):
    host.roll_out("kube-scheduler", 99)
    with pytest.raises(NotFoundError) as caught:
        Taken(host, tmp_path)
    assert str(host.resources("kube-scheduler", 99)) in caught.value.what


def at_each_try(action):
    """Do something whenever a tar is begun; gives what listens, and the numbers of the tries."""
    tries = []

    def listen(event):
        if isinstance(event, Started) and event.name == "static pod resources":
            tries.append(len(tries) + 1)
            action(len(tries))

    return listen, tries


def test_a_rollout_that_moves_latest_meanwhile_is_noticed_and_the_tar_taken_again(host, tmp_path):
    def roll(number):
        if number == 1:
            host.roll_out("kube-apiserver", 7)

    listen, tries = at_each_try(roll)
    taken = Taken(host, tmp_path, listen)
    assert tries == [1, 2]
    assert taken.archived.revisions == REVISIONS | {"kube-apiserver": 7}
    names = {name.split("/")[1] for name in described(taken.data)}
    assert "kube-apiserver-pod-7" in names
    assert "kube-apiserver-pod-6" not in names
    assert any("kube-apiserver from revision 6 to 7: taken again" in text for text in taken.texts)
    assert taken.archived.sha256 == hashlib.sha256(taken.data).hexdigest()


def test_a_rollout_that_does_not_end_is_an_error(host, tmp_path):
    listen, tries = at_each_try(lambda number: host.roll_out("etcd", 2 + 2 * (number % 2)))
    with pytest.raises(ChangedError, match="a rollout went on") as caught:
        Taken(host, tmp_path, listen)
    assert tries == [1, 2, 3]
    assert "run it again" in caught.value.do


def test_an_installer_at_work_is_noticed(host, tmp_path):
    """Files are replaced, directories come: what is taken in the end is what is there."""
    big = host.resources("etcd") / "secrets/big"
    big.write_bytes(random.Random(2).randbytes(1 << 20))
    stop = threading.Event()

    def work():
        number = 0
        while not stop.is_set() and number < 100:
            number += 1
            folder = str(host.resources("kube-scheduler").relative_to(host.root))
            host.write(f"{folder}/secrets/client/tls.key", f"{number}\n" * number, 0o600)
            host.write(f"{folder}/configmaps/new-{number % 7}/x", "x")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        taken = Taken(host, tmp_path, tries=1000)
    finally:
        stop.set()
        worker.join()
    assert described(taken.data)
    after = Taken(host, tmp_path)
    expected = described(host.archive_by_tar(tmp_path / "gnu.tar.gz").read_bytes())
    assert described(after.data) == expected


def test_a_full_disk_is_told(host, tmp_path):
    large = host.resources("etcd") / "large"
    large.write_bytes(random.Random(3).randbytes(1 << 20))
    with disk.small(tmp_path / "small", 1 << 19) as folder:
        with pytest.raises(SpaceError, match="No space left") as caught:
            Taken(host, folder)
        assert str(folder) in caught.value.what
        assert os.listdir(folder) == []
