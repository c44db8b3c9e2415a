"""Fixtures and hooks are those of tests/."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.import_plugin("pack.tests.support.plugin")
