"""Start a ComfyUI on every card, for batch.py to share its rows out among.

    python tools/workers.py --comfyui /opt/ComfyUI
    python tools/batch.py my_workflow.json prompts.csv --servers workers.txt

Runs with ComfyUI's Python (or give --python). What ends or hangs is started again, Ctrl+C stops all, and none stays
behind, however this command ends. Arguments behind -- are handed to ComfyUI: -- --reserve-vram 1.

Each is reached from this machine alone, at 127.0.0.1. Whoever reaches a ComfyUI can run what he likes on its machine:
give --listen an address of a private network, never one that the internet reaches.

With --ray, or where RAY_ADDRESS is set, the ComfyUIs run on the cards of that Ray cluster, at their machines' addresses
in it, each from the folder of --comfyui there. That needs the package ray.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # not every Python looks beside a script
from pack.tools.serving.cluster import Cluster
from pack.tools.serving.here import cards_of, on_cards, without_cards
from pack.tools.serving.worker import GRACE, SILENT, Setup, Worker, is_private

HERE = Path(__file__).absolute().parent  # as it was called: a pack may be a link in custom_nodes
POLL = 1.0  # seconds
LOCAL = "127.0.0.1"
PORT = 8188


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="workers.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--comfyui",
        type=Path,
        default=HERE.parents[2],
        help="ComfyUI's folder, the one with main.py; default: the one that this pack lies in",
    )
    parser.add_argument("--python", default=sys.executable, help="ComfyUI's Python; default: the one that runs this")
    parser.add_argument("--cards", metavar="0,1", help="which cards of this machine; default: all")
    parser.add_argument("--count", type=int, metavar="N", help="so many ComfyUIs, without a card for each")
    parser.add_argument("--port", type=int, default=PORT, help="the first port; default: %(default)s")
    parser.add_argument("--listen", metavar="ADDRESS", help=f"default: {LOCAL}, in a cluster each machine's address")
    parser.add_argument("--file", type=Path, default=Path("workers.txt"), help="the list; default: %(default)s")
    parser.add_argument("--folder", type=Path, help="for logs and temporary files; default: in ComfyUI's folder user")
    parser.add_argument(
        "--ray",
        nargs="?",
        const="auto",
        default=os.environ.get("RAY_ADDRESS"),
        metavar="ADDRESS",
        help="of a Ray cluster, such as 10.0.0.5:6379; default: RAY_ADDRESS, and without it this machine alone",
    )
    parser.add_argument("--gpus-each", type=float, default=1, metavar="N", help="cards for each ComfyUI of a cluster")
    parser.add_argument(
        "--silent",
        type=float,
        default=SILENT,
        metavar="SECONDS",
        help="one that answers nothing for so long is ended and started again, 0: never; default: %(default)s",
    )
    parser.add_argument("arguments", nargs="*", metavar="-- ...", help="what more ComfyUI is to be started with")
    return parser.parse_args(given)


class Problem(ValueError):
    """Why nothing is started, in one sentence."""


def setup_of(options: argparse.Namespace) -> Setup:
    """Raises Problem."""
    comfyui = options.comfyui.absolute()
    if not options.ray and not (comfyui / "main.py").is_file():
        raise Problem(f"{comfyui} is no ComfyUI, for it has no main.py: give its folder with --comfyui.")
    listen = options.listen or ("" if options.ray else LOCAL)
    if listen and not is_private(listen):
        raise Problem(
            f"--listen is {listen}, which others than a private network reach, and whoever reaches a ComfyUI can run "
            f"what he likes on this machine: give this machine's address in the private network, such as 10.0.0.5."
        )
    folder = options.folder.absolute() if options.folder else comfyui / "user" / "skyreels_v3_workers"
    return Setup(comfyui, options.python, listen, folder, tuple(options.arguments), options.silent)


def local_workers(options: argparse.Namespace, setup: Setup) -> list[Worker]:
    """Raises Problem."""
    try:
        if options.count:
            return without_cards(setup, options.count, options.port)
        if options.cards:
            cards = [int(one) for one in options.cards.split(",")]
        else:
            cards = list(range(cards_of(setup.python)))
        if not cards:
            raise Problem(
                "ComfyUI's Python sees no card here: give --python the one that ComfyUI runs with, or --count 1 -- "
                "--cpu for one without a card."
            )
        return on_cards(setup, cards, options.port)
    except Problem:
        raise
    except ValueError as error:
        raise Problem(f"--cards is {options.cards}, but numbers are needed, such as 0,1.") from error
    except OSError as error:
        raise Problem(f"{error}: give --python ComfyUI's own, and --listen an address of this machine.") from error


def write_list(path: Path, addresses: list[str]) -> None:
    """Whole at every moment: batch.py reads it whenever it changes."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text("".join(f"{address}\n" for address in addresses), encoding="utf-8")
    os.replace(unfinished, path)


class Here:
    """The workers of this machine. addresses: of those that have come up; one that is started anew keeps its own."""

    def __init__(self, workers: list[Worker]):
        self._workers = workers
        self.addresses: list[str] = []

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def lost(self) -> bool:
        return all(worker.given_up for worker in self._workers)

    def look(self) -> list[str]:
        """What there is to tell."""
        lines = [line for worker in self._workers if (line := worker.look())]
        known = [one for one in self._workers if one.there or one.address in self.addresses]
        self.addresses = [one.address for one in known if not one.given_up]
        return lines

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()
        end = time.monotonic() + GRACE
        for worker in self._workers:
            worker.kill(end - time.monotonic())


def serve(workers: Here | Cluster, file: Path, say: Callable[[str], None]) -> int:
    """Looks after the workers until they are stopped, or all are given up."""
    told: list[str] = []
    try:
        while not (isinstance(workers, Here) and workers.lost):
            for line in workers.look():
                say(line)
            if workers.addresses != told:
                told = workers.addresses
                write_list(file, told)
            time.sleep(POLL)
        return 1
    except KeyboardInterrupt:
        say("Stopping.")
        return 0
    finally:
        workers.stop()
        file.unlink(missing_ok=True)


def main(given: list[str] | None = None) -> int:
    options = arguments(given)
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _as_interrupt)
    try:
        setup = setup_of(options)
        if options.ray:
            workers = cluster_of(options, setup)
        else:
            workers = Here(local_workers(options, setup))
    except Problem as error:
        print(error, file=sys.stderr)
        return 2
    where = f"at {setup.listen}" if setup.listen else "each at its machine's address in the cluster"
    near = "; no other machine reaches them" if setup.listen == LOCAL else ""
    print(f"{len(workers)} of ComfyUI {setup.comfyui}, {where}{near}. Ctrl+C stops them.", flush=True)
    print(f"For batch.py: --servers {options.file}", flush=True)
    return serve(workers, options.file, lambda line: print(line, flush=True))


def cluster_of(options: argparse.Namespace, setup: Setup) -> Cluster:
    """Raises Problem."""
    try:
        return Cluster(options.ray, setup, options.port, options.count, options.gpus_each)
    except ImportError as error:
        raise Problem(
            "The cards of a Ray cluster need the package ray: pip install ray. Or leave out --ray and RAY_ADDRESS for "
            "the cards of this machine."
        ) from error
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise Problem(f"{' '.join(str(error).split())}") from error


def _as_interrupt(*_) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
