"""The pack as ComfyUI's registry serves it: tracked files without those of .comfyignore, as `comfy node pack` does."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def files() -> list[str]:
    """The archive's files, relative to the checkout, with / between folders."""

    def listed(*options: str) -> set[str]:
        command = ["git", "-C", str(ROOT), "ls-files", "-z", *options]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return {name for name in output.split("\0") if name}

    # Those to be committed count too, so that a new file is tested before it is.
    there = listed("--cached", "--others", "--exclude-standard")
    left_out = listed("--cached", "--others", "--ignored", "--exclude-from", str(ROOT / ".comfyignore"))
    return sorted(name for name in there - left_out if (ROOT / name).is_file())


def write(folder: Path) -> Path:
    """Unpacks the archive into `folder`, as ComfyUI Manager does, and returns it."""
    for name in files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    return folder
