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


@pytest.mark.parametrize(("field", "most", "shape"), [("Icon", (800, 400), 1), ("Banner", (2560, 1100), 21 / 9)])
def test_its_pictures_are_here_under_the_address_of_the_repository(field: str, most: tuple[int, int], shape: float):
    from PIL import Image

    address = PROJECT["tool"]["comfy"][field]
    start = f"{PROJECT['project']['urls']['Repository']}/raw/main/"
    assert address.startswith(start)
    with Image.open(ROOT / address.removeprefix(start)) as picture:
        assert picture.format == "PNG"
        assert picture.width <= most[0] and picture.height <= most[1] and picture.width / picture.height == shape


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


# What artists may lack: it speeds up, or belongs to a job of its own. The last two are asked for in requirements.txt.
OPTIONAL = ("triton", "bitsandbytes", "comfy_kitchen", "ray", "sageattention", "flash_attn", "flash_attn_interface")
REQUIRED = ("ftfy", "soxr")
BLOCKED = """
import importlib, pkgutil, sys
sys.path.insert(0, "tools")
blocked, folders = sys.argv[1].split(","), sys.argv[2].split(",")

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
import torch
import pack

for folder in folders:
    package = importlib.import_module(f"pack.{folder}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.rpartition(".")[2].startswith("triton_"):  # imported by what falls back without it
            importlib.import_module(module.name)

from pack.formats.encoding import Encoding
from pack.formats.registry import format_of

weight, x = torch.randn(128, 128), torch.randn(2, 128)
for name in ("int8", "nf4"):
    made = format_of(Encoding(name))
    error = made.linear(x, made.pack(weight), 128, None) - x @ weight.T
    assert error.norm() < 0.2 * (x @ weight.T).norm(), name
"""


def test_everything_is_there_without_the_packages_that_are_optional():
    """The two that are required are imported where speech and prompts are read, no sooner."""
    folders = ("formats", "kernels", "skyreels_v3", "model_loaders", "distributed")
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, ",".join(OPTIONAL + REQUIRED), ",".join(folders)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not {*OPTIONAL} & {re.split(r"[<>=~ ]", line)[0] for line in requirements()}


def test_every_requirement_has_a_lower_bound_and_a_reason():
    for line in requirements():
        assert re.fullmatch(r"[a-z]+>=[\d.]+ +# .{20,}", line), line
    assert {re.split(r"[<>=]", line)[0] for line in requirements()} == {*REQUIRED}


def requirements() -> list[str]:
    """The lines of requirements.txt that name a package."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]
