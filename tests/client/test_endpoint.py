"""Addresses, as etcdctl takes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.client.endpoint import Endpoint, Scheme, parse_endpoint, parse_endpoints
from backstay.errors import UsageError


@pytest.mark.parametrize(
    ("text", "meaning", "shown"),
    [
        ("https://h:2379", (Scheme.HTTPS, "h", 2379), "https://h:2379"),
        ("http://h:1", (Scheme.HTTP, "h", 1), "http://h:1"),
        ("h:2379", (Scheme.HTTPS, "h", 2379), "https://h:2379"),
        ("10.0.0.1:4001", (Scheme.HTTPS, "10.0.0.1", 4001), "https://10.0.0.1:4001"),
        ("https://h", (Scheme.HTTPS, "h", 2379), "https://h:2379"),
        (" https://h:1/ ", (Scheme.HTTPS, "h", 1), "https://h:1"),
        ("https://[::1]:2379", (Scheme.HTTPS, "::1", 2379), "https://[::1]:2379"),
        ("[fe80::1]:7", (Scheme.HTTPS, "fe80::1", 7), "https://[fe80::1]:7"),
        ("unix:///run/etcd.sock", (Scheme.UNIX, "/run/etcd.sock", 0), "unix:///run/etcd.sock"),
        ("unix://client:0", (Scheme.UNIX, "client:0", 0), "unix://client:0"),
        ("unixs:///s", (Scheme.UNIXS, "/s", 0), "unixs:///s"),
    ],
)
def test_an_endpoint_is_read_and_shown(text, meaning, shown):
    endpoint = parse_endpoint(text)
    assert endpoint == Endpoint(*meaning)
    assert str(endpoint) == shown
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ftp://h:1",
        "https://",
        "https://h:99999",
        "https://h:0",
        "https://h:x",
        "https://h:",
        "https://h:1/path",
        "https://h:1?x=y",
        "https://h:1#x",
        "https://[::1",
        "https://a b:1",
        "h:1:2",
        "unix://",
        "unix:///" + "x" * 200,
        "unix:///a\0b",
    ],
)
def test_nonsense_is_refused_with_what_to_write(text):
    with pytest.raises(UsageError) as caught:
        parse_endpoint(text)
    assert caught.value.do


def test_plain_http_is_spoken_only_where_the_url_says_so():
    assert [parse_endpoint(t).is_tls for t in ("h:1", "https://h:1", "unixs:///s")] == [True] * 3
    assert [parse_endpoint(t).is_tls for t in ("http://h:1", "unix:///s")] == [False] * 2


def test_a_password_in_a_url_is_refused_and_not_repeated():
    with pytest.raises(UsageError) as caught:
        parse_endpoints("https://root:s3cr3t@h:2379")
    assert "s3cr3t" not in str(caught.value)


def test_a_list_keeps_its_order_and_drops_what_is_named_twice():
    assert [e.host for e in parse_endpoints("b:1, a:1,,b:1,")] == ["b", "a"]
    with pytest.raises(UsageError):
        parse_endpoints(" , ")


@given(st.text())
def test_any_text_is_an_endpoint_or_a_usage_error(text):
    try:
        endpoint = parse_endpoint(text)
    except UsageError:
        return
    assert parse_endpoint(str(endpoint)) == endpoint
