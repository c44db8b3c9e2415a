"""The paths that only a card takes, on cards that are not there: see dev/fake_card.

Each case is one step of the whole width of the network in a real ComfyUI. It fails where an operation raises, where it
needs another memory than Plan says, where the host waits for the card at a new place, and where a step launches more
kernels than it should, such as for a weight that is prepared once more.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pack.dev.fake_card.profiles import CARDS
from pack.dev.setup.environment import comfyui_path

if sys.platform == "win32":
    pytest.skip("torch's guards for devices are not exported there", allow_module_level=True)

SCRIPT = Path(__file__).resolve().parents[2] / "dev" / "fake_card" / "forward.py"
WAITS = {"network.py": 1}  # whether the result is finite, and was made of the prompt whose keys are cached
# Pages of files are not pinned: that would take a model's size of RAM, and what comes from them comes in time.
FROM_FILES, COPIES = "copy from pageable memory", ("block_streaming.py", "model_management.py")
# (case, launches of a step at most)
CORNERS: list[tuple[dict, int]] = [
    ({"precision": "int8", "size": "720p121"}, 19_000),
    ({"precision": "int8", "job": "extension", "lora": 32}, 11_800),
    ({"precision": "bf16", "resident": 0.0}, 7_500),
    ({"precision": "nf4", "job": "avatar"}, 36_000),
    ({"precision": "bf16", "size": "480p1"}, 2_300),
    ({"precision": "int8", "size": "480p9"}, 2_600),
    ({"precision": "bf16", "job": "avatar", "size": "480p9"}, 2_600),
]
# What differs from a 4090: what the card refuses, whose kernels run, what fits. Some with launches at most.
VAE = [
    {"direction": "decode", "height": 60, "width": 104},
    {"direction": "decode", "height": 90, "width": 160, "at_once": 1},
    {"direction": "encode", "height": 60, "width": 104},
]
OTHERS: dict[str, list[tuple[dict, int | None]]] = {
    "2080Ti": [({"precision": "fp16"}, 7_000), ({"precision": "int8", "job": "avatar"}, None)],
    "3090": [({"precision": "int8", "size": "720p81"}, None), ({"precision": "nf4", "lora": 16}, None)],
    "4060": [
        ({"precision": "int8", "resident": 0.0}, 7_300),
        ({"precision": "int8", "resident": 0.0, "mapped": True}, 7_300),
        ({"precision": "fp8", "job": "avatar"}, None),
    ],
    "4060 on Windows": [
        ({"precision": "int8"}, 144_000),
        ({"precision": "nf4", "job": "avatar"}, 76_000),
        ({"precision": "int8", "job": "avatar", "size": "480p9"}, None),
    ],
    "4090 on Windows": [
        ({"precision": "fp8"}, None),
        ({"precision": "int8", "job": "extension", "lora": 32}, None),
        ({"precision": "nf4", "size": "480p17"}, None),
    ],
    "5090": [({"precision": "nvfp4"}, None), ({"precision": "fp8", "job": "shot", "size": "720p121"}, None)],
    "5090 on Windows": [({"precision": "fp8", "job": "extension"}, None)],
    "A100": [({"precision": "bf16", "batch": 2}, None)],
    "H200": [({"precision": "fp8", "size": "720p121"}, None)],
    "7900XTX": [({"precision": "bf16"}, 7_700), ({"precision": "int8", "resident": 0.3}, None)],
    "M3 Max": [
        ({"precision": "bf16", "attention": "sdpa"}, None),
        ({"precision": "int8", "job": "extension", "lora": 16}, None),
        ({"precision": "nf4", "job": "avatar", "speakers": 2, "attention": "sdpa"}, None),
    ],
}
MATRIX = [
    {"precision": precision, "job": job, "size": size, "lora": lora}
    for precision in ("bf16", "int8", "fp8", "nf4", "nvfp4", "Q4_K")
    for job, size, lora in (
        ("reference", "480p81", 0),
        ("reference", "720p121", 32),
        ("extension", "480p81", 32),
        ("shot", "720p81", 0),
        ("avatar", "480p81", 0),
    )
] + [
    {"precision": "int8", "job": "avatar", "speakers": 2},
    {"precision": "int8", "batch": 2},
    {"precision": "nf4", "resident": 0.5},
    {"precision": "bf16", "resident": 0.0, "size": "720p121"},
    {"precision": "nf4", "job": "avatar", "size": "480p9"},
    {"precision": "int8", "job": "avatar", "size": "480p9"},
    {"precision": "bf16", "size": "480p17"},
    {"precision": "bf16", "size": "480p9"},
    {"precision": "nf4", "job": "extension", "size": "480p9"},
    {"precision": "nf4", "size": "480p41"},
]


# With dynamic VRAM, some of the weights resident.
DYNAMIC = [
    {"precision": "int8", "resident": 0.0, "layers": 4},
    {"precision": "bf16", "job": "extension", "resident": 0.3, "lora": 32, "layers": 4},
    {"precision": "nf4", "job": "avatar", "speakers": 2, "resident": 0.3},
    {"precision": "fp8", "size": "720p121"},
]


def steps(card: str, cases: list[dict], *options: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(SCRIPT), card, *options, *map(json.dumps, cases)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == len(cases), done.stderr[-3000:]
    return lines


def check(found: dict[str, Any]) -> None:
    assert "error" not in found, found["error"]
    for place, count in found["waits"].items():
        file = place.rpartition("/")[2].partition(":")[0]
        if not (found.get("mapped") and place.startswith(FROM_FILES) and file in COPIES):
            assert count <= WAITS.get(file, 0), found["waits"]
    if found.get("mapped"):  # the host waits for copies, but the card computes meanwhile
        assert found["seconds"]["waits"] < 0.001 * sum(found["seconds"].values()), found["seconds"]
    if "M3" in found["card"] and found.get("attention") == "auto":
        return  # ComfyUI's attention takes as much of the memory there as is free
    assert not found.get("pinned"), found
    assert 0.95 * found["planned"] <= found["peak"] <= 1.05 * found["planned"], found
    if found.get("told") is not None:  # by Plan, before anything was measured
        assert found["told"] == pytest.approx(sum(found["seconds"].values()), rel=0.12), found


def check_launches(card: str, cases: list[tuple[dict, int | None]]) -> None:
    for found, (case, launches) in zip(steps(card, [case for case, _ in cases]), cases, strict=True):
        check(found)
        assert launches is None or found["launches"] <= launches, (case, found["launches"])


def test_a_step_on_a_card():
    """Corners of the matrix below."""
    check_launches("4090", [*CORNERS])


@pytest.mark.workshop
@pytest.mark.parametrize("card", OTHERS)
def test_a_step_on_other_cards(card):
    """Those above, and the VAE where its memory differs."""
    check_launches(card, OTHERS[card])
    if card in ("2080Ti", "7900XTX", "M3 Max"):
        for found in steps(card, VAE):
            check(found)


@pytest.mark.workshop
def test_every_step_on_one_card():
    for found in steps("4090", [*MATRIX, *VAE]):
        check(found)


@pytest.mark.workshop
@pytest.mark.skipif(
    not (comfyui_path() / "comfy" / "model_prefetch.py").exists(),
    reason="this ComfyUI has no dynamic VRAM that prefetches",
)
def test_a_step_with_dynamic_vram():
    """Each weight that waits is copied at most once, from pinned memory, and none is held on to."""
    for found, case in zip(steps("4090", DYNAMIC, "--dynamic"), DYNAMIC, strict=True):
        check(found)
        copied = sum(found["copied"].values()) * case.get("layers", 2) / 40
        waiting = (1 - case.get("resident", 1.0)) * found["weights"]
        assert (copied > 0) == (waiting > 0) and copied <= 1.05 * waiting, found


# What somebody may break -> (a line that breaks it, in the place of a block's _add_norm; what is said of it).
BROKEN = {
    "a look at the card": ("float(x[0, 0, 0])", "_local_scalar_dense at"),
    "a copy to the host": ("x.cpu()", "copy to the host at"),
    "a tensor on the host for a kernel": (
        "nodes.module('kernels').add_gated_(x, x, torch.ones(1, x.shape[-1]))",
        "cannot be accessed from Triton",
    ),
    "a tensor on the host": ("x = x + torch.ones(1, 1, x.shape[-1])", "device"),
    "a buffer that is kept": ("self.held = [*getattr(self, 'held', ()), x.clone()]", r"<= \("),
}


@pytest.mark.workshop
@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_found(what):
    line, said = BROKEN[what]
    code = f"""
import sys
sys.path[:0] = [{str(SCRIPT.parents[2] / "tools")!r}]
from pack.dev.fake_card import forward
opened = forward.open_host
def broken(*args, **flags):
    nodes = opened(*args, **flags)
    torch, block = forward.torch, nodes.module("skyreels_v3.model.block").Block
    whole = block._add_norm
    def add_norm(self, x, *rest):
        {line}
        return whole(self, x, *rest)
    block._add_norm = add_norm
    return nodes
forward.open_host = broken
sys.argv = ["forward", "4090", '{{"precision": "int8", "layers": 4}}']
forward.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    with pytest.raises(AssertionError, match=said):
        check(found)


def test_every_card_has_a_step():
    """RTX 20 to 50, Windows, servers' cards, AMD's and Apple's."""
    assert {*OTHERS, "4090", "3060"} == {*CARDS}
