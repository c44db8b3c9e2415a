"""Make torchvision and torchaudio importable beside a CPU build of torch. Run by `.venv`'s Python.

There is no CPU build of either on PyPI for every torch. Their CUDA builds hold native parts that a CPU torch
cannot load, and both then fail to import, although ComfyUI uses only what they do in plain torch. This script
tries the import and mends the copy in `.venv` only where it fails: torchvision registers shape functions for
two operators that were never loaded, and torchaudio insists on its native library once it sees the file. A
second run finds nothing to do.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path


def import_error(name: str) -> str:
    """The last line of what a fresh Python says when it cannot import the module; "" when it can."""
    done = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def folder(name: str) -> Path:
    return Path(importlib.util.find_spec(name).submodule_search_locations[0])


def guard_torchvision(package: Path) -> None:
    """Register torchvision's shape functions only where its native operators are loaded.

    Does nothing if the file is mended already or has another form.
    """
    file = package / "_meta_registrations.py"
    text = file.read_text(encoding="utf-8")
    guarded = text.replace("@torch.library.register_fake(", "@_register_fake_if_loaded(")
    anchor = "\n\n\n@functools"
    if guarded == text or anchor not in guarded:
        return
    function = (
        "\n\n\ndef _register_fake_if_loaded(name):\n"
        "    if torchvision.extension._has_ops():\n"
        "        return torch.library.register_fake(name)\n"
        "    return lambda function: function"
    )
    file.write_text(guarded.replace(anchor, function + anchor, 1), encoding="utf-8")


def put_aside_torchaudio(package: Path) -> None:
    """Rename torchaudio's native libraries: it then runs without them, in plain torch."""
    for library in (package / "lib").glob("*.so"):
        library.rename(library.with_name(library.name + ".aside"))


def main() -> int:
    failed = []
    for name, mend in (("torchvision", guard_torchvision), ("torchaudio", put_aside_torchaudio)):
        if not import_error(name):
            continue
        mend(folder(name))
        error = import_error(name)
        if error:
            failed.append(f"{name} cannot be imported beside this torch ({error})")
        else:
            print(f"({name} runs without its CUDA parts)", end=" ")
    if failed:
        print(f"error: {'; '.join(failed)}.", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
