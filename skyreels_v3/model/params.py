"""The shape of a SkyReels-V3 transformer."""

from dataclasses import dataclass

HEAD_DIM = 128  # of every published checkpoint; the number of heads cannot be read from a weight's shape


@dataclass(frozen=True)
class AudioParams:
    """Audio conditioning of the talking avatar.

    window: video frames of features around each frame.  layers, width: of the speech encoder.
    hidden: width of the projection.  tokens, dim: audio tokens per latent frame and their width.
    """

    window: int = 5
    layers: int = 12
    width: int = 768
    hidden: int = 512
    tokens: int = 32
    dim: int = 768


@dataclass(frozen=True)
class TransformerParams:
    """Sizes of one transformer; the defaults are those of the 14B checkpoints.

    image_dim: width of the CLIP tokens, None where the network takes none.  audio: None but for the avatar.
    """

    dim: int = 5120
    ffn_dim: int = 13824
    num_heads: int = 40
    num_layers: int = 40
    in_dim: int = 16
    out_dim: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    patch_size: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6
    image_dim: int | None = None
    audio: AudioParams | None = None

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads
