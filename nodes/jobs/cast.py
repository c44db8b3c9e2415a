"""Cast: a picture gets a name, and a voice where it has one, for the scripts of Film."""

from comfy_api.latest import io

from .. import versions
from ..inputs.cast import CastType, Member, with_member


class Cast(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return versions.schema(
            node_id="SkyReelsCast",
            display_name="SkyReels-V3 Cast",
            description="Names a person, thing or place for the script of Film. Chain as many as the film has: each "
            "adds one to those before it.",
            search_aliases=["character", "actor", "reference image", "film", "consistent character", "voice"],
            inputs=[
                io.String.Input(
                    "name",
                    default="anna",
                    tooltip="By which the script names the picture, as in `scene 5s [anna]: ...`. Any letters; "
                    "capitals do not count.",
                ),
                io.Image.Input("picture", tooltip="Who or what it is. Any size; of a batch the first image counts."),
                io.Audio.Input(
                    "voice",
                    optional=True,
                    tooltip="What is said where a line speaks without a file, as in `speak [anna]: ...`.",
                ),
                CastType.Input("cast", optional=True, tooltip="Those before: from another Cast node."),
            ],
            outputs=[CastType.Output(display_name="cast", tooltip="For Film, or for the next Cast node.")],
        )

    @classmethod
    def execute(cls, name, picture, voice=None, cast=()) -> io.NodeOutput:
        return io.NodeOutput(with_member(cast or (), Member(name, picture, voice)))
