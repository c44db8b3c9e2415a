"""The set-up itself: what it refuses, how it heals, what it says. Nothing is downloaded here."""

import ast
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import downloads
import environment
from downloads import SetupError, cache_folder, call, check_sha256, unpack

TOOLS = Path(environment.__file__).parent
BEFORE_VENV = ("environment.py", "downloads.py", "browser.py")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "package.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("inside/host/main.py", "print()")
        wheel.writestr("inside/host/comfy/sd.py", "")
        wheel.writestr("inside/host/not_ours.yaml", "")
        wheel.writestr("elsewhere/other.py", "")
    return path


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with what the stamp reads, and a host in it."""
    root = tmp_path / "checkout"
    (root / "host").mkdir(parents=True)
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / "requirements.txt").write_text("# nothing\n")
    (root / "host" / "requirements.txt").write_text("numpy\n")
    (root / "pyproject.toml").write_text('[dependency-groups]\ndev = ["pytest"]\n\n[tool.ruff]\nline-length = 110\n')
    python = environment.venv_python().relative_to(environment.VENV)
    (root / ".venv" / python).parent.mkdir(exist_ok=True)
    (root / ".venv" / python).touch()
    monkeypatch.setattr(environment, "ROOT", root)
    monkeypatch.setattr(environment, "VENV", root / ".venv")
    monkeypatch.setattr(environment, "STAMP", root / ".venv" / "stamp")
    monkeypatch.setattr(environment, "UNFINISHED", root / ".venv.unfinished")
    return root


def test_a_file_with_another_checksum_is_refused(archive: Path):
    actual = hashlib.sha256(archive.read_bytes()).hexdigest()
    check_sha256(archive, actual)
    with pytest.raises(SetupError, match=f"package.whl has SHA-256 {actual}, but {'0' * 64} is needed"):
        check_sha256(archive, "0" * 64)


def test_only_the_wanted_folder_is_unpacked(archive: Path, tmp_path: Path):
    unpack(archive, "inside/host/", tmp_path / "host", without=("not_ours.yaml",))
    files = {path.relative_to(tmp_path / "host").as_posix() for path in (tmp_path / "host").rglob("*.*")}
    assert files == {"main.py", "comfy/sd.py"}
    assert not list(tmp_path.glob("*.partial"))


def test_an_interrupted_unpacking_is_made_good(archive: Path, tmp_path: Path):
    (tmp_path / "host.partial" / "inside" / "host").mkdir(parents=True)
    (tmp_path / "host.partial" / "inside" / "host" / "half.py").touch()
    unpack(archive, "inside/host/", tmp_path / "host")
    assert (tmp_path / "host" / "main.py").is_file()
    assert not (tmp_path / "host" / "half.py").exists()


def test_a_broken_archive_leaves_nothing_that_looks_whole(archive: Path, tmp_path: Path):
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(zipfile.BadZipFile):
        unpack(archive, "inside/host/", tmp_path / "host")
    assert not (tmp_path / "host").exists()


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SKYREELS_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("SKYREELS_CACHE")
    assert cache_folder().name == "skyreels-v3"
    assert environment.ROOT not in cache_folder().parents


def test_the_stamp_follows_the_requirements_and_nothing_else(checkout: Path):
    host = checkout / "host"
    first = environment.stamp(host)
    project = checkout / "pyproject.toml"
    project.write_text(project.read_text().replace("110", "100"))
    assert environment.stamp(host) == first
    for file, text in (
        (project, '[dependency-groups]\ndev = ["pytest", "ruff"]\n'),
        (checkout / "requirements.txt", "gguf\n"),
        (host / "requirements.txt", "scipy\n"),
    ):
        before = environment.stamp(host)
        file.write_text(text)
        assert environment.stamp(host) != before, file.name


def test_an_interrupted_run_does_not_count_as_ready(checkout: Path):
    host = checkout / "host"
    assert not environment.is_ready(host)
    environment.STAMP.write_text(environment.stamp(host))
    assert environment.is_ready(host)
    environment.UNFINISHED.touch()
    assert not environment.is_ready(host)


def test_a_missing_comfyui_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setenv("SKYREELS_CACHE", str(tmp_path))
    with pytest.raises(SetupError, match=r"There is no ComfyUI in .*: run `python3 tools/environment.py`"):
        environment.comfyui_path()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(SetupError, match="is not a ComfyUI folder"):
        environment.comfyui_path()
    (tmp_path / "main.py").touch()
    (tmp_path / "comfy").mkdir()
    with pytest.raises(SetupError, match=r"too old: 0\.3\.75 or newer is needed"):
        environment.comfyui_path()
    (tmp_path / "comfy_api" / "latest").mkdir(parents=True)
    assert environment.comfyui_path() == tmp_path


def test_a_failed_command_tells_its_own_error_and_what_to_do():
    script = "print('on the way'); print('ERROR: no such package'); print('[notice] more'); raise SystemExit(1)"
    with pytest.raises(SetupError) as caught:
        call([sys.executable, "-c", script], "Installing", "Check the connection.")
    assert str(caught.value) == "Installing failed: ERROR: no such package Check the connection."
    with pytest.raises(SetupError, match=r"Installing failed: .*nowhere cannot be run"):
        call([TOOLS / "nowhere"], "Installing", "")


def test_too_little_room_is_told_before_anything_is_removed(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    environment.UNFINISHED.touch()
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: type("usage", (), {"free": 2**30}))
    with pytest.raises(SetupError, match=r"There are 1\.0 GiB free .* but 4 GiB are needed"):
        environment.make_venv()
    assert environment.VENV.exists()


def test_two_runs_at_once_wait_for_each_other(tmp_path: Path):
    script = (
        f"import sys; sys.path.insert(0, {str(TOOLS)!r}); from pathlib import Path; from downloads import only_one\n"
        f"with only_one(Path({str(tmp_path)!r})): print('got it', flush=True)"
    )
    with downloads.only_one(tmp_path):
        other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1)
    assert other.communicate(timeout=20)[0] == "got it\n"


@pytest.mark.parametrize("name", BEFORE_VENV)
def test_what_runs_before_there_is_a_venv_needs_only_python(name: str):
    ast.parse((TOOLS / name).read_text(encoding="utf-8"), feature_version=(3, 10))
    code = f"import sys; sys.path.insert(0, {str(TOOLS)!r}); import {name.removesuffix('.py')}"
    # -I -S: no packages of the environment, of the user or of this checkout
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
