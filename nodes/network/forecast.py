"""How long forwards take on this machine: measured in every sampling, told before the next; before that, modelled."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import comfy.ldm.modules.attention
import comfy.model_management
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher

from ... import kernels
from ...kernels.attention_backends import INT8, SAGE
from ...skyreels_v3.jobs.estimates.forecast import Estimate, Measurement, Record, Setting, estimate, network_name
from ...skyreels_v3.jobs.estimates.modelled import Way, corrections, seconds
from ...skyreels_v3.jobs.estimates.rates import Rates, rates
from ..weights.layers import Packed
from .attention import choose
from .sizes import cards_of, network_of, sharing_of

WORTH = 0.9  # of the time: what would leave more than that is not told


def record() -> Record:
    """The file of this ComfyUI: in its folder user, which updates leave alone."""
    return Record(Path(folder_paths.get_user_directory()) / "skyreels_v3" / "pace.json")


def setting_of(patcher, cards: int | None = None) -> Setting:
    """What decides the pace of a MODEL on its device, or on another number of such cards."""
    network = network_of(patcher)
    # Which attention runs follows from the choice in Load Model and from how ComfyUI was started.
    attention = patcher.model.diffusion_model.attention, comfy.ldm.modules.attention.optimized_attention.__name__
    device = comfy.model_management.get_torch_device_name(patcher.load_device)
    cards = cards or cards_of(patcher)
    return Setting(
        network=network_name(network.params),
        device=device if cards == 1 else f"{cards} x {device}",
        precision=network.precision,
        attention=", ".join(attention),
    )


def expected(patcher, tokens: int, batch: int = 1, cards: int | None = None) -> Estimate | None:
    """The time of a forward of a MODEL, or None where this machine made none like it. tokens: of one video.

    cards: another number than those that share its forwards.
    """
    return estimate(record().runs(), setting_of(patcher, cards), network_of(patcher).params, tokens, batch)


@dataclass(frozen=True)
class Modelled:
    """The time of a forward by what a card can do. corrected: whether such a card was measured with the pack.

    faster: what would shorten it, in words for artists, and the part of the time that would be left.
    """

    seconds: float
    corrected: bool
    faster: tuple[tuple[str, float], ...]


def modelled(patcher, tokens: int, batch: int = 1) -> Modelled | None:
    """The time of a forward of a MODEL, None for a device of which nothing is known and for several cards.

    tokens: of one video.
    """
    device, network = patcher.load_device, network_of(patcher)
    if device.type != "cuda" or torch.version.hip is not None or sharing_of(patcher) is not None:
        return None
    card = torch.cuda.get_device_properties(device)
    # Newer torch tells the clock, in kHz, of memory that moves twice in it.
    bandwidth = 2e3 * getattr(card, "memory_clock_rate", 0) * getattr(card, "memory_bus_width", 0) / 8
    speed = rates(card.name, (card.major, card.minor), card.multi_processor_count, bandwidth)
    if speed is None:
        return None
    way = way_of(patcher)

    def needed(way: Way) -> float:
        return seconds(network.params, tokens, way, speed, batch)

    now = needed(way)
    shares = [(words, needed(other) / now) for words, other in _faster_ways(way, device, speed)]
    worth = tuple((words, share) for words, share in shares if share < WORTH)
    return Modelled(now * corrections().get(card.name, 1.0), card.name in corrections(), worth)


def way_of(patcher) -> Way:
    """How the forward of a MODEL runs on its card."""
    device, network = patcher.load_device, patcher.model.diffusion_model
    packed = [layer for layer in network.modules() if isinstance(layer, Packed)]
    taken = [None if one.exact else one.format.quantised_input(device, one.part_names) for one in packed]
    kinds = [how.kind for how in taken if how is not None]
    options = patcher.model_options["transformer_options"]
    products = kinds[0] if 2 * len(kinds) > len(taken) else "half"
    fused = kernels.norm_modulate.has_backend(device)
    return Way(
        products=products,
        unpacks=2 * len(kinds) < len(taken),
        fused=fused and (products != "int8" or kernels.int8_linear.has_backend(device)),
        exact=choose(network.attention, device, options).exact,
    )


def _faster_ways(way: Way, device: torch.device, speed: Rates) -> list[tuple[str, Way]]:
    """(what would have to be done, the way that it would then run) of what is exact or costs little exactness."""
    found = []
    if not kernels.norm_modulate.has_backend(device):
        found.append(("with the package triton (on Windows triton-windows)", replace(way, fused=True)))
    rounding = next((one for one in (INT8, SAGE) if one.runs_on(device) and one.installed()), None)
    if way.exact and rounding is not None and speed.attention8:
        found.append((f"with the attention {rounding.key}, a little different,", replace(way, exact=False)))
    return found


def ahead(forwards: Iterable[tuple[ModelPatcher, int, int]]) -> list[float] | None:
    """Seconds of each of many windows, or None where one of them is unlike all that was measured.

    forwards: the MODEL of each window, the tokens of a forward and how many forwards it takes.
    """
    forwards = list(forwards)
    each = {(model, tokens): expected(model, tokens) for model, tokens, _ in forwards}
    counted = [(each[model, tokens], count) for model, tokens, count in forwards]
    known = [one.seconds * count for one, count in counted if one is not None]
    return known if len(known) == len(counted) else None


def remember(patcher) -> None:
    """Keeps what the forwards of a sampling took; ComfyUI calls it when the sampling has ended."""
    network = patcher.model.diffusion_model
    # The first one also loads, compiles and computes what the others only look up.
    forwards, network.forwards = network.forwards[1:], []
    sizes = {(one.tokens, one.batch) for one in forwards}
    for tokens, batch in sizes:
        seconds = [one.seconds for one in forwards if (one.tokens, one.batch) == (tokens, batch)]
        record().add(Measurement(setting_of(patcher), tokens, batch, round(statistics.median(seconds), 4)))
