"""Which weights are stored how: what the artist chose, or what the card asks for, to an encoding per weight."""

import re

from ...formats.encoding import Encoding, rotation_for
from ...formats.kinds import KINDS, PACKED, Precision, Products
from ...skyreels_v3.units import GB
from .stored import StoredWeight

# The matrices that make up 98 % of a model. What is around them stays high: embeddings, modulation, norms and the head
# are a fiftieth of the bytes, and benchmarks/forward/precision.py shows what share of the error they would bring.
MATRICES = re.compile(
    r"^blocks\.\d+\.(?:self_attn\.[qkvo]|cross_attn\.(?:[qkvo]|[kv]_img)|ffn\.[02]"
    r"|audio_cross_attn\.(?:q_linear|kv_linear|proj))\.weight$"
)

# What the official code keeps in float32 of R2V, and the norms of queries and keys beside it, which kernels read so:
# rounded to 16 bits, modulation is 0.2 % off.
FLOAT32 = re.compile(
    r"^time_embedding\.|(?:^|\.)modulation$|\.(?:norm3|norm_x|norm_q|norm_k|norm_k_img)\.(?:weight|bias)$"
)


def stays_float32(name: str, stored: StoredWeight) -> bool:
    """Whether the weight `name` is kept in float32, whatever the dtype of the others: where its file has it so."""
    wide = stored.encoding is None and stored.parts["weight"].dtype in ("F32", "F64")
    return wide and FLOAT32.search(name) is not None


def encoding_of(name: str, stored: StoredWeight, precision: Precision) -> Encoding | None:
    """How the weight `name` is to be kept, None for plain numbers. auto: as it is stored, if it is a matrix."""
    if not (name.endswith(".weight") and len(stored.shape) == 2):
        return None
    if precision is Precision.AUTO:
        return stored.encoding
    kind, columns = PACKED.get(precision), stored.shape[1]
    if kind is None:
        return None
    if stored.encoding is not None and KINDS[stored.encoding.kind].precision == precision:
        return stored.encoding
    encoding = Encoding(kind.name, rotation_for(columns) if kind.rotation else 0)
    return encoding if MATRICES.match(name) and encoding.fits(columns) else None


def is_exact(encoding: Encoding, products: Products) -> bool:
    """Whether the inputs of a weight that is kept so stay as they are. auto does as the file says, and rounds only
    those of kinds for which that costs little: see benchmarks/forward/precision.py."""
    if products is Products.AUTO:
        return encoding.exact or not KINDS[encoding.kind].rounds_inputs
    return products is Products.EXACT


def automatic(parameters: int, device: str, vram: int, ram: int) -> tuple[Precision, str]:
    """The precision for a 16- or 32-bit file, and one sentence that says why.

    parameters: numbers in the model.  device: torch's name of its kind ("cuda", "cpu" ...).  vram, ram: bytes in all.
    A sixth of the weights and 8 GB are left for a forward and the VAE.
    """
    high, low = 2 * parameters, parameters
    if device == "cpu" or vram >= high * 7 / 6 + 8 * GB or high < GB:
        return Precision.AUTO, "Precision as in the file, because there is room for it."
    if ram < low + 6 * GB:
        return Precision.NF4, (
            f"Precision nf4, because {ram / GB:.0f} GB of RAM do not hold the model at int8 "
            f"({low / GB:.0f} GB); choose another in Load Model if you like."
        )
    return Precision.INT8, (
        f"Precision int8, because {vram / GB:.0f} GB of VRAM do not hold the model at bf16 "
        f"({high / GB:.0f} GB) and a forward; choose another in Load Model if you like."
    )
