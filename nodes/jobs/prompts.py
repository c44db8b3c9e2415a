"""Prompts: a list of prompts, one for each run, so that one press of Run makes a queue of videos."""

import re

from comfy_api.latest import io

from ...skyreels_v3.errors import InputError
from .. import versions

MAX_NUMBER = 1_000_000
NAME_LETTERS = 40
EXAMPLE = "A cat walks along a wall in the evening sun.\nA cat sits in the rain and looks up."


def prompt_lines(text: str) -> list[str]:
    """The prompts of a text: its lines, without empty ones and those that begin with #. Raises InputError for none."""
    lines = [line.strip() for line in text.splitlines()]
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise InputError("Prompts holds no prompt: write one on each line; lines that begin with # are left out.")
    return prompts


def file_name(number: int, prompt: str) -> str:
    """Where Save Video puts the result of prompt `number`: its first words, in letters that any disk takes."""
    words = re.sub(r"\W+", "_", prompt).strip("_")
    if len(words) > NAME_LETTERS:
        words = words[: NAME_LETTERS + 1].rpartition("_")[0] or words[:NAME_LETTERS]
    return f"video/SkyReels-V3_{number:02d}_{words}".rstrip("_")


class PromptList(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return versions.schema(
            node_id="SkyReelsPrompts",
            display_name="SkyReels-V3 Prompts",
            description="A list of prompts, one for each run. Set the count beside Run to that of the prompts: each "
            "becomes a job of its own in the queue, and one that fails does not stop the others.",
            search_aliases=["batch", "prompt list", "queue prompts", "prompts from text", "multiple prompts", "lines"],
            inputs=[
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default=EXAMPLE,
                    tooltip="One prompt on each line. Lines that begin with # are left out.",
                ),
                io.Int.Input(
                    "number",
                    default=1,
                    min=1,
                    max=MAX_NUMBER,
                    control_after_generate=True,
                    tooltip="Which prompt this run takes; after the last comes the first again. With increment below, "
                    "every run takes the next one.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="prompt", tooltip="The prompt of this run."),
                io.String.Output(
                    display_name="file_name",
                    tooltip="For filename_prefix of Save Video: the number of the prompt and its first words.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, prompts, number) -> io.NodeOutput:
        lines = prompt_lines(prompts)
        index = (number - 1) % len(lines)
        versions.tell(cls.hidden.unique_id, f"{index + 1} of {len(lines)}: {lines[index]}")
        return io.NodeOutput(lines[index], file_name(index + 1, lines[index]))
