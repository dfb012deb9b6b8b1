"""A few keys, found by name: the newest value of each, or none where it was deleted."""

import pytest

from backstay.errors import DamagedError
from backstay.kubedata.lookup import look_up
from kit import kube

A, B, C = b"/kubernetes.io/a", b"/kubernetes.io/b", b"/kubernetes.io/c"


def found(history, *keys):
    with kube.made_snapshot(history) as snapshot:
        return look_up(snapshot, keys)


def test_the_newest_value_of_each_counts():
    history = [(A, b"1"), (B, b"2"), (A, b"3"), (C, b"4")]
    assert found(history, A, B) == {A: b"3", B: b"2"}
    assert found(history, b"/other") == {}


def test_what_was_deleted_is_not_there():
    assert found([(A, b"1"), (B, b"1"), (A, None)], A, B) == {B: b"1"}
    assert found([(A, b"1"), (A, None), (A, b"2")], A) == {A: b"2"}


def test_a_key_that_only_begins_or_is_named_in_a_value_is_another():
    assert found([(A + b"/more", b"1"), (B, A)], A) == {}


def test_many_pages_are_passed_over():
    history = [(b"/kubernetes.io/x/%d" % n, b"x" * 500) for n in range(2000)]
    assert found([*history, (A, b"1"), *history], A) == {A: b"1"}


def test_an_element_that_is_none_is_damage():
    element = (b"\0" * 7 + b"\2_" + b"\0" * 8, b"\x0a\xff" + A)
    with kube.raw_snapshot([element]) as snapshot, pytest.raises(DamagedError):
        look_up(snapshot, [A])


def test_an_empty_file_has_nothing():
    with kube.raw_snapshot([]) as snapshot:
        assert look_up(snapshot, [A]) == {}
