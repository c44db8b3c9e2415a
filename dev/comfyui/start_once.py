"""Start ComfyUI once, without this pack, as the tests will. Run by `.venv`'s Python at the end of the set-up.

What a ComfyUI lacks is told here and not by the first test that needs it; and what Python compiles on the first import
is compiled.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.dev.comfyui.server import Server, ServerError
from pack.dev.setup.downloads import SetupError

if __name__ == "__main__":
    try:
        with Server(pack=False):
            pass
    except SetupError as error:
        sys.exit(f"error: {error}")
    except ServerError as error:
        sys.exit(f"error: {str(error).splitlines()[-1].strip()}.")
