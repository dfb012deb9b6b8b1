"""Real parts for tests: servers, certificates, fixtures, faults."""
