import pytest

from kit import azurite, gcs


@pytest.fixture(scope="module")
def azure(tmp_path_factory):
    with azurite.running(tmp_path_factory.mktemp("azure")) as server:
        yield server


@pytest.fixture(scope="module")
def google():
    with gcs.running() as server:
        yield server


@pytest.mark.parametrize(
    ("kind", "url"), [("azure", "az://backups/prod"), ("google", "gs://backups/prod")]
)
def test_a_backup_is_made_proven_and_taken_out(cli, request, kind, url):
    cli.variables |= request.getfixturevalue(kind).environment | {"BACKSTAY_REPO": url}
    more = ("--allow-http",) if kind == "google" else ()
    recipient = cli("keygen", "-o", "identity.txt", "--json").json["recipient"]
    found = cli("init", "--recipient", recipient, "--json", *more).json["capabilities"]
    assert found["create_only"]
    assert found["deletes"]
    made = cli("backup", "etcd", "--cluster", "prod", "--json", *more).json
    cli.variables["BACKSTAY_IDENTITY"] = "identity.txt"
    cli("verify", "prod/latest", "--read-data", *more)
    cli("recipients", "check", *more)
    cli("export", made["id"], "-o", "out.db", *more)
    cli("verify", "./out.db")
