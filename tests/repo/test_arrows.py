"""The house: every import, late ones too, goes from a folder to one further down; every folder says what it holds."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# From the roof to the ground. A line imports only from lines below its own; names on one line do not meet. A name
# stands for what lies in it, as far as no longer name does.
FLOORS = """
tests training/tests
tests/goldens
tests/support
benchmarks/card
benchmarks
benchmarks/forward benchmarks/files benchmarks/jobs
benchmarks/harness
showcase
training
training/measures
training/methods
training/data
training/models
training/world
dev/fake_card
dev/samples dev/locales
dev/comfyui
dev/setup dev/drawing dev/charts
tools
tools/batching tools/inspecting tools/serving
tools/measuring
__init__
nodes/registry nodes/routes
nodes/jobs
nodes/runs
nodes/models nodes/sampling
nodes/network
nodes/weights
nodes/inputs nodes/encoders
nodes/versions
distributed
model_loaders
model_loaders/checkpoints
model_loaders/loras
model_loaders/architecture
model_loaders/tensors
model_loaders/files
formats
skyreels_v3/jobs/dialogue skyreels_v3/jobs/writing
skyreels_v3/resume skyreels_v3/jobs/estimates skyreels_v3/jobs/film
skyreels_v3/jobs/spec
skyreels_v3/jobs/dub
skyreels_v3/jobs/reference skyreels_v3/jobs/extension skyreels_v3/jobs/avatar
skyreels_v3/speech skyreels_v3/video skyreels_v3/measures
skyreels_v3/jobs/table skyreels_v3/images skyreels_v3/sampling skyreels_v3/vae skyreels_v3/model
distributed/joining
kernels distributed/ranks
skyreels_v3/digest skyreels_v3/errors skyreels_v3/container skyreels_v3/cpu_memory skyreels_v3/recipes skyreels_v3/units
"""
FLOOR = {name: number for number, line in enumerate(FLOORS.split("\n")) for name in line.split()}
WORK = ("kernels", "dev/comfyui/small_encoders")  # whose __init__ is more than a description


def files() -> list[str]:
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "*.py"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [name for name in names if (ROOT / name).is_file() and not name.startswith("tests/data/")]


FILES = files()
MODULES = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in FILES}


def imported(file: str) -> Iterator[tuple[int, str]]:
    """(line, file) of every import in `file` from this checkout: a relative one, or one by way of `pack`."""
    folder = file.split("/")[:-1]
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        path = (node.module or "").split(".") if node.module else []
        if node.level:
            path = folder[: len(folder) - node.level + 1] + path
        elif path[:1] == ["pack"]:
            path = path[1:]
        else:
            continue
        for alias in node.names:
            module = [*path, alias.name]
            while module and ".".join(module) not in MODULES:
                module.pop()
            if module:
                yield node.lineno, MODULES[".".join(module)]


def place(file: str) -> str:
    """The name in FLOORS that a file belongs to."""
    parts = file.removesuffix(".py").split("/")
    names = ["/".join(parts[:depth]) for depth in range(len(parts), 0, -1)]
    return next((name for name in names if name in FLOOR), file)


def test_every_file_has_its_floor():
    places = {place(file) for file in FILES if not file.endswith("/__init__.py")}
    assert places == set(FLOOR)


def test_every_import_goes_down():
    climbing = [
        f"{file}:{line} imports {other}"
        for file in FILES
        for line, other in imported(file)
        if place(file) != place(other) and FLOOR.get(place(file), 0) >= FLOOR.get(place(other), len(FLOOR))
    ]
    assert climbing == []


@pytest.mark.parametrize("file", [name for name in FILES if name.endswith("/__init__.py")])
def test_every_package_says_what_it_holds(file: str):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert len(ast.get_docstring(tree) or "") > 20
    # Nothing is imported in passing: headers of models are read where there is no torch.
    assert len(tree.body) == 1 or file.rpartition("/")[0] in WORK


def test_every_folder_with_code_is_a_package():
    # But for tests, which pytest would then import by the name of the checkout's folder.
    folders = {name.rpartition("/")[0] for name in FILES if "/" in name}
    bare = {folder for folder in folders if not (ROOT / folder / "__init__.py").is_file()}
    assert {folder for folder in bare if "tests" not in folder.split("/")} == set()
