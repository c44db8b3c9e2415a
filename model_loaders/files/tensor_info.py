"""What a file with tensors says about them in its header, whatever its format."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ...skyreels_v3.errors import InputError
from .stamps import FileStamp

MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library
DESCRIPTION = "comfy_quant"  # last part of the names of tensors that say how a layer is stored
MAX_DESCRIPTION = 4096  # bytes
AGAIN = "it is damaged, download it again"
INCOMPLETE = "the download is incomplete, download it again"
NAMED = 3  # names in a sentence


@dataclass(frozen=True)
class TensorInfo:
    """One tensor.

    dtype: its format's name ("BF16", in GGUF files also "Q4_K").  shape: sizes in torch's order, counted in numbers.
    start, end: its bytes, counted from Header.data_start.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """A checked header.

    tensors: name -> TensorInfo.  metadata: what the file says about itself; what is no text in it stands as JSON.
    data_start: where the tensors begin, in bytes.  file_format: "safetensors" or "gguf".  descriptions: tensor ->
    its bytes, of those that say how a layer is stored.  stamp: the file as it was before its header was read, None
    where it is on no disk.
    """

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int
    file_format: str = "safetensors"
    descriptions: dict[str, bytes] = field(default_factory=dict)
    stamp: FileStamp | None = field(default=None, compare=False)

    @property
    def architecture(self) -> str:
        """The model family that a GGUF file names ("wan"); empty if it names none."""
        return self.metadata.get("general.architecture", "")


@contextmanager
def opened(path: Path) -> Generator[tuple[BinaryIO, int]]:
    """The file, open at its start, and its size in bytes. Raises InputError where it cannot be read."""
    try:
        if not path.exists():
            raise InputError(f"There is no file {path}: choose one from the list, or refresh the list.")
        if not path.is_file():  # a pipe would be waited for
            raise InputError(f"{path} is a folder or a device, but a .safetensors or .gguf file is needed.")
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            yield file, size
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}): check that ComfyUI may read it.") from error


def printable(name: str) -> str:
    """A file's name for a sentence: as it is, but shortened where it is long and without signs that nobody can see."""
    shown = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in name)
    return shown if len(shown) <= 120 else f"{shown[:60]}...{shown[-57:]}"


def short(value: object, longest: int = 80) -> str:
    """A part of the file for a sentence: damaged files hold names of any length and with any character."""
    text = ascii(value)[1:-1] if isinstance(value, str) else ascii(value)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def some(names: Sequence[str], longest: int = 80) -> str:
    """The first names, for a sentence."""
    return ", ".join(short(name, longest) for name in names[:NAMED]) + (" ..." if len(names) > NAMED else "")
