"""Repositories that were damaged, or that someone writes to who should not."""

import hashlib
import io
import json
import os
import resource
import sys

import pyrage
import pytest

from kit import process

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BACKUP = ("backup", "etcd", "--cluster", "prod")


@pytest.fixture
def made(cli, identity):
    """A backup; its manifest."""
    return cli(*BACKUP, "--json").json


@pytest.fixture
def path(made, file_repo):
    """Where the manifest lies."""
    [path] = file_repo.glob("clusters/prod/backups/*.json")
    return path


def setting(value, *keys):
    """Changes one value of a document."""

    def change(document):
        *outer, last = keys
        for key in outer:
            document = document[key]
        document[last] = value

    return change


def change(path, how):
    """Change a JSON file by a function, or put text or bytes in its place."""
    if callable(how):
        document = json.loads(path.read_text())
        how(document)
        how = json.dumps(document)
    path.write_bytes(how.encode() if isinstance(how, str) else how)


def text_with(old, new):
    """Changes the text itself: what json would not write."""
    return lambda path: path.write_text(path.read_text().replace(old, new, 1))


UNREADABLE = {
    "empty": "",
    "cut": '{"format": 1,',
    "binary": b"\0\xff" * 500,
    "another encoding": '{"format": 1}'.encode("utf-16"),
    "a list": "[]",
    "deep": "[" * 100_000,
    "large": " " * (17 << 20),
    "newer": setting(2, "format"),
    "newer, as a fraction": setting(2.0, "format"),
    "in need of more": setting(["shards"], "requires"),
    "in need of a word": setting("shards", "requires"),
    "a negative size": setting(-1, "objects", 0, "size"),
    "a size above all": setting(1 << 63, "objects", 0, "size"),
    "a digest that is none": setting("xyz", "objects", 0, "sha256"),
    "without objects": setting([], "objects"),
    "without snapshots": setting([], "snapshots"),
    "figures that differ": setting(1, "hash"),
    "revisions that differ": setting(1, "snapshots", 0, "revision"),
    "another cluster's": setting("other", "cluster"),
    "another backup's": setting("prod/20261120T231000Z-r1-aaaa", "id"),
    "another repository's": setting("f" * 32, "repository"),
    "a time without a zone": setting("2026-11-20T23:10:00", "taken_at"),
    "a time of long ago": setting("0001-01-01T00:00:00+14:00", "taken_at"),
    "a verdict that is none": setting("FINE", "checks", 0, "verdict"),
    "a duration that is none": setting(-1, "checks", 0, "seconds"),
    **{
        f"the object {name!r}"[:60]: lambda d, name=name: (
            setting(name, "objects", 0, "path")(d),
            setting(name, "snapshots", 0, "object")(d),
        )
        for name in (
            "/etc/passwd",
            "../../etc/passwd",
            "backstay.json",
            "clusters/prod/objects/../../../backstay.json",
            "clusters/other/objects/x/snapshot.zst.age",
            "clusters/prod/backups/x.json",
            "clusters/prod/objects/",
            "clusters/prod/objects//x",
            "clusters/prod/objects/./x",
            "clusters/prod/objects/.hidden",
            "clusters/prod/objects/a\nb",
            "clusters/prod/objects/a\0b",
            "clusters/prod/objects/" + "a" * 300,
            "clusters/prod/objects/" + "a/" * 2000 + "a",
        )
    },
}


def test_manifests_that_cannot_be_read_are_listed_as_such(cli, made, path):
    before = path.read_bytes()
    for name, how in UNREADABLE.items():
        path.write_bytes(before)
        assert "UNREADABLE" not in cli("list").out
        change(path, how)
        done = cli("list")
        assert "UNREADABLE" in done.out, name
        errors = [line for line in done.err.splitlines() if line.startswith("backstay: ")]
        assert len(errors) == 1, name
        assert errors[0].isprintable(), name
        assert cli("list", "--json").json == [], name
        assert str(made["id"]) not in cli("show", "prod/latest", expect=1).out, name


@pytest.mark.parametrize("name", ["cut", "newer", "the object '../../etc/passwd'"])
def test_promise_1_a_manifest_that_cannot_be_read_is_no_backup(cli, made, path, file_repo, name):
    change(path, UNREADABLE[name])
    for words in (
        ["show", made["id"]],
        ["show", "prod/latest"],
        ["verify", made["id"], "--read-data"],
        ["export", made["id"], "-o", "x.db"],
        ["restore", "etcd", made["id"], "--data-dir", "x"],
    ):
        done = cli(*words, expect=1)
        assert done.out == ""
        assert len(done.err.splitlines()) == 1
    assert sorted(os.listdir(cli.folder)) == ["identity.txt"]
    # It may be a newer program's: nothing of it is swept, however old it is.
    for file in file_repo.rglob("*"):
        os.utime(file, (0, 0))
    # What came before can't be told from what the cluster holds now.
    other = cli(*BACKUP, "--json", expect=4).json
    assert (file_repo / made["objects"][0]["path"]).exists()
    assert cli("show", "prod/latest", "--json").json["id"] == other["id"]


@pytest.mark.parametrize(
    "edit",
    [
        text_with('"format": 1', '"format": 1, "format": 1'),
        text_with('"seconds": ', '"seconds": NaN, "x": '),
        text_with('"seconds": ', '"seconds": 1e999, "x": '),
        text_with('"format": 1', '"format": 1, "y": ' + "9" * 10_000),
    ],
    ids=["a key twice", "no number", "too large", "too long"],
)
def test_what_no_writer_of_json_writes(cli, made, path, edit):
    edit(path)
    assert "UNREADABLE" in cli("list").out


def test_words_of_strangers_are_shown_and_not_obeyed(cli, made, path):
    change(path, setting("\x1b[31mred\nprod/20261120T231000Z-r1-aaaa   etcd", "kind"))
    for words in (["list"], ["show", made["id"]]):
        out = cli(*words).out
        assert "\\x1b[31mred\\nprod" in out
        assert "\x1b" not in out
    assert len(cli("list").out.splitlines()) == 2
    text_with('"kind": ', '"kind": "\\ud800", "more": ')(path)
    assert "\\ud800" in cli("list").out
    assert cli("show", made["id"], "--json").json["kind"] == "\ud800"


NOTES = {
    "damaged": "{",
    "newer": '{"format": 2}',
    "a time without a zone": {"at": "2026-11-20T23:10:00"},
    "a time of long ago": {"at": "0001-01-01T00:00:00+14:00"},
    "of another backup": {"backup": "prod/20261120T231000Z-r1-aaaa"},
}


@pytest.mark.parametrize("how", NOTES.values(), ids=NOTES)
def test_a_note_that_cannot_be_read_hides_no_verdict(cli, made, file_repo, how):
    cli("verify", made["id"])
    cli("verify", made["id"])
    note, _ = sorted(file_repo.glob("clusters/prod/notes/*/*.json"))
    change(note, (lambda document: document.update(how)) if isinstance(how, dict) else how)
    assert "UNREADABLE" in cli("list").out
    cli("show", "prod/latest", expect=1)


OBJECTS = {
    "a bit flipped": lambda data, seal: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
    "cut": lambda data, seal: data[:-1],
    "grown": lambda data, seal: data + b"x",
    "empty": lambda data, seal: b"",
    "no age file": lambda data, seal: b"x" * 1000,
    "an endless header": lambda data, seal: (
        b"age-encryption.org/v1\n" + b"-> X25519 abc\n" * 100_000
    ),
    "nothing, sealed": lambda data, seal: seal(b""),
    "no zstd frame": lambda data, seal: seal(b"x" * 1000),
    "half a frame": lambda data, seal: seal(zstd.compress(os.urandom(9000))[:5000]),
    "two frames": lambda data, seal: seal(zstd.compress(b"abc") * 2),
    "a bomb": lambda data, seal: seal(zstd.compress(bytes(1 << 26))),
    "a wide window": lambda data, seal: seal(
        zstd.compress(os.urandom(1 << 16), options={zstd.CompressionParameter.window_log: 31})
    ),
    "no snapshot": lambda data, seal: seal(zstd.compress(b"x" * 8192)),
}


@pytest.mark.parametrize("told", [False, True], ids=["behind the manifest's back", "and told so"])
@pytest.mark.parametrize("how", OBJECTS.values(), ids=OBJECTS)
def test_what_is_not_what_was_sealed_is_a_fail(cli, made, path, file_repo, how, told):
    """Who writes to the store can make an object and a manifest that agree; not a good backup."""
    recipient = pyrage.x25519.Recipient.from_str(made["recipients"][0])
    file = file_repo / made["objects"][0]["path"]
    data = how(file.read_bytes(), lambda plain: pyrage.encrypt(plain, [recipient]))
    file.write_bytes(data)
    if told:
        change(path, setting(len(data), "objects", 0, "stored_size"))
        change(path, setting(hashlib.sha256(data).hexdigest(), "objects", 0, "stored_sha256"))
    verdicts = {
        check["name"]: check["verdict"]
        for check in cli("verify", made["id"], "--read-data", "--json", expect=3).json["checks"]
    }
    assert verdicts == {"stored": "PASS" if told else "FAIL", "sealed": "FAIL"}
    for words in (["export", "-o", "x.db"], ["restore", "etcd", "--data-dir", "x"]):
        done = cli(*words, made["id"], expect=3)
        assert "backstay: clusters/prod/objects/" in done.err
    assert sorted(os.listdir(cli.folder)) == ["identity.txt"]


@pytest.mark.parametrize(
    ("size", "code", "told"),
    [
        (1000, 3, "unpacks to more than the 1000 bytes"),
        (10_000_000, 3, "the manifest says 10000000"),
        (1 << 62, 1, "--spool-dir"),
    ],
)
def test_a_size_that_is_a_lie(cli, made, path, size, code, told):
    change(path, setting(size, "objects", 0, "size"))
    assert told in cli("export", made["id"], "-o", "x.db", expect=code).err
    cli("verify", made["id"], "--read-data", expect=4 if size == 1 << 62 else 3)
    assert not (cli.folder / "x.db").exists()


def test_a_bomb_takes_no_memory_and_no_disk(cli, made, path, file_repo):
    """An object that unpacks to half a GiB of nothing, where no file may have more than a MiB."""
    recipient = pyrage.x25519.Recipient.from_str(made["recipients"][0])
    packer, packed = zstd.ZstdCompressor(), io.BytesIO()
    for _ in range(8):
        packed.write(packer.compress(bytes(1 << 26)))
    packed.write(packer.flush())
    data = pyrage.encrypt(packed.getvalue(), [recipient])
    (file_repo / made["objects"][0]["path"]).write_bytes(data)
    change(path, setting(len(data), "objects", 0, "stored_size"))
    change(path, setting(hashlib.sha256(data).hexdigest(), "objects", 0, "stored_sha256"))
    running = process.start(
        ["export", made["id"], "-o", "x.db"],
        cli.folder,
        cli.variables,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )
    err = running.stderr.read()
    _, status, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    running.communicate()
    assert running.returncode == 3, err
    assert "unpacks to more than" in err
    # The peak of a child is never told as less than that of the process that forked it.
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert usage.ru_maxrss <= max(200 << 10, ours)


CONFIGURATIONS = {
    "recipients changed": (setting(["age1x"], "recipients"), 1, "no age recipient"),
    "recipients emptied": (setting([], "recipients"), 1, "contradict encryption age"),
    "encryption turned off": (setting("none", "encryption"), 1, "contradict encryption none"),
    "another encryption": (setting("rot13", "encryption"), 1, "encryption"),
    "newer": (setting(2, "format"), 1, "update backstay"),
    "in need of more": (setting(["x"], "requires"), 1, "update backstay"),
    "an id that is none": (setting("x", "repository"), 1, "repository"),
    "a role that is none": (setting("all", "role"), 1, "role"),
    "for keys": (setting("keys", "role"), 5, "for keys"),
    "empty": ("", 1, "no JSON document"),
    "binary": (b"\xff\0", 1, "no JSON document"),
    "large": (" " * (17 << 20), 1, "bytes"),
}


@pytest.mark.parametrize(("how", "code", "told"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_configuration_that_makes_no_sense(cli, made, file_repo, how, code, told):
    change(file_repo / "backstay.json", how)
    done = cli(*BACKUP, expect=code)
    assert told in done.err
    assert len(done.err.splitlines()) == 1
    assert len(list(file_repo.glob("clusters/prod/objects/*/*"))) == 1


def test_promise_5_who_turns_encryption_off_is_found_out_by_a_pin(cli, made, file_repo):
    other = cli("keygen", "--json").json["recipient"]
    config = file_repo / "backstay.json"
    before = config.read_text()
    for how in (
        lambda d: d.update(recipients=[other]),
        lambda d: d.update(recipients=sorted([*d["recipients"], other])),
        lambda d: d.update(recipients=[], encryption="none"),
    ):
        config.write_text(before)
        change(config, how)
        done = cli(*BACKUP, "--recipient", made["recipients"][0], expect=5)
        assert "is pinned" in done.err
    assert len(list(file_repo.glob("clusters/prod/objects/*/*"))) == 1
    # Without a pin it is at least said, with every backup.
    assert "not encrypted" in cli(*BACKUP).err


def test_what_lies_about_in_a_repository_disturbs_nobody(cli, made, file_repo):
    clusters = file_repo / "clusters"
    (clusters / "file").write_text("x")
    (clusters / "Odd Name" / "backups").mkdir(parents=True)
    (clusters / "Odd Name" / "backups" / "x.json").write_text("x")
    (clusters / "prod" / "backups" / "README").write_text("x")
    (clusters / "prod" / "notes").mkdir(exist_ok=True)
    (clusters / "prod" / "notes" / "README").write_text("x")
    (clusters / "prod" / "objects" / "README").write_text("x")
    os.mkfifo(clusters / "prod" / "backups" / "pipe.json")
    (clusters / "prod" / "backups" / "folder.json").mkdir()
    (clusters / "prod" / "backups" / "link.json").symlink_to("/etc/passwd")
    assert [found["id"] for found in cli("list", "--json").json] == [made["id"]]
    assert cli("show", "prod/latest-verified", "--json").json["id"] == made["id"]
    other = cli(*BACKUP, "--json").json
    assert cli("show", "prod/latest", "--json").json["id"] == other["id"]
