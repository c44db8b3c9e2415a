"""Recordings through ComfyUI's wav2vec2, and what travels from Speech to the avatar's nodes."""

from dataclasses import dataclass

import comfy.model_management
import folder_paths
import torch
from comfy_api.latest import io

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.speech.encoder import ENCODER, SpeechEncoder, speech_features
from ...skyreels_v3.speech.features import SpeechFeatures
from ...skyreels_v3.speech.speakers import Recording, speech_of

SpeechType = io.Custom("SKYREELS_SPEECH")


@dataclass(frozen=True)
class Speech:
    """What travels from Speech to the avatar's nodes.

    features: of every video frame, on disk.  waveform: [1, channels, n] of the video.  rate: its own.
    max_seconds: the artist's limit.
    """

    features: SpeechFeatures
    waveform: torch.Tensor
    rate: int
    max_seconds: float

    @property
    def people(self) -> int:
        return self.features.people

    @property
    def frames(self) -> int:
        return self.features.frames


def encode_speech(audio_encoder, recordings: list[Recording], max_seconds: float) -> SpeechFeatures:
    """Features by ComfyUI's wav2vec2, in ComfyUI's folder of temporary files. Raises InputError for another encoder."""
    model = getattr(audio_encoder, "model", None)
    if model is None:
        raise InputError(f"The audio encoder is {type(audio_encoder).__name__}, but the avatar needs {ENCODER}.")
    encoder = SpeechEncoder.of(model)
    speech = speech_of(recordings, max_seconds)
    comfy.model_management.load_model_gpu(audio_encoder.patcher)
    people = (speech_features(samples.to(audio_encoder.load_device), encoder) for samples in speech)
    return SpeechFeatures(people, folder_paths.get_temp_directory())
