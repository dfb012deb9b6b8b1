"""Our own certificates are looked at before anything is dialled."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from backstay.client.access import Tls
from backstay.client.certificates import check_tls, expiry, for_clients, hosts, issuer, out_of_time
from backstay.errors import ConnectionFailedError, UsageError
from kit.certificates import Authority, days

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def authority():
    return Authority.make("the authority")


def der(identity):
    return x509.load_pem_x509_certificate(identity.certificate).public_bytes(
        serialization.Encoding.DER
    )


def test_what_fits_is_let_through(authority):
    mine = authority.issue("me")
    check_tls(Tls(ca=authority.pem, certificate=mine.certificate, key=mine.key), NOW)
    check_tls(Tls(), NOW)


def test_a_chain_and_a_bundle_with_one_good_authority_are_let_through(authority):
    old = Authority.make("old", start=days(-9), end=days(-2))
    mine = authority.issue("me")
    tls = Tls(
        ca=old.pem + authority.pem, certificate=mine.certificate + authority.pem, key=mine.key
    )
    check_tls(tls, NOW)


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [(-9, -2, r"\(CN=me\) ran out on 2\d{3}-"), (2, 9, r"\(CN=me\) is not valid before 2\d{3}-")],
)
def test_a_client_certificate_out_of_its_time_is_named(authority, start, end, words):
    mine = authority.issue("me", start=days(start), end=days(end))
    with pytest.raises(ConnectionFailedError, match=words):
        check_tls(Tls(ca=authority.pem, certificate=mine.certificate, key=mine.key), NOW)


def test_an_authority_that_ran_out_is_named():
    old = Authority.make("old", start=days(-9), end=days(-2))
    with pytest.raises(ConnectionFailedError, match="authority that is to be trusted ran out"):
        check_tls(Tls(ca=old.pem), NOW)


def test_a_key_of_another_certificate_is_refused(authority):
    mine, other = authority.issue("me"), authority.issue("other")
    with pytest.raises(UsageError, match="does not belong"):
        check_tls(Tls(certificate=mine.certificate, key=other.key), NOW)


def test_files_that_are_no_certificates_or_keys_are_refused_without_repeating_them(authority):
    mine = authority.issue("me")
    for tls in (
        Tls(ca=b"SECRET"),
        Tls(ca=b""),
        Tls(ca=mine.key),
        Tls(ca=b"-----BEGIN CERTIFICATE-----\nSECRET\n-----END CERTIFICATE-----\n"),
        Tls(certificate=b"SECRET", key=mine.key),
        Tls(certificate=mine.certificate, key=b"SECRET"),
        Tls(certificate=mine.certificate, key=mine.certificate),
        Tls(certificate=mine.certificate, key=mine.key[:100] + b"\nSECRET\n" + mine.key[100:]),
    ):
        with pytest.raises(UsageError) as caught:
            check_tls(tls, NOW)
        assert "SECRET" not in str(caught.value)


def test_an_encrypted_key_is_refused(authority):
    mine = authority.issue("me")
    locked = serialization.load_pem_private_key(mine.key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"pass"),
    )
    with pytest.raises(UsageError, match="encrypted"):
        check_tls(Tls(certificate=mine.certificate, key=locked), NOW)


def test_certificates_are_put_into_words(authority):
    server = authority.issue("etcd", hosts=("a.example", "10.0.0.1"))
    assert hosts(der(server)) == "a.example, 10.0.0.1"
    assert hosts(der(authority.issue("etcd", hosts=()))) == "no name at all"
    assert issuer(der(server)) == "CN=the authority"
    assert out_of_time(der(server), NOW) == ""
    assert "ran out" in out_of_time(der(server), days(9))
    assert [f(b"junk") for f in (hosts, issuer)] == ["no name at all", "unknown"]
    assert abs(expiry(server.certificate) - days(2)) < dt.timedelta(minutes=1)


def test_a_certificate_that_clients_may_not_show_is_known(authority):
    assert for_clients(authority.issue("both").certificate)
    assert not for_clients(authority.issue("server", usages=("server",)).certificate)
    assert for_clients(authority.pem)
    assert not for_clients(b"junk")
