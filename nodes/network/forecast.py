"""How long forwards take on this machine: measured in every sampling, told before the next."""

import statistics
from collections.abc import Iterable
from pathlib import Path

import comfy.ldm.modules.attention
import comfy.model_management
import folder_paths
from comfy.model_patcher import ModelPatcher

from ...skyreels_v3.jobs.forecast import Estimate, Measurement, Record, Setting, estimate, network_name
from .sizes import cards_of, network_of


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
