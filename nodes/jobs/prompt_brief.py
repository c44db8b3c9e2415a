"""Prompt Brief: an idea becomes what a language model is told, so that it writes prompts as these models want them."""

from comfy_api.latest import io

from ...skyreels_v3.jobs.extension.script import MAX_SECONDS
from ...skyreels_v3.jobs.writing.brief import CUT_NAMES, MAX_REFERENCES, Task, brief
from .. import versions
from ..inputs.cast import CastType

IDEA = "A cat jumps onto the window sill and watches the rain."


class PromptBrief(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return versions.schema(
            node_id="SkyReelsPromptBrief",
            display_name="SkyReels-V3 Prompt Brief",
            description="A few words become a brief for a language model, such as that of Generate Text: how these "
            "video models want their prompts, with an example. Script from Text reads what it answers.",
            search_aliases=["prompt enhancer", "llm", "system prompt", "generate text", "storyboard", "write prompt"],
            inputs=[
                io.String.Input(
                    "idea",
                    multiline=True,
                    default=IDEA,
                    tooltip="What is to be seen, in a few words of any language.",
                ),
                io.Combo.Input(
                    "job",
                    options=[task.value for task in Task],
                    default=Task.REFERENCE.value,
                    tooltip="What is to be written: one prompt (reference to video, talking avatar), one line of a "
                    "script (continue, cut), a script of Extend Video (storyboard) or of Film (film).",
                ),
                io.Int.Input(
                    "references",
                    default=1,
                    min=1,
                    max=MAX_REFERENCES,
                    tooltip="How many pictures Reference to Video gets; for that job alone. Show them to the language "
                    "model too.",
                ),
                io.Combo.Input(
                    "cut",
                    options=list(CUT_NAMES),
                    default=CUT_NAMES[0],
                    tooltip="The kind of cut; for the job cut alone.",
                ),
                io.Float.Input(
                    "seconds",
                    default=5.0,
                    min=1.0,
                    max=MAX_SECONDS,
                    step=0.5,
                    tooltip="Of the shot, or of all shots together. A cut is 2 to 5 s.",
                ),
                CastType.Input(
                    "cast", optional=True, tooltip="From SkyReels-V3 Cast: whom a film may name. For film alone."
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="system_prompt", tooltip="How to write, for the input of this name of Generate Text."
                ),
                io.String.Output(display_name="prompt", tooltip="The idea, for Generate Text's prompt."),
                io.String.Output(
                    display_name="both",
                    tooltip="Both in one text, for the prompt of a Generate Text that has no system_prompt.",
                ),
            ],
        )

    @classmethod
    def execute(cls, idea, job, references, cut, seconds, cast=()) -> io.NodeOutput:
        members = [(member.name, member.voice is not None) for member in cast or ()]
        made = brief(idea, Task(job), references, cut, seconds, members)
        return io.NodeOutput(made.system, made.prompt, made.together)
