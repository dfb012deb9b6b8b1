"""`pin`, `unpin` and `prune` as a user has them."""

import json

import pytest

from backstay.cli.pin import whoever
from backstay.report import Verdict
from kit.cli import Cli
from kit.manifests import checks
from kit.shelf import Shelf


@pytest.fixture
def shelf(tmp_path):
    return Shelf.make(tmp_path)


@pytest.fixture
def cli(tmp_path, shelf):
    home = tmp_path / "home"
    home.mkdir()
    return Cli(home, {"BACKSTAY_REPO": shelf.repository.store.url})


@pytest.fixture
def made(shelf):
    return [shelf.add(days=7.5 - n, revision=n + 1, keyring=n == 0) for n in range(5)]


def table(text):
    """What becomes of each backup, by the table."""
    lines = text.splitlines()
    assert lines[0].split() == ["ID", "LINEAGE", "WRITTEN", "PLAN", "WHY"]
    return {line.split()[0]: line.split()[4] for line in lines[1:]}


def test_a_plan_with_reasons_comes_first_and_yes_does_it(cli, shelf, made):
    done = cli("prune", "--keep-daily", 2)
    expected = dict(zip([m.id for m in made], ["remove"] * 3 + ["keep"] * 2, strict=True))
    assert table(done.out) == expected
    assert "daily 2 of 2: the newest of " in done.out
    assert "daily: 2 newer are kept" in done.out
    assert "3 of 5 backups would be removed (192 B); run it again with --yes" in done.err
    assert len(shelf.listed) == 5
    done = cli("prune", "--keep-daily", 2, "--yes")
    assert table(done.out) == expected
    assert "removed 3 of 5 backups (192 B)" in done.err
    assert "the keyrings of 1 removed backups stay where they are; with --keys-repo" in done.err
    assert set(shelf.listed) == {made[3].id, made[4].id}
    done = cli("prune", "--keep-daily", 2, "--yes", BACKSTAY_KEYS_REPO=shelf.keys.store.url)
    assert f"finished what had been begun: {made[0].id}" in done.err
    assert "removed 0 of 2 backups" in done.err
    shelf.assert_tidy()
    shelf.assert_whole()
    assert "none of 2 backups would be removed" in cli("prune", "--keep-last", 5).err


def test_the_same_as_json(cli, shelf, made):
    plan = cli("prune", "--keep-last", 1, "--json").json
    assert plan["executed"] is False
    assert plan["policy"]["last"] == 1
    assert [one["keep"] for one in plan["backups"]] == [False] * 4 + [True]
    assert all(one["reasons"] and one["fate"] is None for one in plan["backups"])
    done = cli("prune", "--keep-last", 1, "--yes", "--json")
    assert json.loads(done.out) == done.json
    assert [one["fate"] for one in done.json["backups"]] == ["removed"] * 4 + [None]
    assert done.json["keys_left"] == [made[0].id]
    assert set(shelf.listed) == {made[4].id}


def test_the_settings_file_can_say_what_to_keep(cli, shelf, made):
    (cli.folder / "backstay.toml").write_text("[prune]\nkeep-last = 2\nkeep-daily = 1\n")
    assert list(table(cli("prune").out).values()).count("remove") == 3
    (cli.folder / "backstay.toml").write_text('[prune]\nkeep-last = "2"\n')
    assert "keep-last must be a whole number" in cli("prune", expect=2).err
    (cli.folder / "backstay.toml").write_text("[prune]\nkeep-last = -2\n")
    cli("prune", expect=2)
    assert len(shelf.listed) == 5


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "nothing says what to keep"),
        (["--keep-daily", "0"], "nothing says what to keep"),
        (["--keep-none", "--keep-last", "1"], "give one of them"),
        (["--keep-last", "-1"], "-1"),
        (["--keep-last", "many"], "many"),
    ],
)
def test_promise_7_a_policy_that_keeps_nothing_needs_a_word_of_its_own(
    cli, shelf, made, words, told
):
    for yes in ([], ["--yes"]):
        assert told in cli("prune", *words, *yes, expect=2).err
    assert len(shelf.listed) == 5


def test_promise_7_even_nothing_keeps_the_newest_verified(cli, shelf, made):
    bad = shelf.add(days=1.2, revision=9, verdicts=checks(Verdict.FAIL))
    done = cli("prune", "--keep-none", "--yes")
    assert "the newest verified of lineage aa" in done.out
    assert "a check of it failed, so no rule keeps it" in done.out
    assert set(shelf.listed) == {made[4].id}
    assert bad.id not in shelf.listed


def test_many_lineages_are_told_and_can_be_counted_as_one(cli, shelf):
    made = [shelf.add(days=7.5 - n, revision=n + 1, lineage=f"{n:016x}") for n in range(5)]
    done = cli("prune", "--keep-last", 2, "--yes")
    assert "prod has 5 lineages, and each is counted for itself; where they are" in done.err
    assert "--across-lineages" in done.err
    assert len(shelf.listed) == 5
    cli("prune", "--keep-last", 2, "--across-unproven", "--yes")
    assert len(shelf.listed) == 5
    done = cli("prune", "--keep-last", 2, "--across-lineages", "--yes")
    assert "lineages, and each" not in done.err
    assert set(shelf.listed) == {made[3].id, made[4].id}


def test_lineages_that_may_be_one_life_are_told_and_can_be_counted_as_one(cli, shelf):
    old, new = f"{0:016x}", f"{4:016x}"
    made = [
        shelf.add(days=7.5 - n, revision=n + 1, lineage=f"{n:016x}", root=old if n < 4 else new)
        for n in range(6)
    ]
    done = cli("prune", "--keep-last", 1)
    assert "--across-unproven counts those together that nothing speaks against: 2" in done.err
    done = cli("prune", "--keep-last", 1, "--across-unproven", "--yes")
    assert "lineages, and each" not in done.err
    assert set(shelf.listed) == {made[3].id, made[5].id}


def test_one_way_to_count_lineages_together_is_enough(cli, shelf, made):
    words = ("--across-unproven", "--across-lineages")
    assert "give one of them" in cli("prune", "--keep-last", 1, *words, expect=2).err


def test_what_cannot_be_read_stops_its_cluster_and_is_told(cli, shelf, made):
    others = [shelf.add(days=7.5 - n, revision=n + 1, cluster="other") for n in range(2)]
    path = "clusters/prod/backups/20261120T231000Z-r1-aaaa.json"
    shelf.repository.store.put_new(path, b'{"requires": ["chains"]}')
    assert "nothing of prod is removed" in cli("prune", "--keep-last", 1).err
    done = cli("prune", "--keep-last", 1, "--yes", "--json", expect=5)
    assert [one["path"] for one in done.json["unreadable"]] == [path]
    shelf.repository.store.delete(path)
    assert set(shelf.listed) == {*(m.id for m in made), others[1].id}


def test_what_fails_ends_with_1_and_the_others_go(cli, shelf, made):
    path = f"clusters/prod/keyrings/{made[0].name.run}.json"
    shelf.keys.store.delete(path)
    shelf.keys.store.put_new(path, b"{}")
    keys = ("--keys-repo", shelf.keys.store.url)
    done = cli("prune", "--keep-last", 1, "--yes", *keys, expect=1)
    assert "FAILED: 1" in done.err
    assert set(shelf.listed) == {made[0].id, made[4].id}


def test_a_cluster_or_a_repository_that_is_none(cli, shelf, made):
    assert "no backup of prid" in cli("prune", "--keep-last", 1, "--cluster", "prid", expect=1).err
    words = ("prune", "--keep-last", 1, "--repo", shelf.keys.store.url)
    assert "--keys-repo" in cli(*words, expect=5).err
    words = ("prune", "--keep-last", 1, "--keys-repo", shelf.repository.store.url)
    assert "keys never lie there" in cli(*words, expect=5).err


def test_promise_7_pin_and_unpin(cli, shelf, made):
    done = cli("pin", made[0].id, "--reason", "before the upgrade")
    assert f"pinned: {made[0].id}" in done.err
    second = cli("pin", made[0].id, "--json").json
    assert second["backup"] == made[0].id
    assert second["pin"]["by"] == whoever()
    lines = cli("list").out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith("verified, pinned")] == [made[0].id]
    listed = {one["id"]: one for one in cli("list", "--json").json}
    assert [pin["reason"] for pin in listed[made[0].id]["pins"]].count("before the upgrade") == 1
    assert "pins" not in listed[made[1].id]
    assert len(cli("show", made[0].id, "--json").json["pins"]) == 2
    assert "before the upgrade" in cli("show", made[0].id).out
    plan = cli("prune", "--keep-none", "--yes")
    assert f"pinned by {whoever()}" in plan.out
    assert set(shelf.listed) == {made[0].id, made[4].id}
    done = cli("unpin", made[0].id)
    assert "before the upgrade" in done.err
    assert f"unpinned: {made[0].id}" in done.err
    assert "it was not pinned" in cli("unpin", made[0].id).err
    assert cli("unpin", made[0].id, "--json").json == {"backup": made[0].id, "removed": []}
    cli("prune", "--keep-none", "--yes")
    assert set(shelf.listed) == {made[4].id}


def test_only_a_backup_can_be_pinned(cli, made):
    gone = str(made[0].name.cluster) + "/20201120T231000Z-r1-aaaa"
    assert "has no backup" in cli("pin", gone, expect=1).err
    cli("pin", "prod", expect=2)
    assert f"pinned: {made[4].id}" in cli("pin", "prod/latest").err
    assert f"unpinned: {made[4].id}" in cli("unpin", "prod/latest").err


def test_a_reason_obeys_no_terminal(cli, made):
    cli("pin", made[0].id, "--reason", "x\x1b[2J\ny")
    for words in (["list"], ["show", made[0].id], ["prune", "--keep-none"], ["unpin", made[0].id]):
        done = cli(*words)
        assert "\x1b" not in done.out + done.err
