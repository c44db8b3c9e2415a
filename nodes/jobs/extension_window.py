"""Extension Window: the frames before a roll become its conditioning and latent, for the artist's own sampler."""

from fractions import Fraction

import comfy.model_management
import torch
from comfy_api.latest import io

from ...skyreels_v3.images.convert import tail_to_signed
from ...skyreels_v3.images.resize import fit_frame
from ...skyreels_v3.jobs.extension.plan import FPS, LONGEST_PREFIX, PlanSource, plan_extension
from ...skyreels_v3.jobs.extension.script import CONTINUE, CUT, Line
from ...skyreels_v3.video.sources.source import last_frames
from .. import versions
from ..encoders.vae import LATENT_FORMAT, encoder
from ..inputs.conditioning import encoded_negative_input, positive_input, prepared_outputs, vae_input
from ..inputs.size import chosen_size, size_inputs
from ..inputs.source import fit_input, frame_rate_input, source_input, source_of
from ..network.condition import JobCondition, attach_pair


class ExtensionWindow(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return versions.schema(
            node_id="SkyReelsExtensionWindow",
            display_name="SkyReels-V3 Extension Window",
            description="Prepares one roll that goes on from a video, for your own sampler. Extend Video does all "
            "rolls of a script by itself.",
            search_aliases=["v2v", "video extension", "continue video", "shot switching", "cut to new shot"],
            inputs=[
                positive_input(),
                vae_input(),
                source_input(),
                io.Combo.Input(
                    "shot",
                    options=[CONTINUE, CUT],
                    default=CONTINUE,
                    tooltip="continue goes on with the shot and needs the model in transformer; cut goes "
                    "to a new one and needs that in shot_transformer.",
                ),
                io.Float.Input(
                    "seconds", default=5.0, min=0.1, max=5.0, step=0.1, tooltip="Up to 5 s; a cut takes 2 to 5 s."
                ),
                *size_inputs("the source"),
                fit_input(),
                frame_rate_input(),
                encoded_negative_input(),
            ],
            outputs=[
                *prepared_outputs("the past of the source", "the new frames"),
                io.Latent.Output(
                    display_name="prefix",
                    tooltip="The latent of the past. For continue, put it before the sampled latent (LatentConcat, t), "
                    "decode both and drop the first prefix_frames frames.",
                ),
                io.Int.Output(display_name="prefix_frames", tooltip="Frames of the past; 0 for a cut: drop none."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, positive, vae, source, shot, seconds, resolution, width, height, fit, frame_rate, negative=None
    ) -> io.NodeOutput:
        encode = encoder(vae)
        clip = source_of(source, frame_rate)
        past = last_frames(clip, LONGEST_PREFIX, FPS)
        info = PlanSource(clip.info.width, clip.info.height, len(past))
        seconds = Fraction(seconds).limit_denominator(1000)
        plan = plan_extension([Line(1, shot, seconds, "")], info, **chosen_size(resolution, width, height))
        roll = plan.rolls[0]
        frames = torch.stack(
            [torch.from_numpy(fit_frame(frame.numpy(), plan.width, plan.height, fit).copy()) for frame in past]
        )
        prefix = encode(tail_to_signed(frames.permute(3, 0, 1, 2)[None])[:, :, -roll.prefix_frames :])
        versions.tell(
            cls.hidden.unique_id,
            f"{shot}: {roll.prefix_frames} frames of the past, {roll.new_frames} new, {plan.width} x {plan.height}",
        )
        condition = JobCondition(roll.job, prefix)
        latent = torch.zeros(plan.latent_shape(roll), device=comfy.model_management.intermediate_device())
        return io.NodeOutput(
            *attach_pair(positive, negative, condition),
            {"samples": latent},
            {"samples": LATENT_FORMAT.process_out(prefix)},
            roll.new_start,
        )
