"""A pytest plugin: what the gradient checks of a test session could have seen.

At the end of a session it lists every check that `assert_grads` and `check_grads` made:
the test, the verdict, the resolution, the evaluations. It does so if a test with the
marker ``gradcheck`` made one, or with ``--gradcheck-summary``; with pytest-xdist too.
It is loaded with gradstab, and does not import JAX.
"""

import pytest

from gradstab.testing import ledger

_PROPERTY = "gradcheck"


def pytest_addoption(parser):
    """Adds the option."""
    parser.getgroup("gradstab").addoption(
        "--gradcheck-summary",
        action="store_true",
        help="list the gradient checks of all tests with their resolutions",
    )


def pytest_configure(config):
    """Adds the marker, and the list of what was seen."""
    config.addinivalue_line(
        "markers", "gradcheck: checks gradients; `-m gradcheck` runs these"
    )
    config.pluginmanager.register(_Summary(config), "gradstab-summary")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Keeps the checks of a test in its report."""
    page = ledger.open_page()
    try:
        return (yield)
    finally:
        ledger.close_page()
        if page:
            marked = item.get_closest_marker("gradcheck") is not None
            # A property of the report reaches the main process of pytest-xdist.
            item.user_properties.append((_PROPERTY, {"marked": marked, "checks": page}))


class _Summary:
    """Collects reports in the main process, and prints them at the end."""

    def __init__(self, config):
        self._wanted = config.getoption("--gradcheck-summary")
        self._rows = []

    def pytest_runtest_logreport(self, report):
        if report.when != "call":
            return
        for name, kept in report.user_properties:
            if name == _PROPERTY:
                self._wanted = self._wanted or kept["marked"]
                self._rows += [(report.nodeid, check) for check in kept["checks"]]

    def pytest_terminal_summary(self, terminalreporter):
        if not self._wanted or not self._rows:
            return
        terminalreporter.section("gradient checks")
        terminalreporter.write_line("verdict       resolution  evaluations  test")
        for test, check in sorted(self._rows, key=_severity):
            terminalreporter.write_line(
                f"{check['verdict']:<12}  {check['resolution']:>10.1e}  "
                f"{check['evaluations']:>11}  {test}"
            )


def _severity(row):
    """The worst first: failures, what was not seen, then the coarsest."""
    test, check = row
    order = ("FAIL", "INCONCLUSIVE", "accepted", "PASS")
    return order.index(check["verdict"]), -check["resolution"], test
