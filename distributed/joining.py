"""How processes become a group of torch.distributed."""

import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from .ranks import Ranks

HERE = "127.0.0.1"
LOOPBACK = {"linux": "lo", "darwin": "lo0"}  # by sys.platform
LIMIT = timedelta(minutes=10)  # of one exchange: the last resort, those who watch a group end it much earlier


class Meeting:
    """The place where processes find each other: made by the first one, who tells the others its `address`."""

    def __init__(self, host: str = HERE):
        self.store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=LIMIT)
        self.address = host, self.store.port


def meet(address: tuple[str, int]) -> dist.TCPStore:
    """What a process other than the first has of a Meeting."""
    return dist.TCPStore(*address, is_master=False, timeout=LIMIT)


def join(store: dist.Store, rank: int, size: int, device: torch.device, host: str = HERE) -> Ranks:
    """The group of `size` processes that meet at a store, of which this is the one numbered `rank`.

    NCCL exchanges between graphics cards (RCCL on AMD), gloo between processors.  host: of the meeting; where it is
    this machine, nothing leaves it. To be called once in a process.
    """
    if host == HERE and sys.platform in LOOPBACK:
        # gloo would take the address of the machine's name, which may lead nowhere.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK[sys.platform])
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=LIMIT)
    return Ranks(dist.group.WORLD)
