"""What ComfyUI's registry serves: the archive holds what artists need and no more, and nothing that it refuses."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pack.dev.samples import workflow_inputs
from pack.tests.support import registry_archive

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings its forerunner
    import tomli as tomllib

ROOT = workflow_inputs.ROOT
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FILES = registry_archive.files()
# In a pack that ComfyUI starts: they install, or run text as code.
REFUSED_CALLS = {"eval", "exec", "os.system", "pip.main", "subprocess.run", "subprocess.call", "subprocess.check_call"}


def test_the_project_says_what_the_registry_asks_for():
    project, comfy = PROJECT["project"], PROJECT["tool"]["comfy"]
    # The registry's rules for names: https://docs.comfy.org/registry/specifications
    assert re.fullmatch(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*", project["name"]) and len(project["name"]) < 100
    assert not project["name"].startswith("comfyui")
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert set(project["license"]) == {"file"} and (ROOT / project["license"]["file"]).is_file()
    assert project["urls"]["Repository"].startswith("https://github.com/")
    assert comfy["PublisherId"] and comfy["DisplayName"] and project["description"]
    assert re.fullmatch(r"(<|>|<=|>=|~=|!=|==)\d+\.\d+\.\d+", comfy["requires-comfyui"])
    assert project["dynamic"] == ["dependencies"]
    assert "requirements.txt" in FILES


def test_the_version_is_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{PROJECT['project']['version']}]" in changelog


def test_the_archive_holds_what_artists_need_and_no_more():
    folders = {Path(file).parts[0] for file in FILES if "/" in file}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - {"dev", "training", "benchmarks", "showcase"} <= folders
    assert {"workflows", "web", "locales", "tools"} <= folders
    assert not folders & {"tests", "training", "dev", "showcase", "nano", "benchmarks", "demo", ".ci", "build", ".venv"}
    assert [file for file in FILES if file.startswith(".") or file in ("Makefile", "SECURITY.md")] == []
    tools = {file for file in FILES if file.startswith("tools/")}
    assert {"tools/batch.py", "tools/inspect_model.py", "tools/batching/workflow.py"} <= tools
    assert sum((ROOT / file).stat().st_size for file in FILES) < 5_000_000
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(((?!https?:)[\w./-]+)\)", readme):
        assert link in FILES, f"README.md links to {link}, which is not in the archive"


def test_nothing_in_the_archive_runs_text_or_installs():
    for file in FILES:
        if not file.endswith(".py"):
            continue
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in REFUSED_CALLS, f"{file}:{node.lineno} calls {called}"
    # The very rules of `comfy node validate`, against which no comment may speak.
    command = [sys.executable, "-m", "ruff", "check", "-q", "--isolated", "--ignore-noqa", "--select", "S102,S307,E702"]
    done = subprocess.run(
        [*command, *(file for file in FILES if file.endswith(".py"))], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("tool", ["batch", "inspect_model", "measure"])
def test_its_tools_run_by_themselves(tmp_path: Path, tool: str):
    folder = registry_archive.write(tmp_path / "pack")
    command = [sys.executable, "-S", "-E", folder / "tools" / f"{tool}.py", "--help"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_its_workflows_name_this_version(tmp_path: Path):
    for file in workflow_inputs.workflow_files().values():
        versions = {
            node["properties"]["ver"]
            for node in json.loads(file.read_text(encoding="utf-8"))["nodes"]
            if node["properties"].get("cnr_id") == PROJECT["project"]["name"]
        }
        assert versions <= {PROJECT["project"]["version"]}, file.name
