"""One of the processes that share a forward: what its group tells it to do. Needs neither ComfyUI nor Ray.

All that it takes and gives back is made of tensors, numbers, words and plain collections: in ComfyUI's process the
classes of this pack have other names.
"""

import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from .. import kernels
from ..kernels.attention_backends import BACKENDS
from ..kernels.out_of_memory import is_out_of_memory
from ..skyreels_v3.errors import InputError
from ..skyreels_v3.model.block_streaming import BLOCKS_AHEAD
from ..skyreels_v3.model.chunking import Chunking
from ..skyreels_v3.model.memory import Keeping
from ..skyreels_v3.model.rope import Rope
from ..skyreels_v3.model.sequence import Segment
from ..skyreels_v3.model.speaker_map import PositionMap
from ..skyreels_v3.model.step_cache import StepCache
from ..skyreels_v3.model.transformer import Runtime
from ..skyreels_v3.recipes import TimeStep
from .joining import HERE, Meeting, join, meet
from .network import WorkerNetwork, check_files
from .pictures import Pictures
from .split_weights import Splitting

log = logging.getLogger(__name__)

SDPA = "sdpa"  # the name of PyTorch's attention; others are the keys of BACKENDS
TRIED = {"cpu": 2**23, "cuda": 2**28}  # bytes of each exchange by which a link is measured
# How a call ended: its value follows, or a sentence, or what went wrong.
DONE, REFUSED, STOPPED, NO_MEMORY, FAILED = "done", "refused", "stopped", "no memory", "failed"
Outcome = tuple[str, Any]


class StoppedError(Exception):
    """All processes of the group have left a forward together."""


class Worker:
    """The process numbered `rank` of `size`. device: torch's name of what it computes on."""

    def __init__(self, rank: int, size: int, device: str):
        self.rank, self.size = rank, size
        self.device = torch.device(device)
        self.models: dict[str, WorkerNetwork] = {}
        self.caches: dict[str, tuple[str, StepCache]] = {}  # of each model's last sampling
        self.vae: tuple[str, dict[str, torch.Tensor]] = "", {}  # its key, and the weights of its decoder
        self.pictures: Pictures | None = None  # of the video that is decoded
        self.blocks = 0  # that were begun, in all
        self.wish = 0  # the forward that is to be stopped
        self._meeting: Meeting | None = None
        self._working = threading.Lock()

    def call(self, name: str, *args: Any) -> Outcome:
        """The outcome of a method, whatever it raises; one at a time."""
        with self._working:
            try:
                with torch.inference_mode():
                    if self.device.type == "cuda":
                        torch.cuda.set_device(self.device)  # which every thread has its own of
                    return DONE, getattr(self, name)(*args)
            except InputError as error:
                return REFUSED, str(error)
            except StoppedError:
                return STOPPED, None
            except Exception as error:
                if is_out_of_memory(error):
                    return NO_MEMORY, f"{self.where()}: {error}"
                return FAILED, traceback.format_exc()

    # What may be asked while a call runs.

    def progress(self) -> int:
        """How many blocks this process has begun: one that hangs begins none."""
        return self.blocks

    def stop(self, forward: int) -> None:
        """The group leaves this forward at its next block. For the first process alone."""
        self.wish = forward

    # Calls.

    def where(self) -> str:
        """This machine and card, for people."""
        card = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "processor"
        return f"{socket.gethostname()}, {card} (rank {self.rank})"

    def describe(self) -> dict[str, Any]:
        """What the group must know of this process before it joins."""
        about = {
            "pid": os.getpid(),
            "machine": socket.gethostname(),
            "torch": torch.__version__,
            "python": ".".join(map(str, sys.version_info[:2])),
            "device": self.device.type,
            "card": "",
            "name": "processor",
            "total": 0,
        }
        if self.device.type == "cuda":
            properties = torch.cuda.get_device_properties(self.device)
            about.update(card=str(getattr(properties, "uuid", "")), name=properties.name, total=properties.total_memory)
        return about

    def meeting(self, host: str = HERE) -> tuple[str, int]:
        """Where the others find this process, which is the first one."""
        self._meeting = Meeting(host)
        return self._meeting.address

    def join(self, address: tuple[str, int]) -> None:
        """Become part of the group."""
        store = meet(address) if self._meeting is None else self._meeting.store
        self.ranks = join(store, self.rank, self.size, self.device, address[0])
        # Of what is agreed upon at every block: numbers of the processor, beside what the cards exchange.
        self.agreeing = self.ranks.group
        self.bringing = dist.new_group()  # weights that are split: they must not wait for what blocks exchange
        if self.device.type != "cpu":
            self.agreeing = dist.new_group(backend="gloo", timeout=timedelta(minutes=10))

    def measure(self) -> float:
        """Bytes a second that this process exchanges with the others."""
        numbers = TRIED[self.device.type] // self.size
        given, sizes = torch.zeros(numbers * self.size, dtype=torch.uint8, device=self.device), [numbers] * self.size
        start = 0.0
        for _ in range(2):  # the first one also sets up the links
            start = time.perf_counter()
            self.ranks.exchanged(given, sizes, sizes)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        return numbers * (self.size - 1) / (time.perf_counter() - start)

    def load(self, key: str, size: int, spec: Mapping[str, Any], keeping: str = Keeping.WHOLE.value) -> int:
        """Bytes of the weights of a model that are on this card from now on, as `key`.

        spec: see WorkerNetwork.  size: of its files.  keeping: a Keeping's value.
        """
        if key in self.models and self.models[key].keeping.value != keeping:
            self.drop(key)
        if key not in self.models:
            check_files(spec["path"], size, socket.gethostname())
            whole, in_ram = (Keeping(keeping) is one for one in (Keeping.WHOLE, Keeping.IN_RAM))
            splitting = None if whole else Splitting(self.ranks, self.bringing, in_ram)
            self.models[key] = WorkerNetwork(**spec, device=self.device, splitting=splitting)
        return self.models[key].size

    def drop(self, key: str) -> None:
        """Give a model's memory back."""
        self.models.pop(key, None)
        self.caches.pop(key, None)
        self.rest()

    def rest(self) -> None:
        """Give back what the last forwards needed: others may want it between two samplings."""
        self.caches.clear()
        self.pictures = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def take_vae(self, key: str, weights: Mapping[str, torch.Tensor]) -> None:
        """Keep more weights of a VAE's decoder, in RAM; those of another are dropped."""
        self.vae = key, {**(self.vae[1] if self.vae[0] == key else {}), **weights}

    def begin_pictures(self, key: str, height: int, by_cudnn: bool) -> bool:
        """Get ready for a video, `height` latent pixels high; False where the VAE of that key is not here.

        by_cudnn: see `causal.convolved`.
        """
        self.pictures = None
        if self.vae[0] == key:
            self.pictures = Pictures(self.vae[1], self.ranks, height, self.device, by_cudnn)
        return self.vae[0] == key

    def decode(self, latents: torch.Tensor, at_once: int) -> list[torch.Tensor]:
        """See Pictures."""
        assert self.pictures is not None, "no video was begun"
        return self.pictures.of(latents, at_once)

    def forward(self, number: int, key: str, message: Mapping[str, Any]) -> torch.Tensor | None:
        """The velocity of a model, on the processor, from the first process; None from the others.

        message: what the network is given, `segments` as (latents, position, clean, predicted); how it runs:
        `attention`, `float32_time`, `chunking`, `rope`; `loras` as WorkerNetwork takes them; `sampling`, which names
        what the step cache is kept for, and `cache`, its bytes.
        """

        def here(x: Any) -> Any:
            return x.to(self.device) if torch.is_tensor(x) else x

        segments = [Segment(here(latents), *rest) for latents, *rest in message["segments"]]
        given = {name: here(one) for name, one in message["given"].items()}
        if "position_map" in given:
            given["position_map"] = PositionMap(given["position_map"])
        runtime = Runtime(
            attention=self._attention(message["attention"]),
            linear=lambda layer, x: layer(x),
            float32_time=frozenset(map(TimeStep, message["float32_time"])),
            run_block=self._agreed(number),
            step_cache=self._cache(key, message["sampling"], message["cache"]),
            chunking=Chunking(*message["chunking"]),
            rope=Rope(*message["rope"]),
            ranks=self.ranks,
        )
        model, inputs = self.models[key], (here(message["timestep"]), here(message["text"]))
        velocity = model.forward(message["loras"], segments, *inputs, runtime=runtime, **given)
        return velocity.cpu() if self.rank == 0 else None

    def _attention(self, name: str) -> Callable[..., torch.Tensor]:
        if name == SDPA:
            return kernels.attention
        backend = BACKENDS[name]
        if not backend.installed():
            raise InputError(
                f"{self.where()} lacks the package {backend.package}, by which attention is computed: install it "
                f"there ({backend.install}), or choose another attention in Load Model."
            )
        return backend

    def _cache(self, key: str, sampling: str, limit: int) -> StepCache | None:
        if not limit:
            return None
        if self.caches.get(key, ("",))[0] != sampling:
            self.caches[key] = sampling, StepCache(limit)
        return self.caches[key][1]

    def _agreed(self, number: int) -> Callable:
        """Runs a block once all processes have agreed that nobody wants the forward to stop."""
        done: deque[Any] = deque()
        flag = torch.zeros(1, dtype=torch.int32)

        def run_block(index: int, block: Callable, x: torch.Tensor) -> torch.Tensor:
            self.blocks += 1
            if len(done) >= BLOCKS_AHEAD:  # Python must not be many blocks ahead of what can still be stopped
                done.popleft().synchronize()
            flag[0] = self.wish == number
            if self.size > 1:
                dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.agreeing)
            if flag.item():
                raise StoppedError
            x = block(x)
            if x.device.type == "cuda":
                done.append(torch.cuda.current_stream(x.device).record_event())
            return x

        return run_block
