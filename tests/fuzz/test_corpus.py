"""Every input that is kept, on its target; and that the targets would tell."""

from pathlib import Path

import pytest

from backstay.mvcc.keyvalue import KeyValue
from fuzz import targets
from kit.snapfile import keyvalue

CORPUS = Path(__file__).parent / "corpus"
KEPT = sorted(path for path in CORPUS.rglob("*") if path.is_file())


def test_every_target_has_inputs_and_every_input_a_target():
    assert {path.parent.name for path in KEPT} == set(targets.TARGETS)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.name[:20]}")
def test_an_input_is_no_finding(path):
    targets.TARGETS[path.parent.name](path.read_bytes())


def test_a_value_that_is_read_otherwise_than_by_protobuf_is_a_finding(monkeypatch):
    monkeypatch.setattr(targets, "parse_keyvalue", lambda data: KeyValue(b"other"))
    with pytest.raises(AssertionError):
        targets.keyvalue(keyvalue(b"key"))


def test_two_ways_that_differ_are_a_finding(monkeypatch):
    data = (CORPUS / "bolt" / "small").read_bytes()
    right = targets.examine
    monkeypatch.setattr(
        targets, "examine", lambda one: right(one) if targets.sweep._BULK_BYTES else _broken()
    )
    with pytest.raises(AssertionError):
        targets.bolt(data)


def _broken():
    raise targets.DamagedError("it is said to be damaged")


def test_an_error_of_python_is_a_finding(monkeypatch):
    def breaks(data, name):
        raise KeyError(name)

    monkeypatch.setattr(targets, "parse_note", breaks)
    with pytest.raises(KeyError):
        targets.document(b"{}")


def test_seeds_reach_what_is_behind_the_sums():
    """With sums that are made right a seed is read to its end."""
    for name in ("small", "compacted", "tree", "bumped", "lease"):
        found = targets._seen(targets.repaired((CORPUS / "bolt" / name).read_bytes()), bulk=0)
        assert found[0].startswith("Structure("), name
        assert found[1].startswith("Content("), name
        assert found[3] is not None


def test_deltas_reach_the_snapshot_that_they_go_into(monkeypatch):
    reached = []
    monkeypatch.setattr(targets, "_check_added", lambda *found: reached.append(found[-1]))
    for path in sorted((CORPUS / "delta").iterdir()):
        data = path.read_bytes()
        assert targets.resealed(data) == data
        assert targets.resealed(data[:-1] + b"\0") == data
        targets.delta(data)
    assert sum(map(bool, reached)) == 5


def test_a_change_that_comes_out_otherwise_is_a_finding(monkeypatch):
    right = targets.export
    monkeypatch.setattr(targets, "export", lambda one, made, past: right(one, made))
    with pytest.raises(AssertionError):
        targets.delta((CORPUS / "delta" / "changes").read_bytes())
