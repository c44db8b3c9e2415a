"""uv in pip's place: it is told what pip's configuration says, and pip does what uv cannot. Nothing is downloaded."""

import json
import os
import sys
import zipfile
from pathlib import Path

import pytest

from pack.dev.setup.downloads import SetupError
from pack.dev.setup.installing import Installer, pip_settings, uv_variables

# As `pip config list` prints them.
LISTED = """\
:env:.find-links='/here/wheels /there/wheels'
:env:.default-timeout='7.5'
download.index-url='https://other/simple'
global.disable-pip-version-check='1'
global.find-links='/from/a/file'
global.index-url='https://mirror/simple'
global.no-index='false'
install.constraint='/etc/constraints.txt'
install.trusted-host='mirror\\nother'
"""


def test_what_counts_of_pips_configuration():
    assert pip_settings(LISTED) == {
        "find-links": "/here/wheels /there/wheels",
        "default-timeout": "7.5",
        "disable-pip-version-check": "1",
        "index-url": "https://mirror/simple",
        "constraint": "/etc/constraints.txt",
        "trusted-host": "mirror\nother",
    }
    assert pip_settings("") == {}


def test_uv_is_told_the_same():
    assert uv_variables(pip_settings(LISTED)) == {
        "UV_FIND_LINKS": "/here/wheels,/there/wheels",
        "UV_HTTP_TIMEOUT": "7",
        "UV_INDEX_URL": "https://mirror/simple",
        "UV_CONSTRAINT": "/etc/constraints.txt",
        "UV_INSECURE_HOST": "mirror other",
    }
    more = uv_variables({"extra-index-url": "https://a\nhttps://b", "no-index": "true", "proxy": "http://proxy:3128"})
    assert more == {
        "UV_EXTRA_INDEX_URL": "https://a https://b",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_NO_INDEX": "1",
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://proxy:3128"),
    }


def test_what_uv_cannot_be_told_is_left_to_pip():
    with pytest.raises(SetupError, match="pip's configuration has require-hashes, which uv cannot be told"):
        uv_variables({"require-hashes": "1"})


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with one small package."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    return folder


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheels: Path) -> Path:
    """A uv on PATH that writes down what it is told, and fails where it finds a file `fail` beside itself."""
    program = tmp_path / "bin" / "uv"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\nfrom pathlib import Path\nhere = Path(__file__).parent\n"
        "told = {name: value for name, value in os.environ.items() if name.startswith('UV_')}\n"
        "(here / 'told.json').write_text(json.dumps([sys.argv[1:], told]))\n"
        "if 'pip' in sys.argv and (here / 'fail').exists(): sys.exit('error: no route to the index')\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return program


def test_uv_installs_where_it_is_there(stand_in: Path, wheels: Path):
    tool = Installer(Path(sys.executable))
    assert (tool.uv, tool.why_not) == (stand_in, "")
    assert tool.install("Installing", "tiny") == ""
    arguments, told = json.loads((stand_in.parent / "told.json").read_text())
    assert arguments == ["pip", "install", "-q", "--python", sys.executable, "tiny"]
    assert (told["UV_FIND_LINKS"], told["UV_NO_INDEX"]) == (str(wheels), "1")


def test_pip_does_what_uv_cannot_and_says_so(stand_in: Path, tmp_path: Path):
    (stand_in.parent / "fail").touch()
    tool = Installer(Path(sys.executable))
    said = tool.install("Installing", "--target", tmp_path / "there", "tiny")
    assert said == "(by pip, because uv cannot: Installing failed: error: no route to the index) "
    assert (tmp_path / "there" / "tiny.py").is_file()


def test_a_torch_that_is_not_for_this_machine_is_one_sentence(stand_in: Path):
    (stand_in.parent / "fail").touch()
    with pytest.raises(
        SetupError, match=r"pip finds no torch==0\.0\.1 for Python 3\.\d+\.\d+ on .* 64 bits from 3\.10 to"
    ):
        Installer(Path(sys.executable)).install("Installing torch", "torch==0.0.1", torch=True)


def test_what_was_told_to_uv_itself_counts_more(stand_in: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mine/simple")
    monkeypatch.setenv("UV_FIND_LINKS", "/mine")
    Installer(Path(sys.executable)).install("Installing", "tiny")
    _, told = json.loads((stand_in.parent / "told.json").read_text())
    assert told["UV_FIND_LINKS"] == "/mine" and "UV_INDEX_URL" not in told


def test_settings_that_uv_does_not_have_keep_it_away(stand_in: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_REQUIRE_HASHES", "1")
    tool = Installer(Path(sys.executable))
    assert tool.uv is None and "require-hashes" in tool.why_not
