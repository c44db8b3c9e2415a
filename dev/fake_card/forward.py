"""One step of the whole network in a real ComfyUI that believes in a card: memory, traffic, waits and errors.

    python dev/fake_card/forward.py 4090 '{"precision": "int8", "size": "720p121"}' '{"job": "avatar"}'

A line of JSON for each case; `error` where it failed. One card a process, because ComfyUI looks at it once.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[:1] = [str(Path(__file__).resolve().parents[2] / "tools")]

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import tempfile
import traceback
from collections import Counter
from collections.abc import Generator, Iterable
from typing import Any

import psutil
import torch

from pack.dev.comfyui.process import PackNodes, load_pack, open_comfyui
from pack.dev.fake_card import dynamic_vram, launches, torch_device
from pack.dev.fake_card.attention import attention_in_8_bits
from pack.dev.fake_card.meter import WAITS, Meter, Work, seconds
from pack.dev.fake_card.pictures import Pictures
from pack.dev.fake_card.profiles import CARDS, GIB, Card

# Latent frames, height and width.
SIZES = {
    "480p1": (1, 60, 104),
    "480p9": (3, 60, 104),
    "480p17": (5, 60, 104),
    "480p41": (11, 60, 104),
    "480p81": (21, 60, 104),
    "480p121": (31, 60, 104),
    "720p81": (21, 90, 160),
    "720p121": (31, 90, 160),
}
LAYERS = 40
ROUNDED = ("int8", "sage")  # attentions in 8 bits
IMAGE_TOKENS, IMAGE_WIDTH = 257, 1280


@dataclasses.dataclass(frozen=True)
class Case:
    """What is sampled. precision: a plain dtype ("bf16", "fp16"), a kind of format ("int8", "fp8", "nf4", "nvfp4") or a
    type of GGUF.  layers: blocks of the network; their memory and time are those of LAYERS but for the weights.
    ram: GiB.  resident: part of the weights that stays on the card, None where ComfyUI decides.  mapped: weights lie on
    the pages of their file.
    """

    precision: str = "bf16"
    job: str = "reference"
    size: str = "480p81"
    layers: int = 2
    batch: int = 1
    speakers: int = 1
    lora: int = 0
    triton: bool = True
    ram: float = 64
    resident: float | None = None
    mapped: bool = False
    attention: str = "auto"


def open_host(card: Card, base: Path, dynamic: bool = False, **flags: Any) -> PackNodes:
    """ComfyUI with this pack in this process, which has the card from here on. dynamic: with dynamic VRAM (0.33)."""
    torch_device.install(card)
    comfyui = open_comfyui(base, cpu=False, **flags)
    if dynamic:
        dynamic_vram.install()
    return load_pack(comfyui)


def run(nodes: PackNodes, card: Card, case: Case, like: Iterable[str] = ()) -> dict[str, Any]:
    """What the second step of a case takes, after one that fills caches.

    like: names of cards on which the same operations would run, whose time is told beside it.
    """
    nodes.module("kernels.dispatch").MODE = "triton"  # every backend, without a trial: there are no numbers
    ram = int(case.ram * GIB)
    memory = psutil.virtual_memory()._replace(total=ram, available=int(0.9 * ram))
    psutil.virtual_memory = lambda: memory
    with torch_device.measured(card) as meter, torch.no_grad():
        launches.install(nodes.module("kernels"), meter, case.triton and card.has_triton)
        if case.attention in ROUNDED:
            _round(nodes, case.attention, meter)
        step = Step(nodes, card, case, meter)
        before = meter.live[card.device] - dynamic_vram.Memory.held()
        step()
        meter.clear()
        with _told_apart(nodes, meter), _watched(step.patcher.model.diffusion_model.blocks[0], meter) as block:
            step()
        of_weights = step.in_transit + dynamic_vram.Memory.held()
        cached = meter.live[card.device] - before - dynamic_vram.Memory.held()
        scale = LAYERS / case.layers
        work = meter.work + Counter({each: count * (LAYERS - case.layers) for each, count in block.items()})
        told = nodes.module("nodes.network.forecast").modelled(step.patcher, step.tokens // case.batch, case.batch)
        found = {
            "card": card.name,
            **dataclasses.asdict(case),
            "tokens": step.tokens,
            "planned": step.planned,
            "peak": meter.peak[card.device] - before - of_weights,
            "cached": cached,
            "weights": step.patcher.model_size(),
            "resident": step.resident,
            "resident_part": round(step.resident / max(1, step.patcher.model_size()), 3),
            "waits": dict(meter.waits),
            "launches": round(sum(meter.launches.values()) * scale),
            "seconds": _seconds(card, meter, work, scale),
            "like": {name: _seconds(CARDS[name], meter, work, scale) for name in like},
            "told": None if told is None else round(told.seconds * scale, 3),
            "faster": {} if told is None else dict(told.faster),
            "pinned": dynamic_vram.Memory.pinned(),
            "copied": {name: round(value * scale) for name, value in meter.copied.items()},
        }
        step.end()
        return found


def _seconds(card: Card, meter: Meter, work: Counter[Work], scale: float) -> dict[str, float]:
    """What a step of the whole network takes by the roofline. What is copied waits for nothing but itself: from other
    than pinned memory too, while the block before computes.
    """
    found = seconds(work, sum(meter.waits.values()), card.rates)
    copies = meter.copied["from pinned memory"] / card.link + meter.copied["from pageable memory"] / card.pageable
    found[WAITS] += max(0.0, scale * copies - sum(found.values()))
    return {name: round(value, 4) for name, value in sorted(found.items())}


@contextlib.contextmanager
def _watched(block: torch.nn.Module, meter: Meter) -> Generator[Counter[Work]]:
    """While it is open, the work of one call of a block; that of the last leaves out what is not used."""
    forward, found = block.forward, Counter()

    def call(*args: Any, **options: Any) -> Any:
        before = meter.work.copy()
        out = forward(*args, **options)
        found.update(meter.work - before)
        return out

    block.forward = call
    try:
        yield found
    finally:
        block.forward = forward


@contextlib.contextmanager
def _told_apart(nodes: PackNodes, meter: Meter) -> Generator[None]:
    """While it is open, what unpacks weights and quantises rows is counted as that."""

    def counted(function: Any, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            with meter.of(name):
                return function(*args, **options)

        return call

    kinds = [kind for kind in _kinds(nodes.module("formats.base").Format) if "unpack" in vars(kind)]
    places = [(kind, "unpack", "unpacking") for kind in kinds]
    places.append((nodes.module("kernels.quantise").quantised, "eager", "quantising"))
    before = [getattr(owner, name) for owner, name, _ in places]
    for (owner, name, part), function in zip(places, before):
        setattr(owner, name, counted(function, part))
    try:
        yield
    finally:
        for (owner, name, _), function in zip(places, before):
            setattr(owner, name, function)


def _kinds(kind: type) -> list[type]:
    return [kind, *(below for one in kind.__subclasses__() for below in _kinds(one))]


def _round(nodes: PackNodes, key: str, meter: Meter) -> None:
    """Lets an attention in 8 bits be installed."""
    backend = nodes.module("kernels.attention_backends").BACKENDS[key]
    backend.installed = lambda: True
    backend.operation.eager = backend.operation._backend = functools.partial(attention_in_8_bits, [meter])


class Step:
    """One call of a MODEL, as ComfyUI's samplers make it. patcher: it; None for one without a file."""

    def __init__(self, nodes: PackNodes, card: Card, case: Case, meter: Meter, patcher: Any = None):
        import comfy.model_management as management

        self.nodes, self.case = nodes, case
        device = management.get_torch_device()
        assert device.type == card.device, f"ComfyUI computes on {device}"
        _pinned_without_a_driver(management, meter, card)
        if dynamic_vram.installed():
            dynamic_vram.pin_into(meter, management)
        self.patcher = patcher or build(nodes, case, device)
        if case.lora:
            self.patcher = with_lora(nodes, self.patcher, case.lora)
        model = self.patcher.model
        frames, height, width = SIZES[case.size]
        x = torch.empty(case.batch, 16, frames, height, width)
        condition = condition_of(nodes, case)
        shapes = {name: [one] for name, one in model.extra_conds_shapes(skyreels_condition=condition).items()}
        self.planned = model.memory_required(list(x.shape), shapes)
        latents = nodes.module("skyreels_v3.jobs.spec").SPECS[model.job]
        self.tokens = case.batch * latents.tokens(x.shape, *(one for some in shapes.values() for one in some))
        room = self.planned
        if case.resident is not None:
            room = card.memory - int(case.resident * self.patcher.model_size()) - management.extra_reserved_memory()
        others = self.patcher.get_nested_additional_models()
        dynamic_vram.Memory.budget = card.memory - room - management.extra_reserved_memory()
        management.load_models_gpu([self.patcher, *others], memory_required=room, minimum_memory_required=room)
        self.resident = meter.live[card.device]
        conditions = model.extra_conds(
            cross_attn=torch.empty(1, 512, 4096), noise=x, device=device, skyreels_condition=condition
        )
        self.given = {
            name: one.process_cond(batch_size=case.batch, device=device).cond for name, one in conditions.items()
        }
        self.text = self.given.pop("c_crossattn")
        self.x, self.timestep = x.to(device), torch.empty(case.batch, device=device)
        nodes.module("nodes.network.network").begin_sampling(self.patcher)
        model.current_patcher = self.patcher
        waiting = nodes.module("nodes.weights.streaming").waiting_weights
        weights = max(
            (sum(weight.size for weight in waiting(block, self.x.device)) for block in model.diffusion_model.blocks),
            default=0,
        )
        self.in_transit = 2 * weights

    def end(self) -> None:
        """ComfyUI lets go of the model."""
        import comfy.model_management as management

        management.unload_all_models()
        management.current_loaded_models.clear()
        getattr(management, "reset_cast_buffers", bool)()  # as after each prompt
        dynamic_vram.Memory.forget()

    def __call__(self) -> None:
        options = {**self.patcher.model_options["transformer_options"], "uuids": ["prompt"] * self.case.batch}
        model = self.patcher.model
        out = model.apply_model(self.x, self.timestep, c_crossattn=self.text, transformer_options=options, **self.given)
        assert out.shape == self.x.shape and out.device == self.x.device, (out.shape, out.device)


def build(nodes: PackNodes, case: Case, device: torch.device):
    """A patcher of the MODEL as Load Model makes it, without a file."""
    import comfy.model_management as management

    params, recipes = nodes.module("skyreels_v3.model.params"), nodes.module("skyreels_v3.recipes")
    loading, models = nodes.module("nodes.models.load"), nodes.module("nodes.network.model")
    avatar = case.job == "avatar"
    sizes = params.TransformerParams(
        num_layers=case.layers,
        in_dim=36 if avatar else 16,
        image_dim=IMAGE_WIDTH if avatar else None,
        audio=params.AudioParams() if avatar else None,
    )
    plain = torch.float16 if case.precision == "fp16" else torch.bfloat16
    config = models.Config(sizes, recipes.Job(case.job))
    config.set_inference_dtype(plain, management.unet_manual_cast(plain, device, config.supported_inference_dtypes))
    model = models.Model(config)
    weights = nodes.module("model_loaders.weights").Weights()
    matrices = nodes.module("model_loaders.tensors.precision").MATRICES
    for name, shape in nodes.module("model_loaders.architecture.params").expected_shapes(sizes).items():
        layer = name.removesuffix(".weight")
        encoding = encoding_for(nodes, case.precision, shape[-1]) if matrices.match(name) else None
        if encoding is None or not encoding.fits(shape[-1]):
            weights.tensors[name] = torch.empty(shape, dtype=plain)
        else:
            format = nodes.module("formats.registry").format_of(encoding)
            weights.formats[layer] = format
            parts = parts_of(nodes, format, case.precision, shape)
            weights.tensors.update({f"{layer}.{part}": tensor for part, tensor in parts.items()})
    if case.mapped:
        for tensor in weights.tensors.values():
            nodes.module("model_loaders.tensors.file_tensors").marked(tensor)
    loading.fill(model.diffusion_model, weights, device, nodes.module("nodes.weights.layers").Packed)
    patcher = nodes.module("nodes.network.patcher").patcher_class(True, device)(
        model, load_device=device, offload_device=management.unet_offload_device()
    )
    model.diffusion_model.attention = case.attention
    return patcher


def encoding_for(nodes: PackNodes, precision: str, columns: int):
    """How a weight with so many columns is stored; None for plain numbers."""
    if precision in ("bf16", "fp16"):
        return None
    encoding = nodes.module("formats.encoding")
    kind = {"fp8": "float8_e4m3fn"}.get(precision, precision)
    rotation = encoding.rotation_for(columns) if precision == "int8" else 0
    return encoding.Encoding(kind, rotation)


def parts_of(nodes: PackNodes, format, precision: str, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The tensors of a weight in a format, on the host."""
    gguf = nodes.module("formats.gguf_types").TYPES.get(precision)
    if gguf is not None:
        rows, columns = shape
        return {"weight": torch.empty(rows, columns // gguf.elements * gguf.bytes, dtype=torch.uint8)}
    if precision == "nvfp4":  # only read: half a byte a number, a scale for 16 and one for all
        rows, columns = shape
        scales = {"weight_scale": torch.empty(rows, columns // 16, dtype=torch.float8_e4m3fn)}
        return {
            "weight": torch.empty(rows, columns // 2, dtype=torch.uint8),
            **scales,
            "weight_scale_2": torch.empty(()),
        }
    packed = format.pack(torch.empty(shape, device="meta"))
    return {name: torch.empty(part.shape, dtype=part.dtype) for name, part in packed.items()}


def with_lora(nodes: PackNodes, patcher, rank: int):
    """A clone with a LoRA on all layers of all blocks."""
    core, branches = nodes.module("skyreels_v3.model.lora"), nodes.module("nodes.weights.lora_branches")
    modules = patcher.model.diffusion_model.named_modules()
    layers = {
        name: core.BranchParams(module.in_features, module.out_features, rank)
        for name, module in modules
        if hasattr(module, "in_features") and name.startswith("blocks.")
    }
    weights = {}
    for name, layer in layers.items():
        for part, shape in (("down", (rank, layer.columns)), ("up", (layer.rows, rank))):
            weights[f"{core.module_name(name)}.{part}.weight"] = torch.empty(shape, dtype=torch.bfloat16)
    clone = patcher.clone()
    branches.attach(clone, branches.lora_patcher(layers, weights, patcher.load_device, patcher.offload_device), 1.0)
    return clone


def condition_of(nodes: PackNodes, case: Case):
    """What a job gives the sampler beside the prompt."""
    module = nodes.module("nodes.network.condition")
    job = nodes.module("skyreels_v3.recipes").Job(case.job)
    frames, height, width = SIZES[case.size]
    if case.job == "avatar":
        speech = torch.empty(case.speakers, 4 * (frames - 1) + 1, 5, 12, 768)
        masks = torch.empty(case.speakers + 1, 8 * height, 8 * width) if case.speakers > 1 else None
        latents = torch.empty(1, 20, frames, height, width)
        return module.JobCondition(job, latents, torch.empty(1, IMAGE_TOKENS, IMAGE_WIDTH), speech, masks)
    given = {"reference": 4, "extension": 7, "shot": 7}[case.job]
    return module.JobCondition(job, torch.empty(1, 16, given, height, width))


def _pinned_without_a_driver(management: Any, meter: Meter, card: Card) -> None:
    def pin(tensor: torch.Tensor) -> bool:
        limit = management.MAX_PINNED_MEMORY
        if tensor.device.type != "cpu" or management.TOTAL_PINNED_MEMORY + tensor.nbytes > limit:
            return False
        management.TOTAL_PINNED_MEMORY += tensor.nbytes
        meter.pinned.add(tensor.untyped_storage())
        return True

    management.pin_memory = pin
    management.unpin_memory = lambda _: True
    management.TOTAL_PINNED_MEMORY = 0
    management.MAX_PINNED_MEMORY = psutil.virtual_memory().total * (0.45 if card.windows else 0.95)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("card", choices=CARDS)
    parser.add_argument("cases", nargs="+", metavar="case", help="JSON with fields of Case or of Pictures")
    parser.add_argument("--like", action="append", default=[], choices=CARDS, help="tell its time, too")
    parser.add_argument("--dynamic", action="store_true", help="dynamic VRAM of ComfyUI 0.33")
    parser.add_argument("--flag", action="append", default=[], help="of ComfyUI, such as disable_async_offload")
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", DO_NOT_TRACK="1")
    card, failed = CARDS[options.card], 0
    with tempfile.TemporaryDirectory() as base:
        nodes = open_host(card, Path(base), options.dynamic, **dict.fromkeys(options.flag, True))
        for text in options.cases:
            given = json.loads(text)
            case = Pictures(**given) if "direction" in given else Case(**given)
            try:
                found = case.run(nodes, card) if isinstance(case, Pictures) else run(nodes, card, case, options.like)
            except Exception as error:
                failed += 1
                where = traceback.format_exc(limit=-8)
                found = {"card": card.name, **dataclasses.asdict(case), "error": f"{error}\n{where}"}
            print(json.dumps(found), flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
