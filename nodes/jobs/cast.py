"""Cast: a picture gets a name, and a voice where it has one, for the scripts of Film."""

from comfy_api.latest import io

from ...skyreels_v3.errors import InputError
from .. import versions
from ..encoders.speech import SpeechType
from ..inputs.cast import CastType, Member, Table, with_member
from ..inputs.speakers import chosen_places


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
                SpeechType.Input(
                    "dialogue",
                    optional=True,
                    tooltip="From SkyReels-V3 Dialogue: what up to 8 people say in a shot, as in `speak [table]: ...`, "
                    "where table is the name.",
                ),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="Where the people of the dialogue are, instead of places: a batch of masks, one for each, "
                    "in the order in which they speak first.",
                ),
                io.String.Input(
                    "places",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Where the people of the dialogue are in the frame that the line goes on from, one line "
                    "each: anna: 0.05, 0.1, 0.3, 0.9 are the left, top, right and bottom of Anna. Without any, two "
                    "people are the left and the right half.",
                ),
            ],
            outputs=[CastType.Output(display_name="cast", tooltip="For Film, or for the next Cast node.")],
        )

    @classmethod
    def execute(cls, name, picture, voice=None, cast=(), dialogue=None, masks=None, places="") -> io.NodeOutput:
        table = None
        if dialogue is not None:
            if voice is not None:
                raise InputError(
                    f"{name} has a voice and a dialogue, but a line that names it speaks one of them: disconnect one."
                )
            table = Table(dialogue, *chosen_places({"masks": masks, "places": places}, dialogue.people, dialogue.names))
        elif masks is not None or places.strip():
            raise InputError(f"{name} has places of people, but no dialogue: connect one, or clear masks and `places`.")
        return io.NodeOutput(with_member(cast or (), Member(name, picture, voice, table)))
