"""What all tests share: fixtures of real parts, and the rule that a skip is seen."""

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from kit.start import sitecustomize

_START = str(Path(sitecustomize.__file__).parent)
if _START not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_START, os.environ.get("PYTHONPATH"))))

settings.register_profile(
    "backstay",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("backstay")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Under CI=true a skipped test is a failed one: nothing may hide behind a missing program."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: skipped, which CI does not allow: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter):
    """Count at the end what was not tested here."""
    reasons = Counter(
        report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in terminalreporter.stats.get("skipped", ())
    )
    if reasons:
        terminalreporter.section(f"{sum(reasons.values())} tests did not run here")
        for reason, number in reasons.most_common():
            terminalreporter.line(f"{number:5}  {reason.removeprefix('Skipped: ')}")
