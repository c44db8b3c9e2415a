"""What a job's node takes of encoders, and what those that prepare a sampling give: CONDITIONING and VAE."""

from comfy_api.latest import io


def vae_input() -> io.Input:
    """The VAE that all four models share."""
    return io.Vae.Input("vae", tooltip="The VAE of Wan 2.1.")


def clip_input(use: str = "") -> io.Input:
    """The text encoder. use: of it, as a sentence."""
    return io.Clip.Input("clip", tooltip=f"The text encoder: umt5_xxl (CLIPLoader, type wan). {use}".strip())


def positive_input() -> io.Input:
    """The prompt as CONDITIONING."""
    return io.Conditioning.Input("positive", tooltip="The prompt, encoded with umt5_xxl (CLIPLoader, type wan).")


def encoded_negative_input() -> io.Input:
    """The negative prompt as CONDITIONING, which may be left out."""
    return io.Conditioning.Input(
        "negative", optional=True, tooltip="Used only with guidance above 1, which the model does not need."
    )


def prepared_outputs(holds: str, size: str) -> list[io.Output]:
    """positive, negative and an empty latent. holds: what the prompt now comes with.  size: of the latent, in words."""
    return [
        io.Conditioning.Output(display_name="positive", tooltip=f"The prompt with {holds}."),
        io.Conditioning.Output(display_name="negative", tooltip="The same for the negative prompt."),
        io.Latent.Output(display_name="latent", tooltip=f"Empty, of {size}: for any sampler."),
    ]
