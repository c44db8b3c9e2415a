"""One ComfyUI, kept alive until it is stopped, and ended with whoever started it."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GRACE = 10  # seconds from the request to stop until the process is killed
SOON = 60  # seconds; who ends within them has not come up
TRIES = 3  # so often in a row
TAIL = 15  # lines of the log that are told then
SILENT = 300  # seconds without an answer; ComfyUI answers while it works, but not while a node holds Python up
ASKED = 10  # seconds between two questions to one that is there
WITHIN = 2  # seconds for an answer
# Runs main.py as its own process would, and ends with whoever started it, however that ends: file 0 is a pipe that
# nobody writes to and that closes with the other end. SIGINT is set because the background jobs of a shell ignore it,
# and let in because Ray's processes keep it out.
LAUNCHER = """
import os, runpy, signal, sys, threading
def follow():
    os.read(0, 1)
    if os.name == "posix":
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)
threading.Thread(target=follow, daemon=True).start()
signal.signal(signal.SIGINT, signal.default_int_handler)
if os.name == "posix":
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class Setup:
    """How each ComfyUI is started. comfyui: its folder.  listen: the address of this machine that it is reached at.

    folder: for what each has of its own (log, temporary files, database).  arguments: more of ComfyUI's own.
    silent: seconds without an answer after which one counts as hung; 0 for never.
    """

    comfyui: Path
    python: str
    listen: str
    folder: Path
    arguments: tuple[str, ...] = ()
    silent: float = SILENT


class Worker:
    """The ComfyUI called `name` at a port. environment: what is changed for it, such as the card that it sees.

    there: it has answered, and has not been given up.
    """

    def __init__(self, setup: Setup, name: str, port: int, environment: Mapping[str, str]):
        self.setup, self.name, self.port = setup, name, port
        self.there = self.given_up = False
        self._environment = environment
        self._folder = setup.folder / name.replace(" ", "-")
        self._process: subprocess.Popen | None = None
        self._began = self._start_at = self._asked = 0.0
        self._unheard = 0  # questions in a row
        self._falls = 0  # in a row, before it came up

    @property
    def address(self) -> str:
        host = f"[{self.setup.listen}]" if ":" in self.setup.listen else self.setup.listen
        return f"http://{host}:{self.port}"

    @property
    def log(self) -> Path:
        return self._folder / "comfyui.log"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def look(self) -> str | None:
        """Starts it where it has ended or hangs; what there is to tell. To be called every second or so."""
        if self.given_up:
            return None
        if self._process is None:
            if time.monotonic() >= self._start_at:
                self._start()
            return None
        status = self._process.poll()
        if status is not None:
            return self._ended(status)
        if self.there:
            return self._silent()
        if self._answers():
            self.there, self._falls = True, 0
            self._asked, self._unheard = time.monotonic(), 0
            return f"{self.name}: {self.address} is there."
        return None

    def stop(self) -> None:
        """Asks it to end, as Ctrl+C does."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(OSError):
                self._process.send_signal(signal.SIGINT if os.name == "posix" else signal.CTRL_BREAK_EVENT)

    def kill(self, grace: float = GRACE) -> None:
        """Ends it, and what it has started, after `grace` seconds at the latest."""
        if self._process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, grace))
        self._kill()

    def _start(self) -> None:
        temporary = self._folder / "temp"
        temporary.mkdir(parents=True, exist_ok=True)
        setup = self.setup
        command = [setup.python, "-c", LAUNCHER, setup.comfyui / "main.py", "--disable-auto-launch", *setup.arguments]
        command += ["--listen", setup.listen, "--port", self.port]
        # Each its own: ComfyUI empties the one when it starts, and locks the other.
        command += ["--temp-directory", temporary, "--database-url", f"sqlite:///{self._folder / 'comfyui.db'}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                cwd=setup.comfyui,
                env={**os.environ, **self._environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=os.name == "posix",  # Ctrl+C reaches only us, and we stop it in good order
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        self._began = time.monotonic()

    def _ended(self, status: int) -> str:
        self._kill()
        soon = not self.there and time.monotonic() - self._began < SOON
        self._falls = self._falls + 1 if soon else 0
        self.there = False
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        if self._falls >= TRIES:
            self.given_up = True
            return f"{self.name}: ComfyUI does not start ({how}); the end of {self.log}:\n{self._tail()}"
        self._start_at = time.monotonic() + 2**self._falls - 1
        return f"{self.name}: ComfyUI has ended ({how}) and is started again."

    def _silent(self) -> str | None:
        """Ends one that is there, but has not answered for too long."""
        limit = self.setup.silent
        between = min(ASKED, limit / 3)
        if not limit or time.monotonic() - self._asked < between:
            return None
        # Counted, not timed: this process, or the machine, may have slept.
        self._unheard = 0 if self._answers() else self._unheard + 1
        self._asked = time.monotonic()
        if self._unheard * between < limit:
            return None
        self._kill()
        self.there, self._start_at = False, 0.0
        return f"{self.name}: ComfyUI has not answered for {limit:g} s, was ended and is started again."

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if sys.platform == "win32":
            process.kill()
        else:  # also what it has left behind
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.address}/system_stats", timeout=WITHIN):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def _tail(self) -> str:
        lines = self.log.read_bytes()[-20000:].decode(errors="replace").splitlines()
        return "\n".join(lines[-TAIL:])


def is_private(listen: str) -> bool:
    """Whether an address is one of this machine or of a private network, and not all that the machine has."""
    try:
        address = ipaddress.ip_address(listen.partition("%")[0])
    except ValueError:
        return listen == "localhost"
    return (address.is_private or address in ipaddress.ip_network("100.64.0.0/10")) and not address.is_unspecified


def free_port(host: str, first: int, taken: frozenset[int] = frozenset()) -> int:
    """The first port from `first` on that nobody uses. Raises OSError where the address is not of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(first, first + 1000):
        if port in taken:
            continue
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return port
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
    raise OSError(f"no port from {first} on is free at {host}")
