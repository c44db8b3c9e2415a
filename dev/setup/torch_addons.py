"""Make torchvision and torchaudio importable beside a CPU build of torch. Run by `.venv`'s Python.

There is no CPU build of either on PyPI for every torch. Their CUDA builds hold native parts that a CPU torch cannot
load, and both then fail to import, although ComfyUI uses only what they do in plain torch. This script tries the import
and mends the copy in `.venv` only where it fails: torchvision registers shape functions for two operators that were
never loaded, and torchaudio insists on its native library once it sees the file. A second run finds nothing to do.
"""

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def import_errors(names: Sequence[str]) -> dict[str, str]:
    """Of each module that a fresh Python cannot import: the last line of what it says."""
    code = (
        "import sys\nfor name in sys.argv[1:]:\n"
        "    try: __import__(name)\n"
        "    except BaseException as error: print(name, f'{type(error).__name__}: {error}'.splitlines()[-1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True)
    if done.returncode:  # it ended without a word of Python's
        return dict.fromkeys(names, f"exit status {done.returncode}")
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    return {line[0]: line[-1] for line in lines if line[0] in names}


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
    # A new file in its place: the old one may be one and the same with that in uv's cache, which others install from.
    mended = file.with_suffix(".mended")
    mended.write_text(guarded.replace(anchor, function + anchor, 1), encoding="utf-8")
    mended.replace(file)


def put_aside_torchaudio(package: Path) -> None:
    """Rename torchaudio's native libraries: it then runs without them, in plain torch."""
    for library in (package / "lib").glob("*.so"):
        library.rename(library.with_name(library.name + ".aside"))


def main() -> int:
    mends = {"torchvision": guard_torchvision, "torchaudio": put_aside_torchaudio}
    broken = import_errors(list(mends))
    for name in broken:
        mends[name](folder(name))
    failed = import_errors(list(broken)) if broken else {}
    for name in broken.keys() - failed.keys():
        print(f"({name} runs without its CUDA parts)", end=" ")
    if failed:
        reasons = "; ".join(f"{name} cannot be imported beside this torch ({why})" for name, why in failed.items())
        print(f"error: {reasons}.", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
