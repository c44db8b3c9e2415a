"""Fixtures and hooks are in support/plugin.py, which the tests of training share."""

pytest_plugins = ["pack.tests.support.plugin"]
