"""Packages into a virtual environment: by uv where it is there or can be had, else by pip.

uv takes seconds where pip takes minutes, but does not look at pip's configuration. `uv_variables` hands it on: mirrors,
files on the disk and proxies count for both. Standard library only.
"""

from __future__ import annotations

import ast
import os
import platform
import shutil
import sys
from pathlib import Path

from pack.dev.setup.downloads import SetupError, call

NEEDS = "PyPI is needed, or the mirror in pip's configuration: check the connection and run it again."
# pip's setting -> uv's variables, and what stands between several values of uv's.
HANDED_ON = {
    "index-url": (("UV_INDEX_URL",), " "),
    "extra-index-url": (("UV_EXTRA_INDEX_URL",), " "),
    "find-links": (("UV_FIND_LINKS",), ","),
    "trusted-host": (("UV_INSECURE_HOST",), " "),
    "constraint": (("UV_CONSTRAINT",), " "),
    "no-index": (("UV_NO_INDEX",), " "),
    "cert": (("SSL_CERT_FILE",), " "),
    "client-cert": (("SSL_CLIENT_CERT",), " "),
    "proxy": (("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), " "),
    "timeout": (("UV_HTTP_TIMEOUT",), " "),
    "default-timeout": (("UV_HTTP_TIMEOUT",), " "),
}
# What changes no package that pip would take.
LEFT_ASIDE = {
    *("cache-dir", "no-cache-dir", "disable-pip-version-check", "no-python-version-warning", "no-input", "no-color"),
    *("progress-bar", "quiet", "verbose", "log", "debug", "retries", "resume-retries", "exists-action", "compile"),
    *("no-compile", "no-warn-script-location", "no-warn-conflicts", "root-user-action", "require-virtualenv", "format"),
    *("config-file", "prefer-binary", "user", "break-system-packages", "use-feature", "use-deprecated", "python"),
}
OFF = ("", "0", "false", "no", "off")  # a switch that is off is as none
WHERE = ("index-url", "extra-index-url", "find-links", "no-index")  # settings that say where files come from


def pip_settings(listed: str) -> dict[str, str]:
    """What counts for `pip install` of the lines of `pip config list`: option -> its value.

    A variable PIP_... outweighs what files say of `install`, and that what they say of all commands.
    """
    settings: dict[str, str] = {}
    lines = [line.partition("=") for line in listed.splitlines() if "=" in line]
    for section in ("global.", "install.", ":env:."):
        for key, _, value in lines:
            if key.startswith(section):
                option = key.removeprefix(section).lower().replace("_", "-")
                settings[option] = str(ast.literal_eval(value)) if value[:1] in "'\"" else value
    return {key: value for key, value in settings.items() if value.strip().lower() not in OFF}


def uv_variables(settings: dict[str, str]) -> dict[str, str]:
    """pip's settings as uv's variables. Raises SetupError for one that uv has nothing for."""
    variables: dict[str, str] = {}
    for option, value in settings.items():
        if option in LEFT_ASIDE:
            continue
        if option not in HANDED_ON:
            raise SetupError(f"pip's configuration has {option}, which uv cannot be told")
        names, between = HANDED_ON[option]
        value = "1" if option == "no-index" else between.join(value.split())
        variables.update(dict.fromkeys(names, value.split(".")[0] if names == ("UV_HTTP_TIMEOUT",) else value))
    if "extra-index-url" in settings:
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip does: the best of all indexes
    return variables


class Installer:
    """Installs into the environment of `python`, which has pip.

    uv: the program, or None where pip does it all.  why_not: for which reason, a short sentence.
    """

    def __init__(self, python: Path):
        self.python, self.why_not = python, ""
        self.uv: Path | None = None
        self._variables: dict[str, str] = {}
        self._cpu_build = False
        try:
            listed = call([python, "-m", "pip", "config", "list"], "Reading pip's configuration", "")
            settings = pip_settings(listed)
            # What the user told uv itself counts more.
            given = {name for name in os.environ if os.environ[name]}
            own = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}
            given |= {mine for theirs, mine in own.items() if theirs in given}
            variables = uv_variables(settings)
            self._variables = {name: value for name, value in variables.items() if name not in given}
            self.uv = self._find_uv()
        except SetupError as error:
            self.why_not = str(error)
            return
        # Linux alone has a CUDA build of torch on PyPI, of several GB. A mirror is not passed by.
        chosen = "UV_TORCH_BACKEND" in given or any(name in settings for name in WHERE)
        self._cpu_build = sys.platform == "linux" and not chosen

    def _find_uv(self) -> Path:
        """The uv on PATH, else the one in the environment, which comes from PyPI. Raises SetupError."""
        beside = self.python.with_name("uv.exe" if os.name == "nt" else "uv")
        for found in (shutil.which("uv"), beside):
            if found and Path(found).exists():
                try:
                    call([found, "--version"], "Starting uv", "")
                except SetupError:  # such as the stand-in of a version manager
                    continue
                return Path(found)
        self._pip("Getting uv", "uv", needs="")
        call([beside, "--version"], "Starting uv", "")
        return beside

    def _pip(self, what: str, *arguments, needs: str = NEEDS) -> None:
        call([self.python, "-m", "pip", "--no-input", "install", "-q", *arguments], what, needs)

    def install(self, what: str, *arguments, torch: bool = False) -> str:
        """Install what `pip install` would by these arguments; a note for the user, mostly "".

        torch: whether they are torch and what is built with it, of which the build for processors will do.
        Raises SetupError when neither can.
        """
        note = ""
        if self.uv:
            backend = ["--torch-backend", "cpu"] if torch and self._cpu_build else []
            command = [self.uv, "pip", "install", "-q", "--python", self.python, *backend, *arguments]
            try:
                call(command, what, "", self._variables)
                return ""
            except SetupError as error:
                note = f"(by pip, because uv cannot: {error}) "
        if "--group" in arguments:
            self._pip("Updating pip", "pip>=25.1")  # the first that reads [dependency-groups]
        try:
            self._pip(what, *arguments)
        except SetupError as error:
            # The second is what pip says where a constraint names the package as well.
            if torch and ("No matching distribution" in str(error) or "ResolutionImpossible" in str(error)):
                wanted = " and ".join(name for name in map(str, arguments) if "==" in name)
                raise SetupError(
                    f"pip finds no {wanted} for Python {platform.python_version()} on {platform.system()} "
                    f"{platform.machine()}: a Python of 64 bits from 3.10 to 3.13 on Linux, Windows or a Mac with "
                    "Apple silicon is needed (make PYTHON=python3.12 ...), and in pip's configuration, if there is "
                    "any, an index that has it and no constraint against it."
                ) from error
            raise
        return note
