"""Reference to Video: one to four images and a prompt become the conditioning and the latent of a video."""

import comfy.model_management
import torch
from comfy_api.latest import io

from ...skyreels_v3.jobs.reference import MAX_FRAMES, MAX_SECONDS, encode_references, plan_reference
from ...skyreels_v3.recipes import Job
from .. import versions
from ..encoders.vae import encoder
from ..inputs.conditioning import encoded_negative_input, positive_input, prepared_outputs, vae_input
from ..inputs.size import chosen_size, size_inputs
from ..network.condition import JobCondition, attach_pair


class ReferenceToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        images = [
            io.Image.Input(
                f"image_{number}",
                optional=True,
                tooltip=tooltip + " Any size; it is fitted whole into the video's frame on white. Of a batch the "
                "first image counts.",
            )
            for number, tooltip in enumerate(
                (
                    "The first reference; the video takes its shape from it.",
                    "A second person, thing or place.",
                    "A third reference.",
                    "A fourth reference.",
                ),
                start=1,
            )
        ]
        return versions.schema(
            node_id="SkyReelsReferenceToVideo",
            display_name="SkyReels-V3 Reference to Video",
            description="Prepares a video of the people, things and places in one to four reference images.",
            search_aliases=["r2v", "reference to video", "subject to video", "image to video", "phantom", "skyreels"],
            inputs=[
                positive_input(),
                vae_input(),
                *size_inputs("the first image"),
                io.Float.Input(
                    "seconds",
                    default=5.0,
                    min=0.1,
                    max=MAX_SECONDS,
                    step=0.1,
                    tooltip="Length at 24 frames a second; the model is made for 5. Snapped to 4n + 1 frames.",
                ),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=MAX_FRAMES,
                    tooltip="Length in frames instead of seconds; 0 goes by seconds. Snapped to 4n + 1.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="Videos made side by side."),
                encoded_negative_input(),
                *images,
            ],
            outputs=prepared_outputs("the reference images", "the video's size"),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, positive, vae, resolution, width, height, seconds, frames, batch_size, negative=None, **images
    ) -> io.NodeOutput:
        encode = encoder(vae)
        references = [images[name] for name in sorted(images) if images[name] is not None]
        length = {"frames": frames} if frames else {"seconds": seconds}
        plan = plan_reference(
            [image.shape[-2:-4:-1] for image in references], **chosen_size(resolution, width, height), **length
        )
        versions.tell(
            cls.hidden.unique_id,
            f"{plan.width} x {plan.height}, {plan.frames} frames, {plan.references} of 4 references",
            *plan.notes,
        )
        condition = JobCondition(Job.REFERENCE, encode_references(references, plan, encode))
        _, *shape = plan.latent_shape
        latent = torch.zeros([batch_size, *shape], device=comfy.model_management.intermediate_device())
        return io.NodeOutput(*attach_pair(positive, negative, condition), {"samples": latent})
