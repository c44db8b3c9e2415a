"""ComfyUI's VAE on the cards that share a model: each decodes some rows of the picture."""

import itertools
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakKeyDictionary

import comfy.model_management
import torch

from ...distributed import cluster
from ...distributed.group import EXCHANGING, Group
from ...skyreels_v3.recipes import FRAMES_PER_LATENT
from ...skyreels_v3.vae.causal import unfolds
from ...skyreels_v3.vae.memory import Direction, needed, vae_bytes
from ...skyreels_v3.vae.plain import is_decoders
from .. import versions

SENT = 64 * 2**20  # bytes of weights that are sent at a time: the store that they pass through is small
_keys: WeakKeyDictionary[torch.nn.Module, str] = WeakKeyDictionary()
_numbers = itertools.count(1)


def shared_frames(vae, group: Group, latents: torch.Tensor, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """The frames of latents [1, 16, n + 1, h, w], not in model space, in pieces [1, 3, f, 8 h, 8 w], float32.

    Computed in `dtype`. Nothing where one card does it better: where there are more cards than rows, where a card has
    no room for its rows, or where a node changes the VAE. Raises Lost and InputError where the cards fail.
    """
    network: torch.nn.Module = vae.first_stage_model
    weights = {name: one for name, one in network.state_dict().items() if is_decoders(name)}
    height, width = latents.shape[-2:]
    if group.size == 1 or height < group.size or vae.patcher.patches or vae.patcher.object_patches:
        return
    at_once = _frames_at_once(vae, group, height, width, dtype)
    if not at_once:
        return
    key = f"{_keys.setdefault(network, str(next(_numbers)))} {dtype}"
    video = key, height, versions.convolves_by_cudnn()
    ahead = ThreadPoolExecutor(1)  # the cards decode while what they have made is written
    try:
        if not all(group.ask("begin_pictures", *video)):
            for part in _parts(weights, dtype):
                group.ask("take_vae", key, cluster.put(part), limit=EXCHANGING)
            group.ask("begin_pictures", *video)
        first, *others = latents.to("cpu", dtype).split(1, dim=2)
        begun, limit = time.monotonic(), 0.0
        asked = ahead.submit(group.ask, "decode", first, at_once)
        for latent in (*others, None):
            comfy.model_management.throw_exception_if_processing_interrupted()
            made = asked.result()
            limit = limit or max(group.patience, 2 * (time.monotonic() - begun))  # as the first one took
            if latent is not None:
                asked = ahead.submit(group.ask, "decode", latent, at_once, limit=limit)
            for rows in zip(*made, strict=True):
                yield torch.cat([one.float() for one in rows], dim=-2)
    finally:
        ahead.shutdown()
        group.rest()


def bytes_on_each(
    vae, cards: int, height: int, width: int, dtype: torch.dtype, at_once: int = FRAMES_PER_LATENT
) -> int:
    """What each of several cards needs to decode its rows, the VAE's decoder included. height, width: latent pixels.

    at_once: frames of full size in a layer at a time.
    """
    weights = sum(one.numel() for name, one in vae.first_stage_model.named_parameters() if is_decoders(name))
    rows = -(-height // cards) + 1  # one more for those of the neighbours
    sizes = rows, width, vae.first_stage_model.dim, dtype.itemsize, at_once, unfolds(vae.device)
    return weights * dtype.itemsize + needed(vae_bytes(Direction.DECODE, *sizes))


def _frames_at_once(vae, group: Group, height: int, width: int, dtype: torch.dtype) -> int:
    """Of full size, in a layer of each card; 0 where its rows do not fit."""
    needs = {count: bytes_on_each(vae, group.size, height, width, dtype, count) for count in (4, 2, 1)}
    manager = comfy.model_management
    # To load the shared model again would take longer than what it gives to decode together.
    staying = [one for one in manager.current_loaded_models if one.model is not None and _shares(one.model, group)]
    manager.free_memory(max(needs.values()) + manager.extra_reserved_memory(), vae.device, keep_loaded=staying)
    manager.soft_empty_cache()  # what torch keeps here for later is not there for other processes
    free = int(manager.get_free_memory(vae.device))
    if group.smallest:
        free = min(free, group.smallest - sum(group.sizes.values()))
    return next((count for count, size in needs.items() if size <= free), 0)


def _shares(patcher, group: Group) -> bool:
    """Whether the weights of a model are in the processes of a group."""
    return getattr(getattr(patcher.model, "diffusion_model", None), "group", None) is group


def _parts(weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> Iterator[dict[str, torch.Tensor]]:
    """The weights on the processor, some at a time."""
    part: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        part[name] = weight.detach().to("cpu", dtype)
        if sum(one.nbytes for one in part.values()) >= SENT:
            yield part
            part = {}
    yield part
