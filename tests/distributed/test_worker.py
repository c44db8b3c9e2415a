"""Workers of a group, without ComfyUI and without Ray: every precision and LoRA as in one process."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from pack.dev.samples.tiny_models import write_transformer
from pack.distributed import split_weights
from pack.distributed.ranks import Ranks
from pack.distributed.worker import DONE, FAILED, REFUSED, STOPPED, Worker
from pack.skyreels_v3.model.block_streaming import OneQueue, Weight
from pack.skyreels_v3.model.memory import Keeping
from pack.skyreels_v3.model.params import TransformerParams
from pack.skyreels_v3.model.sequence import extension_segments
from pack.skyreels_v3.recipes import Job
from pack.tests.model.test_ranks import OneOf
from pack.tests.support import dialects
from pack.tests.support.golden import relative_error
from pack.tests.support.loras import lora_pairs, lora_products, named, named_products, write_lora
from pack.tests.support.processes import Processes

PARAMS = TransformerParams(dim=384, ffn_dim=512, num_heads=3, num_layers=2)
LEAST = 50_000  # bytes of a weight that is kept in parts here
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    made = Processes(2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A checkpoint, another in GGUF, a LoRA of two parts, a DoRA, and changes of what is no linear layer's."""
    folder = tmp_path_factory.mktemp("files")
    write_transformer(folder / "SkyReels-V3-V2V.safetensors", Job.EXTENSION, params=PARAMS)
    dialects.write_gguf(folder / "SkyReels-V3-V2V.gguf", dialects.transformer_weights(PARAMS), "Q8_0")
    write_lora(folder / "lora.safetensors", named(lora_pairs(PARAMS)))
    products = lora_products("dora", PARAMS, layers=["blocks.0.self_attn.q", "blocks.1.ffn.0"])
    write_lora(folder / "dora.safetensors", named_products(products))
    changes = {"blocks.0.modulation": (1, 6, 384), "head.modulation": (1, 2, 384), "blocks.1.norm3.weight": (384,)}
    diffs = {f"diffusion_model.{name}.diff": 0.1 * torch.ones(shape) for name, shape in changes.items()}
    write_lora(folder / "diffs.safetensors", {**named(lora_pairs(PARAMS, layers=["blocks.0.ffn.2"])), **diffs})
    return folder


def spec(path: Path, precision: str = "auto", products: str = "auto", dtype: str = "float32") -> dict:
    return {
        "path": str(path),
        "job": Job.EXTENSION.value,
        "precision": precision,
        "products": products,
        "dtype": dtype,
        "maps": True,
    }


def message(dtype=torch.float32, loras=(), **others) -> dict:
    """An extension's forward as it comes to workers."""
    torch.manual_seed(0)
    segments = extension_segments(torch.randn(1, 16, 3, 6, 10), torch.randn(1, 16, 2, 6, 10))
    text = torch.randn(1, 512, 4096)
    text[:, 20:] = 0
    return {
        "segments": [(one.latents.to(dtype), one.position, one.clean, one.predicted) for one in segments],
        "timestep": torch.tensor([600.0]),
        "text": text.to(dtype),
        "given": {},
        "attention": "sdpa",
        "float32_time": [],
        "chunking": (16384, 8192, 4),
        "rope": ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
        "loras": list(loras),
        "sampling": "first",
        "cache": 10**7,
        **others,
    }


def worker_of(ranks: Ranks) -> Worker:
    made = Worker(ranks.rank, ranks.size, "cpu")
    made.ranks, made.agreeing, made.bringing = ranks, ranks.group, ranks.group
    return made


def both_ways(ranks: Ranks, spec: dict, messages: list[dict], keeping: Keeping = Keeping.WHOLE) -> list[float]:
    """Of each forward the distance of a group's to that of one worker by itself; only the first process has it.

    keeping: where the group's processes keep the weights.
    """
    workers, alone = [worker_of(ranks)], Ranks()
    if ranks.rank == 0:
        workers.append(worker_of(alone))
    outs, sizes = [], []
    for worker in workers:
        status, size = worker.call("load", "m", 0, spec, (keeping if worker is workers[0] else Keeping.WHOLE).value)
        assert status == DONE and size > 0, size
        sizes.append(size)
        outs.append([worker.call("forward", number, "m", one) for number, one in enumerate(messages, 1)])
    for outcome in (*outs[0], *outs[-1]):
        assert outcome[0] == DONE, outcome[1]
    if keeping is not Keeping.WHOLE and ranks.rank == 0:
        blocks = sum(one.nbytes for one in workers[1].models["m"].model.blocks.parameters() if one.nbytes >= LEAST)
        kept = blocks / 2 if keeping is Keeping.SPLIT else 0
        assert 0 < sizes[0] <= sizes[1] - blocks + kept + 1000 and blocks > 0.05 * sizes[1]
        assert workers[0].models["m"].keeping is keeping
    if ranks.rank:
        assert all(velocity is None for _, velocity in outs[0])
        return []
    return [relative_error(shared, own) for (_, shared), (_, own) in zip(*outs, strict=True)]


ROUNDING = {"float32": 1e-5, "bfloat16": 2 * 2**-8, "float16": 2 * 2**-11}
PRECISIONS = [
    ("auto", "auto", "float32"),
    ("bf16", "auto", "bfloat16"),
    ("fp16", "auto", "float16"),
    ("int8", "auto", "float32"),
    ("fp8", "auto", "float32"),
    ("nf4", "auto", "float32"),
    ("int8", "8 bits", "bfloat16"),
]


def of_workshop(case: tuple):
    return pytest.param(*case, marks=pytest.mark.workshop)


@pytest.mark.parametrize("precision, products, dtype", PRECISIONS)
def test_every_precision_with_loras(processes, files, precision, products, dtype):
    lora, dora, diffs = (("k" + name, str(files / f"{name}.safetensors")) for name in ("lora", "dora", "diffs"))
    wanted = [[], [(*lora, 0.5), (*dora, 1.0)], [(*diffs, -0.5), (*lora, 1.0)], []]
    messages = [message(getattr(torch, dtype), loras) for loras in wanted]
    path = files / "SkyReels-V3-V2V.safetensors"
    errors, _ = processes.call(both_ways, spec(path, precision, products, dtype), messages)
    assert max(errors) <= ROUNDING[dtype]


IN_PARTS = [
    (Keeping.SPLIT, *PRECISIONS[0]),
    (Keeping.IN_RAM, *PRECISIONS[-1]),
    *(of_workshop((Keeping.SPLIT, *one)) for one in PRECISIONS[1:]),
    *(of_workshop((Keeping.IN_RAM, *one)) for one in PRECISIONS[:-1]),
]


@pytest.mark.parametrize("keeping, precision, products, dtype", IN_PARTS)
def test_weights_in_parts(processes, files, keeping, precision, products, dtype):
    lora, dora, diffs = (("k" + name, str(files / f"{name}.safetensors")) for name in ("lora", "dora", "diffs"))
    wanted = [[], [(*lora, 0.5), (*dora, 1.0)], [(*diffs, 1.0)], []]
    messages = [message(getattr(torch, dtype), loras) for loras in wanted]
    path = files / "SkyReels-V3-V2V.safetensors"
    errors, _ = processes.call(in_parts, spec(path, precision, products, dtype), messages, keeping)
    assert max(errors) <= ROUNDING[dtype]


def in_parts(ranks: Ranks, *args) -> list[float]:
    """As both_ways, of weights that are much smaller than a model's."""
    split_weights.Splitting.__init__.__defaults__ = (False, LEAST)
    return both_ways(ranks, *args)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A checkpoint of some size: 0.2 GB in bf16, nearly all of it in blocks."""
    params = TransformerParams(dim=1024, ffn_dim=4096, num_heads=8, num_layers=6)
    path = tmp_path_factory.mktemp("large") / "SkyReels-V3-V2V.safetensors"
    return write_transformer(path, Job.EXTENSION, params=params)


def ram_taken(ranks: Ranks, spec: dict, keeping: str) -> tuple[int, int, int]:
    """Bytes of RAM that this process takes for a model, where pages that several have in common are shared out; bytes
    of what it has of the blocks, and of the layers around them.
    """
    worker, own = worker_of(ranks), psutil.Process()
    assert worker.call("load", "m", 0, spec, keeping)[0] == DONE  # what is taken once and for all
    worker.call("drop", "m")
    before = own.memory_full_info().pss
    assert worker.call("load", "m", 0, spec, keeping)[0] == DONE
    network = worker.models["m"]
    held = {name: one for name, one in network.model.named_parameters() if not one.is_meta}
    for one in held.values():
        one.view(torch.uint8).reshape(-1)[::4096].sum()  # brings what is mapped into RAM
    ranks.largest(torch.zeros(1))  # all have it
    taken = own.memory_full_info().pss - before
    ranks.largest(torch.zeros(1))  # and all have counted
    split = [] if network.split is None else [part for block in network.split.blocks for _, part in block]
    blocks = sum(one.nbytes for name, one in held.items() if name.startswith("blocks.")) + sum(map(len, split))
    around = sum(one.nbytes for name, one in held.items() if not name.startswith("blocks."))
    worker.call("drop", "m")
    return taken, blocks, around


KEPT = [(Keeping.WHOLE, "bf16"), *product((Keeping.SPLIT, Keeping.IN_RAM), ("bf16", "int8"))]


@pytest.mark.workshop
@pytest.mark.parametrize("keeping, precision", KEPT)
def test_a_machine_holds_the_blocks_once(processes, large, keeping, precision):
    """Mapped or in parts. What is whole and packed is on the cards, of which these are not some."""
    each = processes.call(ram_taken, spec(large, precision, dtype="bfloat16"), keeping.value)
    taken, blocks, around = (sum(one) for one in zip(*each, strict=True))
    once = blocks / (len(each) if keeping is Keeping.WHOLE else 1)
    print(
        f"{keeping.value}, {precision}: {taken / 1e6:.0f} MB for blocks of {once / 1e6:.0f} and {around / 1e6:.0f} MB"
    )
    assert abs(once / large.stat().st_size / (0.5 if precision == "int8" else 1) - 1) < 0.2
    assert taken <= 1.15 * (once + around)


class Queues(OneQueue):
    """Notes what is waited for, and what is done in the copying queue."""

    def __init__(self):
        super().__init__(torch.device("cpu"))
        self.notes: list[str] = []

    def computed(self):
        self.notes.append("computed")
        return len(self.notes)

    def copy_after(self, event):
        assert event == len(self.notes), "an event of now"
        self.notes.append("after it")

    def copy(self, target, source):
        self.notes.append("copy")
        super().copy(target, source)

    @contextmanager
    def copying(self):
        self.notes.append("[")
        yield
        self.notes.append("]")


def test_a_buffer_is_copied_to_once_its_block_has_computed(monkeypatch):
    """And gathered behind its copies, and computed with behind that."""
    queues = Queues()
    splitting = split_weights.Splitting(OneOf(1, 2), None, in_ram=True, least=1)
    blocks, whole = [], [torch.arange(8.0) + index for index in range(4)]
    for one in whole:
        module = torch.nn.Module()
        module.weight = torch.nn.Parameter(torch.empty(8, device="meta"), requires_grad=False)
        blocks.append([(Weight(module, "weight"), splitting.part_of(one, torch.device("cpu")))])

    def gather(place, own, group, async_op):
        queues.notes.append("gather")
        return SimpleNamespace(wait=lambda: queues.notes.append("wait"))

    monkeypatch.setattr(split_weights, "gather", gather)
    split = split_weights.SplitBlocks(blocks, splitting, torch.device("cpu"))
    split.queues = queues
    split.open()
    begin = ["computed", "after it", "copy", "[", "gather", "]"]
    wanted = begin
    for index in range(4):
        with split.block(index):
            queues.notes.append(f"block {index}")
        wanted = [*wanted, "wait", *(begin if index < 3 else []), f"block {index}"]
    split.close()
    assert queues.notes == wanted
    assert all(part.data_ptr() % split_weights.PAGE == 0 for block in blocks for _, part in block)


def test_gguf_in_parts(processes, files):
    file = files / "SkyReels-V3-V2V.gguf"
    errors, _ = processes.call(in_parts, spec(file), [message(), message()], Keeping.SPLIT)
    assert max(errors) <= 1e-5


def test_gguf(processes, files):
    errors, _ = processes.call(both_ways, spec(files / "SkyReels-V3-V2V.gguf"), [message()])
    assert max(errors) <= 1e-5


def alone(files: Path) -> Worker:
    worker = worker_of(Ranks())
    assert worker.call("load", "m", 0, spec(files / "SkyReels-V3-V2V.safetensors"))[0] == DONE
    return worker


def test_a_lora_leaves_nothing_behind(files):
    worker = alone(files)
    diffs = ("k", str(files / "diffs.safetensors"), 1.0)
    before, changed, weaker, after = (
        worker.call("forward", 1, "m", message(loras=loras))[1] for loras in ([], [diffs], [(*diffs[:2], 0.5)], [])
    )
    assert torch.equal(before, after)
    assert 0.001 < relative_error(weaker, before) < relative_error(changed, before)


def test_a_changed_prompt_is_not_met_by_the_old_ones_cache(files):
    worker = alone(files)
    first = worker.call("forward", 1, "m", message())[1]
    other = message()
    other["text"] = other["text"] + 1
    assert not torch.equal(worker.call("forward", 2, "m", other)[1], first)
    assert torch.equal(worker.call("forward", 3, "m", message(sampling="second"))[1], first)


def test_it_stops_and_goes_on(files):
    worker = alone(files)
    worker.stop(7)
    assert worker.call("forward", 7, "m", message()) == (STOPPED, None)
    assert worker.call("forward", 8, "m", message())[0] == DONE
    assert worker.progress() == 3


def stopped(ranks: Ranks, spec: dict) -> list[tuple]:
    """How three forwards end of which the first process is told to stop the second, and which blocks were begun."""
    worker = worker_of(ranks)
    assert worker.call("load", "m", 0, spec)[0] == DONE
    if ranks.rank == 0:
        worker.stop(2)
    return [(worker.call("forward", number, "m", message())[0], worker.progress()) for number in (1, 2, 3)]


def test_all_processes_leave_together(processes, files):
    ways = processes.call(stopped, spec(files / "SkyReels-V3-V2V.safetensors"))
    assert ways == processes.size * [[(DONE, 2), (STOPPED, 3), (DONE, 5)]]


def test_what_is_wrong_is_told(files, tmp_path):
    worker = alone(files)
    gone = tmp_path / "SkyReels-V3-V2V.safetensors"
    status, sentence = worker.call("load", "n", 0, spec(gone))
    assert status == REFUSED and "does not have SkyReels-V3-V2V.safetensors" in sentence
    gone.write_bytes(b"x" * 100)
    status, sentence = worker.call("load", "n", 0, spec(gone))
    assert status == REFUSED and "SkyReels-V3-V2V.safetensors" in sentence
    path = files / "SkyReels-V3-V2V.safetensors"
    assert worker.call("load", "n", path.stat().st_size + 1, spec(path))[0] == REFUSED
    assert worker.call("load", "n", path.stat().st_size, spec(path))[0] == DONE
    folder = write_transformer(tmp_path / "SkyReels-V3-V2V", Job.EXTENSION, params=PARAMS, shards=2)
    sizes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert worker.call("load", "o", sizes, spec(folder))[0] == DONE
    status, sentence = worker.call("forward", 1, "m", message(attention="sage"))
    assert status == REFUSED and "sageattention" in sentence
    status, trace = worker.call("forward", 1, "other", message())
    assert status == FAILED and "KeyError" in trace
    worker.call("drop", "m")
    assert sorted(worker.models) == ["n", "o"]


def test_a_worker_needs_neither_comfyui_nor_ray():
    script = (
        "import sys\n"
        "class Refused:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] in ('comfy', 'ray', 'folder_paths', 'comfy_api'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refused())\n"
        "import pack.distributed.worker\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT / "tools", check=True, timeout=60)
