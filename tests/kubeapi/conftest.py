import pytest


@pytest.fixture
def streams(server):
    """The streams of a module's server, without a fault."""
    server.streams.fault = None
    yield server.streams
    server.streams.fault = None


@pytest.fixture
def api(server, streams):
    """Our way to that server."""
    with server.api() as api:
        yield api
