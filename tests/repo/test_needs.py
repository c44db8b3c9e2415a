"""Where the browser or ComfyUI is missing, pytest says so in one sentence before the first test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pack.tests.support import needs

TESTS = Path(needs.__file__).parents[1]
FILES = [str(next(TESTS.rglob(name))) for name in ("test_sizes.py", "test_host_tools.py")]


def run(*options, **variables) -> subprocess.CompletedProcess:
    """pytest of a quick file and of one that needs everything."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment.pop("COMFYUI_PATH", None)
    command = [sys.executable, "-m", "pytest", "-q", *options, *FILES]
    return subprocess.run(command, cwd=TESTS.parent, env=environment | variables, capture_output=True, text=True)


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["one process", "two processes"])
def test_without_a_comfyui_no_test_starts(tmp_path: Path, options: list[str]):
    done = run(*options, SKYREELS_CACHE=str(tmp_path))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    said = done.stdout + done.stderr
    assert said.count("ERROR: ") == said.count(f"There is no ComfyUI in {tmp_path}: run `python3 dev/setup/") == 1
    assert " passed" not in said and " failed" not in said


def test_what_needs_neither_runs_without_them(tmp_path: Path):
    done = run("-m", "not server and not browser", SKYREELS_CACHE=str(tmp_path), SKYREELS_CHROMIUM=str(tmp_path))
    assert done.returncode == 0, done.stdout


def test_a_missing_or_broken_browser_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(needs, "comfyui_path", lambda: tmp_path)
    monkeypatch.setattr(needs, "chromium_path", lambda: None)
    (tmp_path / "requirements.txt").touch()
    assert needs.missing({"browser"}).startswith("There is no Chromium, which the tests of ComfyUI's page open: run `")
    assert needs.missing({"host", "server"}) == needs.missing(set()) == ""
    monkeypatch.setattr(needs, "chromium_path", lambda: Path(sys.executable))
    assert "does not open a page" in needs.missing({"browser"})


def test_a_comfyui_whose_requirements_are_not_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    lines = "# comment\n\nnumpy>=1.25\nno-such-package==1.0\nother_one ; sys_platform == 'plan9'\ntorch\n"
    (tmp_path / "requirements.txt").write_text(lines)
    monkeypatch.setattr(needs, "comfyui_path", lambda: tmp_path)
    sentence = needs.missing({"host"})
    assert sentence.startswith(f"The ComfyUI in {tmp_path} needs no-such-package, not installed in this Python: run `")
