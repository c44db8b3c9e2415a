"""`python tests/goldens.py FILE...`: runs goldens, see goldens/run.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))  # for `pack`
from pack.tests.goldens.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
