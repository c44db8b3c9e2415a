"""Find a Chromium for the tests of ComfyUI's page, or install one. Standard library only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from downloads import SetupError, call, step

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
    "chrome",
)


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


def install_chromium() -> None:
    """Install Chromium from the system's packages. Raises SetupError where that is not possible."""
    by_hand = "Install Chromium or Google Chrome, or set SKYREELS_CHROMIUM to the program, and run it again."
    as_root = [] if hasattr(os, "geteuid") and os.geteuid() == 0 else ["sudo", "-n"]
    if not shutil.which("apt-get") or (as_root and not shutil.which("sudo")):
        raise SetupError(f"The tests of ComfyUI's page need a browser, and none was found. {by_hand}")
    as_root += ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    with step("Chromium"):
        call([*as_root, "update"], "Reading the list of system packages", by_hand)
        install = [*as_root, "install", "-y", "--no-install-recommends", "chromium", "fonts-liberation"]
        call(install, "Installing Chromium", by_hand)
    if not chromium_path():
        raise SetupError(f"Chromium was installed from the system's packages but cannot be found. {by_hand}")
