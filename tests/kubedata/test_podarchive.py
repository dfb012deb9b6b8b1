"""Archives of static pod resources: real ones, and such as somebody made who wants to be root."""

import gzip
import io
import random
import subprocess
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.errors import DamagedError
from backstay.kubedata import podarchive
from backstay.kubedata.pemdates import read_dates
from backstay.kubedata.podarchive import PodArchive, read_archive
from kit.certificates import Authority, days
from kit.okd_pair import CONFIGURATION, PODS, files, write_tar

FOLDER = "static-pod-resources/etcd-pod-3"


def read(data) -> PodArchive:
    return read_archive(io.BytesIO(data), "the archive")


def made(*members, kind=tarfile.PAX_FORMAT):
    """An archive of (name, content or link, type)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=kind) as tar:
        for name, content, *more in members:
            info = tarfile.TarInfo(name)
            info.type = more[0] if more else tarfile.REGTYPE
            if info.type in {tarfile.SYMTYPE, tarfile.LNKTYPE}:
                info.linkname = content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """What GNU tar makes."""
    return write_tar(tmp_path_factory.mktemp("tar") / "a.tar.gz", files()).read_bytes()


def test_what_gnu_tar_makes_is_read(real):
    found = read(real)
    assert found.static_pods == {pod: (revision,) for pod, revision in PODS.items()}
    assert found.configuration == CONFIGURATION
    assert found.members > len(files())
    own = [file for file in found.certificates if file.own]
    assert {file.path.rpartition("/")[2] for file in own} == {"tls.crt"}
    assert len(own) == len(found.certificates) - len(own) == 4
    assert "system:etcd" in own[0].dates[0].subject


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "posix"])
def test_each_form_of_tar_is_read_long_names_too(tmp_path, form):
    depth = 2 if form == "ustar" else 5
    deep = "/".join([FOLDER, *["a-long-name-of-a-folder-that-nobody-likes"] * depth])
    content = files(more={f"{deep}/tls.crt": Authority.make("long-name").pem})
    found = read(write_tar(tmp_path / "a.tar.gz", content, f"--format={form}").read_bytes())
    assert found.static_pods["etcd"] == (3,)
    assert f"{deep}/tls.crt" in [file.path for file in found.certificates]


def test_without_encryption_there_is_no_configuration(tmp_path):
    data = write_tar(tmp_path / "a.tar.gz", files(configuration=None)).read_bytes()
    assert read(data).configuration is None
    assert read(data).configurations == ()


def test_two_configurations_are_none():
    name = "static-pod-resources/kube-apiserver-pod-{}/secrets/encryption-config/encryption-config"
    found = read(made((name.format(6), b"one"), (name.format(7), b"two")))
    assert found.configuration is None
    assert found.configurations == (b"one", b"two")
    assert found.static_pods == {"kube-apiserver": (6, 7)}
    assert read(made((name.format(6), b"one"), (name.format(7), b"one"))).configuration == b"one"


@pytest.mark.parametrize(
    "member",
    [
        ("../etc/cron.d/x", b"x"),
        (f"{FOLDER}/../../../etc/passwd", b"x"),
        ("/etc/passwd", b"x"),
        ("manifests/etcd-pod.yaml", b"x"),
        ("static-pod-resources/../manifests/x", b"x"),
        ("static-pod-resources/etcd-certs/x", b"x"),
        ("static-pod-resources/etcd-pod-x/x", b"x"),
        (f"{FOLDER}/link", "/etc", tarfile.SYMTYPE),
        (f"{FOLDER}/link", "../../../etc", tarfile.SYMTYPE),
        (f"{FOLDER}/link", "../..", tarfile.SYMTYPE),
        (f"{FOLDER}/link", "", tarfile.SYMTYPE),
        (f"{FOLDER}/link", "/etc/shadow", tarfile.LNKTYPE),
        (f"{FOLDER}/link", "../etc/shadow", tarfile.LNKTYPE),
        (f"{FOLDER}/device", b"", tarfile.CHRTYPE),
        (f"{FOLDER}/pipe", b"", tarfile.FIFOTYPE),
    ],
)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_what_would_write_elsewhere_is_refused_as_a_whole(member, form):
    good = (f"{FOLDER}/etcd-pod.yaml", b"x")
    assert read(made(good, kind=form)).static_pods == {"etcd": (3,)}
    with pytest.raises(DamagedError, match=r"outside|no file"):
        read(made(good, member, good, kind=form))


def test_links_that_stay_inside_are_links():
    found = read(
        made(
            (f"{FOLDER}/a", b"x"),
            (f"{FOLDER}/b", "a", tarfile.SYMTYPE),
            (f"{FOLDER}/configmaps/c", "../../kube-scheduler-pod-6/x", tarfile.SYMTYPE),
            (f"{FOLDER}/d", f"{FOLDER}/a", tarfile.LNKTYPE),
        )
    )
    assert found.members == 4


def test_a_path_that_a_header_hides_is_found():
    """The name in the clear is good; the one that tar goes by is in a header of its own."""
    info = tarfile.TarInfo(f"{FOLDER}/good")
    info.pax_headers = {"path": "../../evil"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    with pytest.raises(DamagedError, match="outside"):
        read(out.getvalue())


@pytest.mark.parametrize(
    "headers", [{"size": "1"}, {"GNU.sparse.major": "1"}, {"GNU.sparse.name": "/etc/passwd"}]
)
def test_what_a_header_says_of_a_size_is_not_believed(headers):
    info = tarfile.TarInfo(f"{FOLDER}/good")
    info.pax_headers = headers
    with pytest.raises(DamagedError, match="form that no host writes"):
        read(gzip.compress(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)))


def test_one_path_for_all_members_is_refused():
    out = io.BytesIO()
    headers = {"path": f"{FOLDER}/x"}
    with tarfile.open(
        fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT, pax_headers=headers
    ) as tar:
        tar.addfile(tarfile.TarInfo(f"{FOLDER}/good"))
    with pytest.raises(DamagedError, match="one path for all"):
        read(out.getvalue())


def header(size, kind=tarfile.XHDTYPE, name=f"{FOLDER}/x"):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


class Zeros:
    """A gzipped run of zeros without end, after some bytes."""

    def __init__(self, begin):
        self._data = io.BytesIO(gzip.compress(begin + bytes(100 << 20), 1))

    def read(self, size):
        return self._data.read(size)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
def test_a_size_that_is_promised_takes_no_memory(kind):
    source = Zeros(header(8 << 30, kind))
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError):
            read_archive(source, "the archive")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_only_files_have_content(kind):
    """What one program passes over another one takes for the next member."""
    info = tarfile.TarInfo(f"{FOLDER}/x")
    info.type, info.size, info.linkname = kind, 512, f"{FOLDER}/y"
    data = info.tobuf(tarfile.GNU_FORMAT) + header(0, tarfile.REGTYPE, "../evil") + bytes(1024)
    with pytest.raises(DamagedError, match="no file and has content"):
        read(gzip.compress(data))


def test_bounds(monkeypatch):
    good = (f"{FOLDER}/x", b"x")
    monkeypatch.setattr(podarchive, "MAX_MEMBERS", 3)
    assert read(made(*[good] * 3)).members == 3
    with pytest.raises(DamagedError, match="more than 3 members"):
        read(made(*[good] * 4))
    monkeypatch.setattr(podarchive, "MAX_UNPACKED", 1 << 20)
    with pytest.raises(DamagedError, match="unpacks to more"):
        read(made((f"{FOLDER}/x", bytes(2 << 20))))


@pytest.mark.parametrize("size", [-1, -512, -(1 << 40)])
def test_less_than_no_bytes(size):
    block = bytearray(header(0, tarfile.REGTYPE))
    block[124:136] = b"\xff" + (size & (1 << 88) - 1).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with pytest.raises(DamagedError, match="less than no bytes"):
        read(gzip.compress(bytes(block) + bytes(1024)))


def test_cuts_flips_and_what_follows(real):
    for place in (0, 1, 10, 100, len(real) // 2, len(real) - 1):
        with pytest.raises(DamagedError):
            read(real[:place])
    for more in (b"x", real):
        with pytest.raises(DamagedError, match="after its end"):
            read(real + more)
    tar = gzip.decompress(real)
    with pytest.raises(DamagedError, match="after its end"):
        read(gzip.compress(tar + b"x"))
    for other in (b"", b"text", gzip.compress(b""), gzip.compress(bytes(10240))):
        with pytest.raises(DamagedError):
            read(other)


@settings(max_examples=150)
@given(st.data())
def test_no_mutation_gets_past_typed_errors(data):
    tar = bytearray(gzip.decompress(_small()))
    chance = random.Random(data.draw(st.integers(0, 1 << 32)))
    for _ in range(data.draw(st.integers(1, 8))):
        tar[chance.randrange(len(tar) // 2)] = chance.randrange(256)
    packed = bytearray(gzip.compress(bytes(tar), 1))
    if data.draw(st.booleans()):
        packed[chance.randrange(len(packed))] ^= 1 << chance.randrange(8)
    try:
        found = read(bytes(packed))
    except DamagedError:
        return
    assert found.static_pods


def _small():
    return made(
        (f"{FOLDER}/{'long' * 60}", b"x" * 700),
        (f"{FOLDER}/link", "x", tarfile.SYMTYPE),
        ("static-pod-resources/kube-apiserver-pod-6/x", b"1"),
    )


def test_dates_of_certificates():
    authority = Authority.make("signer", end=days(3))
    one, other = authority.issue("one"), authority.issue("two\nlines", end=days(-1), start=days(-2))
    broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    found = read_dates(b"text\n" + one.certificate + broken + other.certificate)
    assert [dates.subject for dates in found] == ["CN=one", "CN=two\\nlines"]
    assert found[1].ends < days(0) < found[0].ends
    assert read_dates(b"-----BEGIN CERTIFICATE-----" * 100_000) == ()


def test_what_it_takes_tar_takes(tmp_path, real):
    """The archive that is read here is the one that cluster-restore.sh unpacks."""
    (tmp_path / "a.tar.gz").write_bytes(real)
    listed = subprocess.run(
        ["tar", "-tzf", tmp_path / "a.tar.gz"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(listed) == read(real).members
