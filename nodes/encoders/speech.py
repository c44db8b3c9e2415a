"""Recordings through ComfyUI's wav2vec2, and what travels from Speech to the avatar's nodes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import comfy.model_management
import folder_paths
import torch
from comfy_api.latest import io

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.recipes import AT_ONCE
from ...skyreels_v3.speech.company import Company, Heard, heard
from ...skyreels_v3.speech.encoder import ENCODER, SpeechEncoder, speech_features
from ...skyreels_v3.speech.features import SpeechFeatures
from ...skyreels_v3.speech.masks import only_listens
from ...skyreels_v3.speech.recording import FPS, silence, video_frames
from ...skyreels_v3.speech.speakers import Recording, speech_of, speech_of_turns
from ...skyreels_v3.speech.turns import Turn, speakers_in

SpeechType = io.Custom("SKYREELS_SPEECH")


@dataclass(frozen=True)
class Speech:
    """What travels from Speech to the avatar's nodes.

    features: of every video frame, on disk.  waveform: [1, channels, n] of the video.  rate: its own.
    max_seconds: the artist's limit.  audio_encoder: what the features were made with.
    """

    features: SpeechFeatures
    waveform: torch.Tensor
    rate: int
    max_seconds: float
    audio_encoder: Any = None
    silent: int | None = None  # who of two people only listens, see `placed`
    # Of a dialogue; without them one recording is each person's, and nobody has a name.
    names: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()

    def placed(self, masks: Sequence[torch.Tensor | None], boxes: Sequence[str]) -> "Speech":
        """One recording with a place for its speaker: their speech beside silence for the other person. Else unchanged.

        Raises InputError where the audio encoder is of another kind.
        """
        silent = only_listens(masks, boxes) if self.people == 1 else None
        if silent is None:
            return self
        encoder = _loaded(self.audio_encoder)
        nobody = speech_features(silence(self.frames).to(self.audio_encoder.load_device), encoder)
        pair = [nobody, self.features.of_person(0)]
        features = SpeechFeatures(reversed(pair) if silent else pair, folder_paths.get_temp_directory())
        return replace(self, features=features, silent=silent)

    @property
    def notes(self) -> list[str]:
        """What the artist should know of it, one sentence each."""
        if self.silent is None:
            return []
        return [f"The recording is that of speaker {2 - self.silent}, who has a box or mask; everyone else is silent."]

    @property
    def people(self) -> int:
        return self.features.people if self.company is None else self.company.people

    @cached_property
    def company(self) -> Company | None:
        """Who of more than two people is driven when; their features have those of nobody behind them."""
        return Company.of(self.turns, len(self.names), self.frames) if len(self.names) > AT_ONCE else None

    def heard(self, indices: torch.Tensor) -> Heard:
        """What a window hears. indices: of the frames of speech around each of its own, int64 [frames, around]."""
        return heard(self.features, self.company, indices)

    def who(self, start: int, stop: int) -> list[int]:
        """The people of a dialogue who say something in the frames from `start` to `stop`, by number."""
        return speakers_in(self.turns, start / FPS, stop / FPS)

    def named(self, people: Sequence[int]) -> str:
        """Some of them by name, as in a table."""
        return ", ".join(self.names[person] for person in people) or "nobody"

    @property
    def frames(self) -> int:
        return self.features.frames


def encode_speech(audio_encoder, recordings: list[Recording], max_seconds: float) -> SpeechFeatures:
    """Features by ComfyUI's wav2vec2, in ComfyUI's folder of temporary files. Raises InputError for another encoder."""
    encoder = _loaded(audio_encoder)
    speech = speech_of(recordings, max_seconds)
    people = (speech_features(samples.to(audio_encoder.load_device), encoder) for samples in speech)
    return SpeechFeatures(people, folder_paths.get_temp_directory())


def encode_dialogue(
    audio_encoder, recordings: Sequence[Recording], turns: Sequence[Turn], people: int, seconds: float, limit: float
) -> SpeechFeatures:
    """`encode_speech` of what each of the people says in `turns`. seconds: of all.  limit: of seconds.

    Of more than two people, with the features of nobody behind theirs.
    """
    encoder, device = _loaded(audio_encoder), audio_encoder.load_device
    speech = speech_of_turns(recordings, turns, people, seconds, limit)
    if people > AT_ONCE:
        speech.append(silence(video_frames(len(speech[0]))))
    features = (speech_features(samples.to(device), encoder) for samples in speech)
    return SpeechFeatures(features, folder_paths.get_temp_directory())


def _loaded(audio_encoder) -> SpeechEncoder:
    """ComfyUI's wav2vec2, on its device. Raises InputError for another encoder."""
    model = getattr(audio_encoder, "model", None)
    if model is None:
        raise InputError(f"The audio encoder is {type(audio_encoder).__name__}, but the avatar needs {ENCODER}.")
    encoder = SpeechEncoder.of(model)
    comfy.model_management.load_model_gpu(audio_encoder.patcher)
    return encoder
