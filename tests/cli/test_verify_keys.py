"""Do the saved keys open what is encrypted? Real snapshots, and keyrings right and wrong."""

import base64
import hashlib
import io
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from backstay.clock import SystemClock
from backstay.flows.examine import hashkv_of, look_into
from backstay.kubedata.keyname import key_name
from backstay.mvcc.snapshot import Snapshot
from backstay.repo.catalogue import Repository
from backstay.repo.identity import Identities, generate
from backstay.repo.keyring import Keyring, Kms, SavedKey, headers, load, save
from backstay.repo.manifest import HashKV, KeyringEntry, ObjectEntry, figures
from backstay.repo.name import Run
from backstay.repo.sealing import seal
from backstay.repo.stores.file import FileStore
from backstay.report import Report
from kit import fixtures
from kit.cli import Cli
from kit.manifests import manifest

CLUSTER = "clusters.prod"
PLAIN, ONE, TWO = "kube-plain", "kube-aescbc", "kube-aescbc-rotation"
KMS = Kms(provider="AWS", active={"arn": "arn:aws:kms:eu-west-1:1:key/a"})


def raw_keys(name):
    """The keys that a snapshot was encrypted with, the one that writes first."""
    [rule] = fixtures.facts(name)["encryption_configuration"]["resources"]
    [listed] = [p["aescbc"]["keys"] for p in rule["providers"] if "aescbc" in p]
    return [base64.b64decode(key["secret"]) for key in listed]


def keyring(*values, roles=("active", "target", "backup"), **more):
    keys = tuple(
        SavedKey.of(role, "clusters", f"key-{role}", value)
        for role, value in zip(roles, values, strict=False)
    )
    fields = {"kind": "hosted", "made_at": datetime.now(UTC), **more}
    return Keyring(cluster=CLUSTER, keys=keys, **fields)


def posing(value, name):
    """A key under the name of another one, as somebody's mistake would have it."""
    return replace(SavedKey.of("active", "clusters", "key", value), key_name=name)


@dataclass
class Place:
    """A repository for data and one for keys, and the program that knows the first."""

    cli: Cli
    root: Path

    @property
    def data(self):
        return Repository.open(FileStore(self.root / "data"))

    @property
    def keys(self):
        return Repository.open(FileStore(self.root / "keys"))

    @property
    def keys_url(self):
        return f"file://{self.root}/keys"

    def keep(self, *snapshots, made=None):
        """A backup with some of the fixtures as its snapshots; gives its ID."""
        run = Run.begin(CLUSTER, datetime.now(UTC))
        entry = made and save(self.keys, made, run, data=self.data.config.repository)
        return self.publish(run, snapshots, entry)

    def publish(self, run, snapshots, entry):
        found = [self._stored(run, name, number) for number, name in enumerate(snapshots)]
        taken = tuple(snapshot for snapshot, _ in found)
        whole = replace(
            manifest(cluster=CLUSTER, repository=self.data.config.repository),
            id=str(run.backup(taken[0].revision)),
            kind="hosted",
            taken_at=run.began,
            snapshots=taken,
            objects=tuple(item for _, item in found),
            recipients=self.data.config.recipients,
            keyring=entry,
            **figures(taken[0]),
        )
        self.data.publish(whole)
        return whole.id

    def _stored(self, run, name, number):
        bytes_ = fixtures.data(name)
        path = f"{run.folder}snapshot-{number}.zst.age"
        sealed = seal(io.BytesIO(bytes_), self.data.store, path, self.data.config.recipients)
        sizes = {field: getattr(sealed, field) for field in sealed.__slots__}
        file = fixtures.write(name, self.root)
        with Snapshot.open(file) as snapshot:
            looked = look_into(snapshot, SystemClock(), Report())
            hashkv = hashkv_of(snapshot, looked)
        taken = replace(
            manifest().snapshots[0],
            name=f"etcd-{number}" if number else "etcd",
            revision=hashkv.revision,
            compact_revision=hashkv.compact_revision,
            hash=looked.status.hash,
            total_keys=looked.status.total_keys,
            total_size=looked.status.total_size,
            hashkv=HashKV(
                hash=hashkv.hash,
                revision=hashkv.revision,
                compact_revision=hashkv.compact_revision,
            ),
            object=path,
        )
        return taken, ObjectEntry(path=path, role="snapshot", **sizes)

    def verify(self, subject, *words, expect=0, named=True):
        keys = ("--keys-repo", self.keys_url) if named else ()
        return self.cli("verify", subject, *keys, *words, "--json", expect=expect)


@pytest.fixture
def place(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    cli = Cli(home)
    recipient = cli("keygen", "-o", "identity.txt", "--json").json["recipient"]
    cli.variables |= {
        "BACKSTAY_REPO": f"file://{tmp_path}/data",
        "BACKSTAY_IDENTITY": str(home / "identity.txt"),
    }
    cli("init", "--recipient", recipient)
    cli("init", "--role", "keys", "--repo", f"file://{tmp_path}/keys", "--recipient", recipient)
    return Place(cli, tmp_path)


def verdicts(done):
    return {check["name"]: check["verdict"] for check in done.json["checks"]}


def detail(done, name="keys"):
    [text] = [check["detail"] for check in done.json["checks"] if check["name"] == name]
    return text


def encrypted(done):
    return [group for group in done.json["keys"] if group["provider"] == "aescbc"]


# A backup and its own keyring.


def test_the_saved_key_opens_the_backup(place):
    backup = place.keep(ONE, made=keyring(*raw_keys(ONE)))
    done = place.verify(backup, "--prove-all")
    assert set(verdicts(done).values()) == {"PASS"}
    assert {"stored", "sealed", "transfer", "structure", "content", "figures", "keys"} == set(
        verdicts(done)
    )
    assert detail(done) == ("77 secrets, all under key-3783090363, all open with the saved key")
    [group] = encrypted(done)
    assert group["values"] == group["opened"] == group["tried"] == 77
    assert (group["key_name"], group["resource"], group["verdict"]) == (
        key_name(raw_keys(ONE)[0]),
        "secrets",
        "PASS",
    )
    assert "snapshot" not in group


def test_a_rotation_needs_both_keys(place):
    new, old = raw_keys(TWO)
    backup = place.keep(TWO, made=keyring(new, old, rotating=True))
    done = place.verify(backup)
    assert verdicts(done)["keys"] == "PASS"
    assert {group["key_name"] for group in encrypted(done)} == {key_name(new), key_name(old)}
    assert "stored without encryption" in detail(done)


@pytest.mark.parametrize("kept", [0, 1])
def test_one_of_two_keys_is_missing(place, kept):
    values = raw_keys(TWO)
    backup = place.keep(TWO, made=keyring(values[kept]))
    done = place.verify(backup, expect=3)
    assert f"the key {key_name(values[1 - kept])} is missing" in detail(done)
    assert {group["verdict"] for group in encrypted(done)} == {"PASS", "FAIL"}
    assert verdicts(done)["content"] == "PASS"


def one_bit_off(value):
    return bytes([value[0] ^ 1]) + value[1:]


@pytest.mark.parametrize("wrong", [bytes(32), one_bit_off(raw_keys(ONE)[0]), raw_keys(TWO)[0]])
def test_a_wrong_key_is_a_fail(place, wrong):
    backup = place.keep(ONE, made=keyring(wrong))
    done = place.verify(backup, expect=3)
    assert verdicts(done)["keys"] == "FAIL"
    assert f"the key {key_name(raw_keys(ONE)[0])} is missing" in detail(done)
    [group] = encrypted(done)
    assert group["opened"] == 0


@pytest.mark.parametrize("wrong", [one_bit_off(raw_keys(ONE)[0]), bytes(32)])
def test_the_right_name_on_a_wrong_key_is_not_believed(place, wrong):
    """Such a keyring can't be saved; one that was made by hand is refused when it is opened."""
    right = raw_keys(ONE)[0]
    backup = forged(place, replace(keyring(right), keys=(posing(wrong, key_name(right)),)))
    done = place.verify(backup, expect=4)
    assert verdicts(done)["keys"] == "COULD NOT VERIFY"
    assert "not what its name and hash say" in detail(done)


def forged(place, made):
    """A backup whose keyring was sealed by other means than ours."""
    import json

    import msgspec

    backup = place.keep(ONE, made=keyring(raw_keys(ONE)[0]))
    store, recipients = place.keys.store, place.keys.config.recipients
    [path] = (place.root / "keys").glob("clusters/*/keyrings/*.json")
    header = json.loads(path.read_text())
    store.delete(header["object"]["path"])
    source = io.BytesIO(msgspec.json.encode(made))
    sealed = seal(source, store, header["object"]["path"], recipients)
    header["object"] |= {field: getattr(sealed, field) for field in sealed.__slots__}
    header["keys"] = msgspec.to_builtins([key.label for key in made.keys])
    path.write_text(json.dumps(header))
    point_at(place, backup, hashlib.sha256(path.read_bytes()).hexdigest())
    return backup


def point_at(place, backup, digest, repository=None):
    """Let the manifest of a backup mean another keyring."""
    found = place.data.find(backup).manifest
    entry = KeyringEntry(repository=repository or place.keys.config.repository, digest=digest)
    place.data.store.delete(f"clusters/{CLUSTER}/backups/{found.name.name}.json")
    place.data.publish(replace(found, keyring=entry))


def test_a_key_that_the_api_server_would_refuse(place):
    done = place.verify(place.keep(ONE, made=keyring(b"x" * 20)), expect=4)
    assert "aescbc takes 16, 24 or 32" in detail(done)


def test_swapped_keyrings_are_found(place):
    first = place.keep(ONE, made=keyring(raw_keys(ONE)[0]))
    second = place.keep(TWO, made=keyring(*raw_keys(TWO)))
    digests = {one.header.name.split("-")[1]: one.digest for one in headers(place.keys)}
    for mine, theirs in ((first, second), (second, first)):
        point_at(place, mine, digests[theirs.rpartition("-")[2]])
    for backup in (first, second):
        done = place.verify(backup, expect=3)
        assert "not the keyring that the manifest means" in detail(done)


@pytest.mark.parametrize("ending", [".json", ".zst.age"])
def test_a_keyring_that_is_gone_or_damaged_is_a_fail(place, ending):
    backup = place.keep(ONE, made=keyring(raw_keys(ONE)[0]))
    [path] = (place.root / "keys").glob(f"clusters/*/keyrings/*{ending}")
    path.write_bytes(path.read_bytes()[:-7])
    assert verdicts(place.verify(backup, expect=3))["keys"] == "FAIL"
    path.unlink()
    assert verdicts(place.verify(backup, expect=3))["keys"] == "FAIL"


def test_promise_4_a_keyring_that_cannot_be_opened_is_no_pass(place):
    """The data opens with this identity, the keys were sealed to somebody else."""
    text, recipient = generate(datetime.now(UTC))
    shutil.rmtree(place.root / "keys")
    place.cli("init", "--role", "keys", "--repo", place.keys_url, "--recipient", recipient)
    backup = place.keep(ONE, made=keyring(raw_keys(ONE)[0]))
    done = place.verify(backup, expect=4)
    assert verdicts(done)["keys"] == "COULD NOT VERIFY"
    assert "identity.txt holds the key of none of them" in detail(done)
    assert verdicts(done)["content"] == "PASS"
    # Both identities in one file open both.
    identity = place.cli.folder / "identity.txt"
    identity.write_text(identity.read_text() + text)
    assert verdicts(place.verify(backup))["keys"] == "PASS"


def test_what_came_of_keys_is_not_written_down(place):
    """It says as much of the keys that were given as of the backup."""
    backup = place.keep(ONE, made=keyring(bytes(32)))
    place.verify(backup, expect=3)
    [note] = place.data.find(backup).notes
    assert "keys" not in {check.name for check in note.checks}
    assert place.data.find(f"{CLUSTER}/latest-verified").manifest.id == backup


def test_a_kms_that_was_saved_is_named_where_a_key_is_missing(place):
    backup = place.keep(ONE, made=keyring(kms=KMS))
    done = place.verify(backup, expect=3)
    assert "is missing" in detail(done)
    assert KMS.active["arn"] in detail(done)


def test_a_cluster_without_encryption_needs_no_key(place):
    done = place.verify(place.keep(PLAIN, made=keyring()))
    assert verdicts(done)["keys"] == "PASS"
    assert "no key is needed" in detail(done)
    done = place.verify(place.keep(ONE, made=keyring()), expect=3)
    assert f"the key {key_name(raw_keys(ONE)[0])} is missing" in detail(done)


def test_every_snapshot_of_a_backup_is_looked_into(place):
    both = keyring(*raw_keys(ONE), *raw_keys(TWO))
    backup = place.keep(ONE, TWO, made=both)
    done = place.verify(backup)
    assert set(verdicts(done).values()) == {"PASS"}
    for name in ("structure", "figures", "keys"):
        assert detail(done, name).startswith("etcd: ")
        assert "; etcd-1: " in detail(done, name)
    assert {group["snapshot"] for group in done.json["keys"]} == {"etcd", "etcd-1"}
    assert len(encrypted(done)) == 3


def test_the_second_snapshot_decides_as_well(place):
    backup = place.keep(ONE, TWO, made=keyring(*raw_keys(ONE)))
    done = place.verify(backup, expect=3)
    assert {(g["snapshot"], g["verdict"]) for g in encrypted(done)} == {
        ("etcd", "PASS"),
        ("etcd-1", "FAIL"),
    }
    path = place.data.find(backup).manifest.objects[1].path
    file = place.root / "data" / path
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    done = place.verify(backup, "--read-data", expect=3, named=False)
    assert verdicts(done)["sealed"] == verdicts(done)["stored"] == "FAIL"
    assert "etcd-1: " in detail(done, "sealed")
    assert verdicts(done)["structure"] == "PASS"


# Which repository, and when keys are tried at all.


def test_promise_5_keys_are_not_looked_for_with_the_data(place):
    backup = place.keep(ONE, made=keyring(*raw_keys(ONE)))
    words = ("verify", backup, "--keys-repo", f"file://{place.root}/data")
    assert "keys never lie there" in place.cli(*words, expect=5).err


def test_another_repository_for_keys_is_refused_by_name(place):
    backup = place.keep(ONE, made=keyring(*raw_keys(ONE)))
    recipient = place.keys.config.recipients[0]
    other = f"file://{place.root}/other"
    place.cli("init", "--role", "keys", "--repo", other, "--recipient", recipient)
    said = place.cli("verify", backup, "--keys-repo", other, expect=5).err
    assert place.keys.config.repository in said
    missing = f"file://{place.root}/nothing"
    assert "is no repository" in place.cli("verify", backup, "--keys-repo", missing, expect=1).err


def test_a_backup_without_keys_says_so_where_it_is_asked(place):
    backup = place.keep(ONE)
    assert "no keys were saved" in place.verify(backup, expect=1).err
    place.cli.variables["BACKSTAY_KEYS_REPO"] = place.keys_url
    assert "keys" not in verdicts(place.verify(backup, "--read-data", named=False))


def test_keys_are_tried_where_they_are_asked_for(place):
    """A variable alone makes nobody read data, and nobody is stopped for want of an identity."""
    backup = place.keep(ONE, made=keyring(*raw_keys(ONE)))
    assert "keys" not in verdicts(place.verify(backup, "--read-data", named=False))
    place.cli.variables["BACKSTAY_KEYS_REPO"] = place.keys_url
    assert verdicts(place.verify(backup, named=False)) == {"stored": "PASS", "openable": "PASS"}
    assert verdicts(place.verify(backup, "--read-data", named=False))["keys"] == "PASS"
    del place.cli.variables["BACKSTAY_IDENTITY"]
    assert verdicts(place.verify(backup, named=False)) == {"stored": "PASS"}
    assert "--identity" in place.verify(backup, expect=1).err


def test_the_settings_can_name_the_repository(place):
    backup = place.keep(ONE, made=keyring(*raw_keys(ONE)))
    (place.cli.folder / "backstay.toml").write_text(f'keys-repo = "{place.keys_url}"\n')
    assert verdicts(place.verify(backup, "--read-data", named=False))["keys"] == "PASS"


def test_promise_4_keys_that_a_variable_names_and_that_are_not_there(place):
    backup = place.keep(ONE, made=keyring(*raw_keys(ONE)))
    for name in ("moved", "data"):
        place.cli.variables["BACKSTAY_KEYS_REPO"] = f"file://{place.root}/{name}"
        done = place.verify(backup, "--read-data", named=False, expect=4)
        assert verdicts(done)["keys"] == "COULD NOT VERIFY"


def test_two_places_for_keys_are_one_too_many(place):
    (place.cli.folder / "config.yaml").write_text("{}")
    words = ("--keys-repo", place.keys_url, "--encryption-config", "config.yaml")
    assert "give one of them" in place.cli("verify", "./x.db", *words, expect=2).err


def test_a_repository_for_keys_lists_no_backups(place):
    place.keep(ONE, made=keyring(*raw_keys(ONE)))
    assert place.cli("list", "--repo", place.keys_url, "--json").json == []
    assert len(headers(place.keys)) == 1


# A bare file: keys are matched by the names in its values.


def test_a_file_finds_its_key_among_many(place, tmp_path):
    for values in ([bytes(32)], raw_keys(ONE), raw_keys(TWO), [bytes(16)], []):
        place.keep(ONE, made=keyring(*values))
    done = place.verify(fixtures.write(ONE, tmp_path))
    assert verdicts(done)["keys"] == "PASS"
    assert detail(done).startswith("77 secrets, all under key-3783090363, ")
    assert verdicts(place.verify(fixtures.write(TWO, tmp_path)))["keys"] == "PASS"


def test_a_rotations_keys_from_two_keyrings(place, tmp_path):
    for value in raw_keys(TWO):
        place.keep(ONE, made=keyring(value))
    assert verdicts(place.verify(fixtures.write(TWO, tmp_path)))["keys"] == "PASS"


@pytest.mark.parametrize("kept", [[], [bytes(32)], raw_keys(TWO)])
def test_a_file_whose_key_was_never_saved(place, tmp_path, kept):
    place.keep(ONE, made=keyring(*kept))
    done = place.verify(fixtures.write(ONE, tmp_path), expect=3)
    assert f"the key {key_name(raw_keys(ONE)[0])} is missing" in detail(done)


def test_a_file_with_one_of_its_keys(place, tmp_path):
    new, old = raw_keys(TWO)
    place.keep(ONE, made=keyring(old))
    done = place.verify(fixtures.write(TWO, tmp_path), expect=3)
    assert f"the key {key_name(new)} is missing; there is {key_name(old)}" in detail(done)


def test_only_keyrings_that_match_are_opened(place, tmp_path):
    """The others were sealed to somebody else, and damaged as well."""
    place.keep(ONE, made=keyring(bytes(32)))
    for path in (place.root / "keys").glob("clusters/*/keyrings/*.age"):
        path.write_bytes(b"damaged")
    place.keep(ONE, made=keyring(*raw_keys(ONE)))
    assert verdicts(place.verify(fixtures.write(ONE, tmp_path)))["keys"] == "PASS"


def test_where_one_keyring_is_damaged_the_next_will_do(place, tmp_path):
    place.keep(ONE, made=keyring(*raw_keys(ONE)))
    place.keep(ONE, made=keyring(*raw_keys(ONE)))
    newest, other = (one.header.object.path for one in headers(place.keys))
    (place.root / "keys" / newest).write_bytes(b"damaged")
    file = fixtures.write(ONE, tmp_path)
    assert verdicts(place.verify(file))["keys"] == "PASS"
    (place.root / "keys" / other).write_bytes(b"damaged")
    done = place.verify(file, expect=3)
    assert verdicts(done)["keys"] == "FAIL"
    assert newest in detail(done)


def test_a_header_that_cannot_be_read_is_named_where_a_key_is_missing(place, tmp_path):
    place.keep(ONE, made=keyring(*raw_keys(ONE)))
    [path] = (place.root / "keys").glob("clusters/*/keyrings/*.json")
    path.write_text("{}")
    done = place.verify(fixtures.write(ONE, tmp_path), expect=3)
    assert path.name in detail(done)


def test_promise_4_keys_of_a_file_that_cannot_be_opened_are_no_pass(place, tmp_path):
    place.keep(ONE, made=keyring(*raw_keys(ONE)))
    text, _ = generate(datetime.now(UTC))
    stranger = place.cli.folder / "stranger.txt"
    stranger.write_text(text)
    stranger.chmod(0o600)
    file = fixtures.write(ONE, tmp_path)
    done = place.verify(file, "--identity", stranger, expect=4)
    assert verdicts(done)["keys"] == "COULD NOT VERIFY"
    assert verdicts(done)["content"] == "PASS"


def test_a_file_in_which_nothing_is_encrypted(place, tmp_path):
    place.keep(ONE, made=keyring(*raw_keys(ONE)))
    file = fixtures.write(PLAIN, tmp_path)
    done = place.verify(file, expect=4)
    assert "nothing to try the keys on" in detail(done)
    # Who did not ask is not told; not even that the keys are not to be had.
    place.cli.variables["BACKSTAY_KEYS_REPO"] = f"file://{place.root}/moved"
    assert "keys" not in verdicts(place.verify(file, named=False))


def test_a_file_by_the_way(place, tmp_path):
    file = fixtures.write(ONE, tmp_path)
    place.keep(ONE, made=keyring(*raw_keys(ONE)))
    place.cli.variables["BACKSTAY_KEYS_REPO"] = place.keys_url
    assert verdicts(place.verify(file, named=False))["keys"] == "PASS"
    del place.cli.variables["BACKSTAY_IDENTITY"]
    assert "keys" not in verdicts(place.verify(file, named=False))
    assert "--identity" in place.verify(file, expect=1).err


def test_promise_5_no_key_is_in_any_word(place, tmp_path):
    """Whatever comes of it: neither the saved key nor a Secret's content is shown."""
    right = raw_keys(ONE)[0]
    place.keep(ONE, made=keyring(right, one_bit_off(right), manifests="password: hush-hush\n"))
    done = place.verify(fixtures.write(ONE, tmp_path), "--debug")
    broken = place.keep(TWO, made=keyring(right, manifests="password: hush-hush\n"))
    failed = place.verify(broken, "--debug", expect=3)
    for value in (right, one_bit_off(right)):
        for shown in (base64.b64encode(value).decode(), value.hex(), repr(value)[2:-1]):
            for words in (done.out, done.err, failed.out, failed.err):
                assert shown not in words
                assert "hush" not in words
    identities = Identities.read(Path(place.cli.variables["BACKSTAY_IDENTITY"]))
    assert load(place.keys, headers(place.keys)[0], identities).manifests
