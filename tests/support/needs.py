"""Hooks of pytest, for conftest.py: where the browser or ComfyUI is missing, no test starts.

Only what the collected tests need is looked for. Several processes collect each for itself and leave the tests out; the
one that started them says why.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from pack.dev.setup.browser import check_chromium, chromium_path
from pack.dev.setup.downloads import SetupError
from pack.dev.setup.environment import comfyui_path, requirements, venv_python

COMMAND = "run `python3 dev/setup/environment.py --browser`, or `make test`, which does"
said: list[str] = []  # by the processes that collected


def missing(marks: set[str]) -> str:
    """What tests of these marks lack, one sentence; "" when it is all there."""
    try:
        if marks & {"host", "server", "browser"}:
            check_requirements(comfyui_path())
        if marks & {"server", "browser"} and not venv_python().exists():
            return f"There is no .venv, whose Python starts ComfyUI: {COMMAND}."
        if "browser" in marks:
            program = chromium_path()
            if program is None:
                return f"There is no Chromium, which the tests of ComfyUI's page open: {COMMAND}."
            check_chromium(program)
    except SetupError as error:
        return str(error)
    return ""


def check_requirements(host: Path) -> None:
    """Raise SetupError where this Python lacks packages that a ComfyUI asks for."""
    names = [re.match(r"[\w.-]*", line.strip())[0] for line in requirements(host) if ";" not in line]
    absent = []
    for name in filter(None, names):
        try:
            distribution(name)
        except PackageNotFoundError:
            absent.append(name)
    if absent:
        raise SetupError(f"The ComfyUI in {host} needs {', '.join(absent)}, not installed in this Python: {COMMAND}.")


@pytest.hookimpl(tryfirst=True)  # before the other process is told of the tests
def pytest_collection_finish(session: pytest.Session) -> None:
    config = session.config
    if config.option.collectonly:
        return
    sentence = missing({mark.name for item in session.items for mark in item.iter_markers()})
    if not sentence:
        return
    if hasattr(config, "workeroutput"):
        config.workeroutput["missing"] = sentence
        session.items.clear()
    else:
        raise pytest.UsageError(sentence)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    sentence = getattr(node, "workeroutput", {}).get("missing")
    if sentence and sentence not in said:
        said.append(sentence)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if said:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR


def pytest_terminal_summary(terminalreporter) -> None:
    for sentence in said:
        terminalreporter.write_line(f"ERROR: {sentence}", red=True)
