"""The set-up itself: what it refuses, how it heals, what it says. Nothing is downloaded here."""

import ast
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pack.dev.setup import downloads, environment, torch_addons
from pack.dev.setup.browser import check_chromium
from pack.dev.setup.downloads import SetupError, cache_folder, call, check_sha256, is_whole, unpack

SETUP = Path(environment.__file__).parent
TOOLS = str(SETUP.parents[1] / "tools")  # where `pack` is found
BEFORE_VENV = ("environment.py", "downloads.py", "browser.py", "installing.py")


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


def test_what_is_missing_or_cut_off_in_the_cache_is_noticed(archive: Path, tmp_path: Path):
    host = tmp_path / "host"
    assert not is_whole(host)
    unpack(archive, "inside/host/", host)
    assert is_whole(host)
    (host / "comfy" / "compiled.pyc").touch()
    assert is_whole(host), "files that came later are none of its concern"
    (host / "main.py").write_text("pr")
    assert not is_whole(host)
    unpack(archive, "inside/host/", host)
    (host / "comfy" / "sd.py").unlink()
    assert not is_whole(host)


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
    with pytest.raises(SetupError, match=r"There is no ComfyUI in .*: run `python3 dev/setup/environment.py`"):
        environment.comfyui_path()
    (tmp_path / environment.COMFYUI.folder).mkdir()
    downloads.contents(tmp_path / environment.COMFYUI.folder).write_text("5 main.py\n")
    with pytest.raises(SetupError, match="Files of the ComfyUI are missing or cut off in "):
        environment.comfyui_path()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(SetupError, match="is not a ComfyUI folder"):
        environment.comfyui_path()
    (tmp_path / "main.py").touch()
    (tmp_path / "comfy").mkdir()
    with pytest.raises(SetupError, match=r"too old: 0\.3\.75 or newer is needed"):
        environment.comfyui_path()
    (tmp_path / "comfy_api" / "latest").mkdir(parents=True)
    with pytest.raises(SetupError, match=r"has no requirements\.txt"):
        environment.comfyui_path()
    (tmp_path / "requirements.txt").touch()
    assert environment.comfyui_path() == tmp_path


def test_a_failed_command_tells_its_own_error_and_what_to_do():
    script = "print('on the way'); print('ERROR: no such package'); print('[notice] more'); raise SystemExit(1)"
    with pytest.raises(SetupError) as caught:
        call([sys.executable, "-c", script], "Installing", "Check the connection.")
    assert str(caught.value) == "Installing failed: ERROR: no such package Check the connection."
    with pytest.raises(SetupError, match=r"Installing failed: .*nowhere cannot be run"):
        call([SETUP / "nowhere"], "Installing", "")


def test_too_little_room_is_told_before_anything_is_removed(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    environment.UNFINISHED.touch()
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: type("usage", (), {"free": 2**30}))
    with pytest.raises(SetupError, match=r"There are 1\.0 GiB free .* but 4 GiB are needed"):
        environment.make_venv()
    assert environment.VENV.exists()


def test_two_runs_at_once_wait_for_each_other(tmp_path: Path):
    script = (
        f"import sys; sys.path.insert(0, {TOOLS!r}); from pathlib import Path; "
        "from pack.dev.setup.downloads import only_one\n"
        f"with only_one(Path({str(tmp_path)!r})): print('got it', flush=True)"
    )
    with downloads.only_one(tmp_path):
        other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1)
    assert other.communicate(timeout=20)[0] == "got it\n"


@pytest.mark.parametrize("name", BEFORE_VENV)
def test_what_runs_before_there_is_a_venv_needs_only_python(name: str):
    ast.parse((SETUP / name).read_text(encoding="utf-8"), feature_version=(3, 10))
    code = f"import sys; sys.path.insert(0, {TOOLS!r}); import pack.dev.setup.{name.removesuffix('.py')}"
    # -I -S: no packages of the environment, of the user or of this checkout
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_a_python_without_wheels_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "NEWEST", (3, 9))
    with pytest.raises(SetupError, match=r"This is Python 3\.\d+\.\d+, but one from 3\.10 to 3\.13 is needed"):
        environment.prepare()


@pytest.fixture
def broken_comfyui(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ComfyUI, by its files, that lacks a module. The Python is that of the tests."""
    host = checkout / "host"
    (host / "comfy_api" / "latest").mkdir(parents=True)
    (host / "comfy").mkdir()
    (host / "comfy" / "cli_args.py").touch()
    (host / "main.py").write_text("import no_such_module\n")
    monkeypatch.setenv("COMFYUI_PATH", str(host))
    monkeypatch.setattr(environment, "ROOT", SETUP.parents[1])
    monkeypatch.setattr(environment, "venv_python", lambda: Path(sys.executable))
    monkeypatch.setattr(environment, "STARTED", checkout / "started")
    return host


def test_a_comfyui_that_does_not_start_is_one_sentence(broken_comfyui: Path):
    with pytest.raises(SetupError) as caught:
        environment.check_start(broken_comfyui)
    assert str(caught.value) == (
        f"Starting the ComfyUI in {broken_comfyui} failed: error: ModuleNotFoundError: No module named "
        "'no_such_module'. Start it by hand to see why, or unset COMFYUI_PATH to use a ComfyUI from PyPI."
    )
    assert not environment.STARTED.exists()


def test_a_comfyui_that_has_started_is_not_started_again(broken_comfyui: Path, monkeypatch: pytest.MonkeyPatch):
    started = []
    monkeypatch.setattr(environment, "call", lambda command, *_: started.append(command))
    for _ in range(2):
        environment.check_start(broken_comfyui)
    assert len(started) == 1
    (broken_comfyui / "requirements.txt").write_text("scipy\n")
    environment.check_start(broken_comfyui)
    assert len(started) == 2


def test_a_browser_that_opens_nothing_is_one_sentence(tmp_path: Path):
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\necho 'libnss3.so: cannot open shared object file' >&2\nexit 127\n")
    with pytest.raises(SetupError, match=r"chromium does not open a page \(Permission denied\)\. Install Chromium"):
        check_chromium(program)
    program.chmod(0o755)
    with pytest.raises(SetupError, match=r"does not open a page \(libnss3\.so: cannot open shared object file\)\. "):
        check_chromium(program)


def test_mending_leaves_the_installers_own_copy_alone(tmp_path: Path):
    """uv links files from its cache, where others' environments have them from."""
    package, cached = tmp_path / "torchvision", tmp_path / "cached.py"
    package.mkdir()
    text = "import functools\n\n\n@functools.cache\n@torch.library.register_fake('torchvision::nms')\ndef nms(): ...\n"
    cached.write_text(text)
    (package / "_meta_registrations.py").hardlink_to(cached)
    torch_addons.guard_torchvision(package)
    assert "_register_fake_if_loaded('torchvision::nms')" in (package / "_meta_registrations.py").read_text()
    assert cached.read_text() == text


def test_what_a_fresh_python_cannot_import_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "broken_addon.py").write_text("raise OSError('libcuda.so is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert torch_addons.import_errors(["json", "broken_addon"]) == {"broken_addon": "OSError: libcuda.so is missing"}
