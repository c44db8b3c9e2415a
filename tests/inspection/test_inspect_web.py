"""tools/inspect_model.py and models on the web: what is said, what is read, and who gets to know the token."""

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest
import torch
from safetensors.torch import save_file

from pack.dev.samples.damaged_models import Image
from pack.dev.samples.tiny_models import write_transformer, write_vae
from pack.formats.kinds import Precision
from pack.model_loaders.architecture.params import expected_shapes
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.model_loaders.checkpoints.inspection import HERE, Inspection, inspect
from pack.model_loaders.save import SavePlan
from pack.skyreels_v3.model.params import AudioParams, TransformerParams
from pack.skyreels_v3.recipes import Job
from pack.tests.inspection.test_inspect_model import FOLDERS, TOOL, check, header_only
from pack.tests.support import dialects
from pack.tests.support.hub import Hub
from pack.tools.inspecting import web
from pack.tools.inspecting.addresses import is_address, place_of
from pack.tools.inspecting.far import inspect_far

HF = "https://huggingface.co"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Stands for Hugging Face; its folder holds what it has."""
    with Hub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


def far(address: str) -> list[Inspection]:
    found = list(inspect_far(address, HERE))
    for one in found:
        check(json.loads(json.dumps(dataclasses.asdict(one))))
    return found


def only(address: str) -> Inspection:
    (found,) = far(address)
    return found


def same_as_here(found: Inspection, path: Path) -> None:
    """All is said as of the local file, but where it lies and what is to be done first."""
    (here,) = inspect(str(path))
    kept = [one for one in here.advice if not one.startswith("Put ")]
    changed = [one for one in found.advice if not one.startswith("Download")]
    assert len(found.advice) == len(changed) + 1 and changed[-len(kept) :] == kept
    assert dataclasses.replace(found, file=here.file, advice=here.advice) == here


@pytest.mark.parametrize("dialect", ["bf16", "fp8 mixed", "fp8 old", "Q8_0"])
@pytest.mark.parametrize("verb", ["blob", "resolve", "raw"])
def test_a_file(hub, dialect, verb):
    folder = hub.folder / "Kijai" / "Wan files" / "SkyReels V3"
    dialects.write(dialect, folder / "v2v_shot", Job.SHOT)
    (path,) = folder.iterdir()
    address = f"{HF}/Kijai/Wan%20files/{verb}/main/SkyReels%20V3/{path.name}?download=true"
    found = only(address)
    assert found.file == address and found.job == "shot"
    same_as_here(found, path)
    assert len(hub.paths("cdn")) <= 2  # the header, and what it leaves to tensors behind the weights


@pytest.mark.parametrize("quoted", [False, True])
def test_names_in_any_script(hub, quoted):
    """As people type addresses and as browsers copy them."""
    dialects.write("bf16", hub.folder / "模型" / "A & B" / "r2v 文件+1", Job.REFERENCE)
    (path,) = (hub.folder / "模型" / "A & B").iterdir()
    for start in (f"{hub.url}/plain/模型/A & B", f"{HF}/模型/A & B/blob/main"):
        address = f"{start}/{path.name}?钥匙=1"
        found = only(quote(address, "/:?=&") if quoted else address)
        same_as_here(found, path)


def test_a_model_of_real_size_costs_its_header(hub):
    real = TransformerParams(in_dim=36, image_dim=1280, audio=AudioParams())
    folder = hub.folder / "Skywork" / "A2V"
    folder.mkdir(parents=True)
    path = header_only(folder / "a2v.safetensors", expected_shapes(real))
    found = only(f"{HF}/Skywork/A2V/blob/main/a2v.safetensors")
    assert path.stat().st_size > 37e9 and hub.sent < 600_000
    assert found.job == "avatar" and "Download it (37.8 GB) into models/diffusion_models." in found.advice


def test_a_header_of_any_length(hub):
    """Longer than what is asked for at once; in pieces too, as a GGUF file is read."""
    folder = hub.folder / "a" / "b"
    many = {f"x.{number}.weight": (1,) for number in range(9_000)}
    folder.mkdir(parents=True)
    header_only(folder / "long.safetensors", many)
    assert only(f"{HF}/a/b/blob/main/long.safetensors").precision == "bf16"
    assert len(hub.paths("cdn")) == 2
    with web.Web().file(f"{hub.url}/plain/a/b/long.safetensors", "x") as (file, size):
        content = (folder / "long.safetensors").read_bytes()
        assert size == len(content)
        for start, length in ((0, 9), (550_000, 50), (8, 560_000), (size - 5, 50), (size + 9, 1), (0, size)):
            file.seek(start)
            assert file.read(length) == content[start : start + length]


def test_what_save_model_writes_costs_two_pieces(hub):
    """What describes its layers lies in one place, and is asked for where the first redirect led."""
    write_transformer(hub.folder / "source.safetensors", Job.REFERENCE)
    path = hub.folder / "a" / "b" / "r2v.safetensors"
    path.parent.mkdir(parents=True)
    SavePlan(open_checkpoint(hub.folder / "source.safetensors"), Precision.FP8, torch.bfloat16).write(path)
    same_as_here(only(f"{HF}/a/b/blob/main/r2v.safetensors"), path)
    assert (len(hub.paths("hub")), len(hub.paths("cdn"))) == (1, 2) and hub.sent < 2**19 + 2**18


@pytest.fixture
def published(hub):
    """Skywork's repositories, with what else lies in them."""
    root = hub.folder / "Skywork"
    write_transformer(root / "SkyReels-V3-R2V-14B" / "transformer", Job.REFERENCE, "diffusers", shards=3)
    write_vae(root / "SkyReels-V3-R2V-14B" / "vae" / "diffusion_pytorch_model.safetensors")
    write_transformer(root / "SkyReels-V3-V2V-14B" / "transformer", Job.EXTENSION, "wan", shards=2)
    write_transformer(root / "SkyReels-V3-V2V-14B" / "shot_transformer", Job.SHOT, "wan", shards=2)
    write_transformer(root / "SkyReels-V3-A2V-19B", Job.AVATAR, "wan", shards=3)
    return root


@pytest.mark.parametrize("pattern", [f"{HF}/Skywork/{{}}", "huggingface.co/Skywork/{}/", "{}"])
def test_repositories(hub, published, pattern):
    name = pattern if "Skywork" in pattern else hub.url + "/models/Skywork/{}/files"
    for repository in ("SkyReels-V3-R2V-14B", "SkyReels-V3-A2V-19B"):
        address = name.format(repository)
        found = only(address)
        assert found.file == address
        same_as_here(found, published / repository)
    shot, extension = far(name.format("SkyReels-V3-V2V-14B"))
    assert [shot.job, extension.job] == ["shot", "extension"]
    assert shot.file.endswith(
        "/SkyReels-V3-V2V-14B/tree/" + ("main" if "Sky" in pattern else "master") + "/shot_transformer"
    )
    assert only(shot.file) == shot  # its address can be asked for in turn
    assert not any("vae" in path for path in hub.paths("cdn"))


def test_parts_of_repositories(hub, published):
    for place, (dialect, job) in FOLDERS.items():
        repository, _, folder = place.partition("/")
        root = f"{HF}/Skywork/{repository}"
        index = next((published / place).glob("*.index.json")).name
        shard = sorted((published / place).glob("*-00002-of-*"))[0].name
        plain = f"{hub.url}/plain/Skywork/{place}"
        inner = f"{folder}/" if folder else ""
        addresses = [
            f"{root}/tree/main/{folder}",
            f"{root}/blob/main/{inner}{index}",
            f"{root}/blob/main/{inner}{shard}",
        ]
        for address in (*addresses, f"{plain}/{index}", f"{plain}/{shard}?token=x"):
            found = only(address)
            assert (found.file, found.dialect, found.job) == (address, dialect, job)
            same_as_here(found, published / place / next((name for name in (shard, index) if name in address), ""))
    for index in published.rglob("*.index.json"):
        index.unlink()
    assert only(f"{hub.url}/plain/Skywork/{place}/{shard}").dialect == dialect  # by the numbers in its name
    (published / place / shard).unlink()
    assert "There is nothing at" in only(f"{hub.url}/plain/Skywork/{place}/{shard}").problems[0]
    assert "and needs" in only(f"{root}/tree/main/{folder}").problems[0]


def test_a_repository_of_single_files(hub):
    folder = hub.folder / "Kijai" / "fp8"
    for name, job in (("r2v", Job.REFERENCE), ("a2v", Job.AVATAR)):
        dialects.write("fp8 mixed", folder / "diffusion_models" / name, job)
    (folder / "loras").mkdir()
    (folder / "loras" / "x.safetensors").write_bytes(b"<html>")
    hub.listed = [
        "../../out.safetensors",
        "/etc/x.safetensors",
        "a/../../b.safetensors",
        ".hidden/config.json",
        "C:\\x.gguf",
    ]
    found = far(f"{HF}/Kijai/fp8")
    files = {one.file.rpartition("/resolve/main/")[2]: one.job for one in found}
    assert files.pop("C%3A%5Cx.gguf") == "unknown"  # it is told by its name, not left out
    wanted = {"diffusion_models/a2v.safetensors": "avatar", "diffusion_models/r2v.safetensors": "reference"}
    assert files == {**wanted, "loras/x.safetensors": "unknown"}
    assert all("Download it" in one.advice[0] for one in found if not one.problems)
    assert not list(hub.folder.parent.glob("*.safetensors"))


LISTS = (
    b"<html>",
    b"null",
    b'{"Data": []}',
    b'{"Data": {"Files": 1}}',
    b'[1, {"type": "file"}, {"type": [], "path": 3}]',
)


@pytest.mark.parametrize("text", LISTS)
def test_lists_that_are_none(hub, text):
    hub.list = (200, {"Link": f'<{hub.url}/api/models/a/b/tree/main?page=2>; rel="next"'}, text)  # without an end
    said = only(f"{HF}/a/b").problems[0]
    assert "is no list of files" in said or "There is nothing in" in said
    assert len(hub.asked) <= 20


def test_names_of_any_length(hub):
    (hub.folder / "x").mkdir(parents=True)
    header_only(hub.folder / "x" / "r2v.safetensors", {"x.weight": (1,)})
    hub.listed = [f"{'文' * 300}/{'r2v' * 200}.gguf"]
    (hub.folder / "a" / "b").mkdir(parents=True)
    assert "There is nothing at" in only(f"{HF}/a/b").problems[0]
    assert "There is nothing at" in only(f"{hub.url}/{'y' * 500}/{'z' * 999}.safetensors").problems[0]


def test_servers_that_send_no_ranges(hub):
    folder = hub.folder / "a" / "b"
    real = TransformerParams(in_dim=36, image_dim=1280, audio=AudioParams())
    folder.mkdir(parents=True)
    header_only(folder / "a2v.safetensors", expected_shapes(real))
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.ones(2, 2)}, folder / "tiny.safetensors")
    hub.ranges = False
    found = only(f"{HF}/a/b/blob/main/a2v.safetensors")
    assert "sends a2v.safetensors as a whole only (37.8 GB), not its header alone" in found.problems[0]
    assert found.advice == ("Download it and inspect the file, or take it from another place.",)
    assert hub.sent < 16_000_000  # what the sockets hold
    assert "Flux" in only(f"{HF}/a/b/blob/main/tiny.safetensors").dialect  # smaller than what is asked for


def test_the_token_goes_to_the_hub_alone(hub, monkeypatch):
    dialects.write("bf16", hub.folder / "gated" / "r2v" / "r2v", Job.REFERENCE)
    address = f"{HF}/gated/r2v/blob/main/r2v.safetensors"
    hub.token = "hf_right"
    for page in (address, f"{HF}/gated/r2v"):
        said = only(page).problems[0]
        assert "401" in said and "set the variable HF_TOKEN" in said and "accept the terms" in said
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    said = only(address).problems[0]
    assert "403" in said and "with the token in HF_TOKEN" in said and "hf_wrong" not in said
    monkeypatch.setenv("HF_TOKEN", "hf_right\n")
    assert only(address).job == only(f"{HF}/gated/r2v").job == "reference"
    given = {
        host: {headers.get("Authorization") for asked, _, headers in hub.asked if asked == host}
        for host in ("hub", "cdn")
    }
    assert given == {"hub": {None, "Bearer hf_wrong", "Bearer hf_right"}, "cdn": {None}}
    monkeypatch.setenv("HF_TOKEN", "hf_se\ncret")
    said = only(address).problems[0]
    assert "holds signs that no token has" in said and "cret" not in said
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    # The same server, but not as the hub: it gets nothing, and is told so.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    hub.asked.clear()
    said = only(f"{hub.url}/gated/r2v/resolve/main/r2v.safetensors").problems[0]
    assert "HF_TOKEN is sent to 127.0.0.1:1 alone" in said
    assert not any("Authorization" in headers for _, _, headers in hub.asked)


def test_a_hub_that_moved_gets_its_token_again(hub, monkeypatch):
    """A repository that was renamed: the redirect stays on the host."""
    dialects.write("bf16", hub.folder / "new" / "r2v" / "r2v", Job.REFERENCE)
    monkeypatch.setenv("HF_TOKEN", "t")
    hub.answer = (307, {"Location": "/plain/new/r2v/r2v.safetensors"}, b"")
    assert only(f"{HF}/old/r2v/blob/main/r2v.safetensors").job == "reference"
    assert [headers.get("Authorization") for _, _, headers in hub.asked] == ["Bearer t", "Bearer t"]
    hub.answer = (302, {"Location": f"file://{hub.folder}/new/r2v/r2v.safetensors"}, b"")
    assert "302" in only(f"{HF}/old/r2v/blob/main/r2v.safetensors").problems[0]


ANSWERS = {
    404: "There is nothing at",
    410: "There is nothing at",
    407: "The proxy on the way",
    429: "cannot answer now (429 Too Many Requests): try again in some minutes",
    503: "cannot answer now (503",
    418: "does not send",
}


@pytest.mark.parametrize("status, words", ANSWERS.items())
def test_servers_that_refuse(hub, status, words):
    hub.answer = (status, {}, b"<html>")
    found = only(f"{HF}/a/b/blob/main/x.safetensors?key=secret")
    assert words in found.problems[0] and "secret" not in found.problems[0] and found.dialect == "unknown"


def test_pages_and_what_else_is_no_model(hub):
    hub.answer = (200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>" + bytes(2_000_000))
    assert "is a web page, not a model" in only(f"{HF}/a/b/blob/main/x.safetensors").problems[0]
    hub.answer = None
    folder = hub.folder / "a" / "b"
    folder.mkdir(parents=True)
    for name, content, words in (
        ("empty.safetensors", b"", "is empty (0 bytes): use another file"),
        ("x.ckpt", b"PK\x03\x04" + bytes(99), "PyTorch pickle"),
        ("zeros.gguf", bytes(99), "was cut off: use another file"),
        ("x.safetensors", (9999).to_bytes(8, "little") + b"{", "it is incomplete there too, use another file"),
    ):
        (folder / name).write_bytes(content)
        assert words in only(f"{HF}/a/b/blob/main/{name}").problems[0]
    Image(b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 16, 0).write(folder / "claims.gguf")
    assert only(f"{HF}/a/b/blob/main/claims.gguf").advice[0].startswith("It is damaged there, use another file")
    (folder / "m.safetensors.index.json").write_text("[1")
    assert "not readable as JSON: use another one" in only(f"{HF}/a/b/blob/main/m.safetensors.index.json").problems[0]
    (folder / "m.safetensors.index.json").write_text('{"weight_map": {"a": "../../../x.safetensors"}}')
    assert "no shard in its own folder" in only(f"{HF}/a/b/blob/main/m.safetensors.index.json").problems[0]


def test_connections_that_break(hub, monkeypatch):
    hub.answer = (206, {"Content-Range": "bytes 0-99/5000"}, b"x" * 100)
    assert "broke off while x.gguf was read: try again" in only(f"{HF}/a/b/blob/main/x.gguf").problems[0]
    hub.answer = (206, {"Content-Range": "bytes 7-9/10"}, b"xxx")  # another place than was asked for
    assert "as a whole only" in only(f"{HF}/a/b/blob/main/x.gguf").problems[0]
    assert "cannot be read" in only("http://127.0.0.1:1/x.gguf").problems[0]
    assert "cannot be read" in only("http://no-such-host.invalid/x.gguf").problems[0]
    monkeypatch.setattr(web, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        found = only(f"http://127.0.0.1:{silent.getsockname()[1]}/x-00001-of-00100.safetensors")
    assert "sent nothing for 0.2 s: try again later" in found.problems[0]
    assert time.monotonic() - start < 5  # it is waited for once, not for every shard


def test_lists_and_redirects_lead_nowhere_but_to_the_web(hub):
    dialects.write("bf16", hub.folder / "a" / "b" / "r2v", Job.REFERENCE)
    pages = hub.folder / "list.json"
    pages.write_text('[{"type": "file", "path": "r2v.safetensors"}]')
    for address in (pages.as_uri(), "ftp://127.0.0.1:1/x", f"data:,{quote(pages.read_text())}"):
        hub.list = (200, {"Link": f'<{address}>; rel="next"'}, b"[]")
        found = only(f"{HF}/a/b")
        assert found.job == "unknown" and "unknown url type" in found.problems[0]
    hub.answer = (302, {"Location": "ftp://127.0.0.1:1/x.safetensors"}, b"")
    assert "unknown url type: ftp" in only(f"{HF}/a/b/blob/main/x.safetensors").problems[0]


def test_a_server_that_sends_byte_by_byte(monkeypatch):
    monkeypatch.setattr(web, "PATIENCE", 0.3)

    def drip():
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(4096)
            connection.sendall(
                b"HTTP/1.1 206 Some\r\nContent-Range: bytes 0-9999/9999999\r\nContent-Length: 9999\r\n\r\n"
            )
            while True:
                connection.sendall(b"x")
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, daemon=True).start()
        found = only(f"http://127.0.0.1:{server.getsockname()[1]}/x-00001-of-00100.safetensors")
    assert "sends too slowly: try again later" in found.problems[0]


def test_proxies_of_the_environment(hub, monkeypatch):
    dialects.write("bf16", hub.folder / "r2v", Job.REFERENCE)
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", hub.url)
    assert only("http://models.example/plain/r2v.safetensors").job == "reference"
    assert hub.paths("hub") == ["http://models.example/plain/r2v.safetensors"]


NO_ADDRESSES = ("https://", "http:///x.gguf", "https://host", "https://me:secret@host/x.gguf", "http://host:x/y.gguf")


@pytest.mark.parametrize("given", NO_ADDRESSES)
def test_addresses_that_are_none(given):
    assert is_address(given)
    said = only(given).problems[0]
    assert "is no address of a model" in said and "secret" not in said


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("https://civitai.com/models/12345/a-name?modelVersionId=678&x=1", "civitai.com/api/download/models/678."),
        ("civitai.com/models/12345", "civitai.com/api/download/models/NUMBER."),
    ],
)
def test_a_page_at_civitai_is_no_file(given, wanted):
    (said,) = only(given).problems
    assert "is a page, not a file" in said and said.endswith(wanted)


def test_addresses(tmp_path, monkeypatch):
    assert not is_address("C:\\models\\x.safetensors") and not is_address("models/x.safetensors")
    assert is_address("HTTPS://host/x.gguf") and is_address("hf.co/a/b")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hf.co").mkdir()
    (tmp_path / "hf.co" / "a").write_bytes(b"")
    assert not is_address("hf.co/a")  # it is here
    pages = {
        f"{HF}/a/b": f"{HF}/a/b/resolve/main/x",
        "hf.co/a/b/tree/refs%2Fpr%2F1": f"{HF}/a/b/resolve/refs%2Fpr%2F1/x",
        "https://hf-mirror.com/a/b": "https://hf-mirror.com/a/b/resolve/main/x",
        "https://www.modelscope.cn/models/a/b/summary": "https://www.modelscope.cn/models/a/b/resolve/master/x",
        "https://host/models/a/file.gguf": "https://host/models/a/x",
        "https://host/dir/file.gguf?key=1#top": "https://host/dir/x?key=1",
    }
    assert {page: place_of(page, HF).url("x") for page in pages} == pages
    page = "https://modelscope.cn/models/a/b/file/view/master/split_files%2Fx%201.safetensors?status=2"
    assert place_of(page, HF).path == "split_files/x 1.safetensors"


def test_a_bare_python_reads_the_web(hub):
    dialects.write("Q8_0", hub.folder / "a" / "b" / "a2v", Job.AVATAR)
    (path,) = (hub.folder / "a" / "b").iterdir()
    command = [sys.executable, "-I", "-S", TOOL, f"{HF}/a/b", str(path), f"{HF}/a/none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1 and done.stderr == ""
    assert [line["job"] for line in lines] == ["avatar", "avatar", "unknown"]
    assert "There is no repository at https://huggingface.co/a/none" in lines[2]["problems"][0]
