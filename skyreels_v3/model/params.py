"""The shape of a SkyReels-V3 transformer."""

from dataclasses import dataclass

from ..errors import InputError

HEAD_DIM = 128  # of every published checkpoint; the number of heads cannot be read from a weight's shape


@dataclass(frozen=True)
class AudioParams:
    """Audio conditioning of the talking avatar."""

    window: int = 5  # video frames whose features are given for each frame, itself in the middle
    layers: int = 12  # of the speech encoder
    width: int = 768  # of the speech encoder
    hidden: int = 512  # width of the projection
    tokens: int = 32  # audio tokens per latent frame
    dim: int = 768  # width of an audio token


@dataclass(frozen=True)
class TransformerParams:
    """Sizes of one transformer; the defaults are those of the 14B checkpoints, the names Wan's."""

    dim: int = 5120
    ffn_dim: int = 13824
    num_heads: int = 40
    num_layers: int = 40
    in_dim: int = 16  # latent channels; 36 for the avatar, whose condition lies below the video
    out_dim: int = 16
    text_dim: int = 4096
    freq_dim: int = 256  # of the sinusoidal timestep
    patch_size: tuple[int, int, int] = (1, 2, 2)  # frames, height, width
    eps: float = 1e-6
    image_dim: int | None = None  # of the CLIP tokens; the avatar alone takes them
    audio: AudioParams | None = None  # the avatar alone

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    def check_prompt(self, width: int) -> None:
        """Raises InputError for an encoding of another width, which another text encoder made."""
        if width != self.text_dim:
            raise InputError(
                f"The prompt's encoding is {width} wide, but this model needs {self.text_dim}: encode it with "
                "umt5_xxl (CLIPLoader, type wan)."
            )
