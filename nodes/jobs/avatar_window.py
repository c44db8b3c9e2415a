"""Avatar Window: one window of a talking avatar as conditioning and latent, for the artist's own sampler."""

import comfy.model_management
import torch
from comfy_api.latest import io

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.images.convert import picture_to_signed, to_rgb8
from ...skyreels_v3.images.resize import cover_crop
from ...skyreels_v3.jobs.avatar.condition import clip_pixels, window_condition
from ...skyreels_v3.jobs.avatar.plan import DEFAULT_TIMING, WindowPlan, plan_avatar
from ...skyreels_v3.recipes import Job
from ...skyreels_v3.speech.features import AROUND, around_frames
from ...skyreels_v3.speech.masks import speaker_masks
from ...skyreels_v3.speech.recording import FPS
from .. import versions
from ..encoders.clip_vision import image_tokens
from ..encoders.speech import SpeechType
from ..encoders.vae import encoder
from ..inputs.conditioning import encoded_negative_input, positive_input, prepared_outputs, vae_input
from ..inputs.size import chosen_size, size_inputs
from ..inputs.speakers import DEFAULT_MAP, chosen_map, chosen_places, place_inputs
from ..network.condition import JobCondition, attach_pair


class AvatarWindow(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        window = DEFAULT_TIMING.window
        return versions.schema(
            node_id="SkyReelsAvatarWindow",
            display_name="SkyReels-V3 Avatar Window",
            description=f"Prepares one window of {window} frames of a talking avatar, for your own sampler. Talking "
            "Avatar makes a whole recording by itself.",
            search_aliases=["a2v", "avatar window", "talking head", "infinitetalk"],
            inputs=[
                positive_input(),
                vae_input(),
                io.ClipVision.Input("clip_vision", tooltip="clip_vision_h (CLIPVisionLoader)."),
                io.Image.Input("portrait", tooltip="The window's first frame."),
                SpeechType.Input("speech", tooltip="From SkyReels-V3 Speech, or Dialogue."),
                io.Float.Input(
                    "start", default=0.0, min=0.0, max=3600.0, step=0.04, tooltip="Second of the speech it begins at."
                ),
                *size_inputs("the portrait"),
                io.Image.Input("last_frame", optional=True, tooltip="A picture that the window ends on."),
                encoded_negative_input(),
                *place_inputs(),
            ],
            outputs=prepared_outputs("the portrait and the speech", "the window's size"),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, positive, vae, clip_vision, portrait, speech, start, resolution, width, height, **rest):
        high, wide = portrait.shape[1:3]
        size = chosen_size(resolution, width, height)
        places = chosen_places(rest, speech.people, speech.names)
        speech = speech.placed(*places)
        plan = plan_avatar((wide, high), speech.frames, **size, people=speech.people, max_seconds=speech.max_seconds)
        first = round(start * FPS)
        if first >= speech.frames:
            raise InputError(
                f"The window starts at {start:g} s, but the speech is {speech.frames / FPS:.2f} s long: start earlier."
            )
        window = WindowPlan(first, first + DEFAULT_TIMING.window, None, 1, 0, DEFAULT_TIMING.window)

        def fitted(image):
            return picture_to_signed(cover_crop(to_rgb8(image), plan.width, plan.height).copy())

        last = rest.get("last_frame")
        image = fitted(portrait)
        latents = window_condition(
            window, DEFAULT_TIMING.window, image, None if last is None else fitted(last), encoder(vae)
        )
        tokens = image_tokens(clip_vision)(clip_pixels(image))
        heard, ranges = speech.heard(around_frames(window.start, window.stop, speech.frames, AROUND))
        speakers, position_map = None, chosen_map(rest.get("position_map", DEFAULT_MAP), speech.people)
        if speech.people > 1:
            masks, boxes = places
            speakers = speaker_masks(masks, (wide, high), plan.width, plan.height, boxes, speech.silent, speech.names)
        condition = JobCondition(Job.AVATAR, latents, tokens, heard, speakers, position_map, ranges)
        versions.tell(
            cls.hidden.unique_id,
            f"{plan.width} x {plan.height}, {DEFAULT_TIMING.window} frames from {start:g} s",
            *speech.notes,
        )
        negative = rest.get("negative")
        latent = torch.zeros(plan.latent_shape, device=comfy.model_management.intermediate_device())
        return io.NodeOutput(*attach_pair(positive, negative, condition), {"samples": latent})
