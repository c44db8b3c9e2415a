"""Find a Chromium for the tests of ComfyUI's page, or install one. Standard library only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from pack.dev.setup.downloads import SetupError, call, step

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
    "chrome",
)
BY_HAND = "Install Chromium or Google Chrome, or set SKYREELS_CHROMIUM to the program, and run it again."


def chromium_path() -> Path | None:
    """The Chromium, Chrome or Edge on this machine, or None. SKYREELS_CHROMIUM names one by hand.

    Raises SetupError when SKYREELS_CHROMIUM names no file.
    """
    given = os.environ.get("SKYREELS_CHROMIUM")
    if given:
        if not Path(given).is_file():
            raise SetupError(f"SKYREELS_CHROMIUM is {given}, which is not a program: correct it, or unset it.")
        return Path(given)
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return Path(found)
    places = [
        Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
        Path("/Applications/Chromium.app/Contents/MacOS/Chromium"),
    ]
    for variable in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA"):
        if os.environ.get(variable):
            places.append(Path(os.environ[variable]) / "Google" / "Chrome" / "Application" / "chrome.exe")
    return next((place for place in places if place.is_file()), None)


def check_chromium(program: Path) -> None:
    """Open an empty page. Raises SetupError with one sentence where the program does not."""
    # --version would do, but on Windows it opens a window.
    options = ["--headless", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--dump-dom", "about:blank"]
    try:
        done = subprocess.run([program, *options], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        shown, said = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        lines = [line.strip() for line in said.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
        why = "" if "<html>" in shown else re.sub(r"^\[[^]]*\] ?", "", lines[-1])
    except OSError as error:
        why = error.strerror
    except subprocess.TimeoutExpired:
        why = "it showed nothing for a minute"
    if why:
        raise SetupError(f"The browser {program} does not open a page ({why.rstrip('.')}). {BY_HAND}")


def install_chromium() -> Path:
    """Install Chromium from the system's packages and return it. Raises SetupError where that is not possible."""
    as_root = [] if hasattr(os, "geteuid") and os.geteuid() == 0 else ["sudo", "-n"]
    if not shutil.which("apt-get") or (as_root and not shutil.which("sudo")):
        raise SetupError(f"The tests of ComfyUI's page need a browser, and none was found. {BY_HAND}")
    as_root += ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    with step("Chromium"):
        call([*as_root, "update"], "Reading the list of system packages", BY_HAND)
        install = [*as_root, "install", "-y", "--no-install-recommends", "chromium", "fonts-liberation"]
        call(install, "Installing Chromium", BY_HAND)
    program = chromium_path()
    if not program:
        raise SetupError(f"Chromium was installed from the system's packages but cannot be found. {BY_HAND}")
    return program
