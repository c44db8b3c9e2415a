"""Script from Text: what a language model answered becomes a script or a prompt that runs."""

from comfy_api.latest import io

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.extension.script import MAX_SECONDS, parse_script
from ...skyreels_v3.jobs.film.grammar.script import parse_film
from ...skyreels_v3.jobs.writing.answer import Answer, Kind, read_answer
from .. import versions

PARSERS = {Kind.SCRIPT: parse_script, Kind.FILM: parse_film}


class ScriptFromText(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return versions.schema(
            node_id="SkyReelsScriptFromText",
            display_name="SkyReels-V3 Script from Text",
            description="What a language model answered becomes a script that runs, or one prompt. Thoughts, chatter "
            "and code fences go, lengths and tags of cuts are mended, a line that stays wrong is told and left out. "
            "Where nothing can be used, your own text is.",
            search_aliases=["llm", "generate text", "prompt enhancer", "storyboard", "parse text", "clean prompt"],
            inputs=[
                io.String.Input(
                    "answer",
                    multiline=True,
                    default="",
                    tooltip="From Generate Text, or pasted from any chat.",
                ),
                io.Combo.Input(
                    "kind",
                    options=[kind.value for kind in Kind],
                    default=Kind.SCRIPT.value,
                    tooltip="What it becomes: a script of Extend Video, a script of Film, or one prompt for CLIP Text "
                    "Encode and Talking Avatar.",
                ),
                io.String.Input(
                    "fallback",
                    multiline=True,
                    default="",
                    tooltip="Your own script or prompt, taken where nothing of the answer can be used. Empty: the run "
                    "then stops and tells why.",
                ),
                io.Float.Input(
                    "most_seconds",
                    default=float(MAX_SECONDS),
                    min=2.0,
                    max=MAX_SECONDS,
                    step=1.0,
                    tooltip="Of all lines together: lines that do not fit any more are left out.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="script", tooltip="For Extend Video or Film; of one prompt, the prompt."),
                io.String.Output(display_name="report", tooltip="What was mended and left out, a sentence each."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, answer, kind, fallback, most_seconds) -> io.NodeOutput:
        kind = Kind(kind)
        read = read_answer(answer, kind, most_seconds)
        text, told = (read.text, read.told) if read.text else _own(read, kind, fallback)
        versions.tell(cls.hidden.unique_id, text, *told)
        return io.NodeOutput(text, "\n".join(told) or "The answer is taken as it is.")


def _own(read: Answer, kind: Kind, fallback: str) -> tuple[str, tuple[str, ...]]:
    """The artist's own text, and what is told. Raises InputError where there is none, or where it is no script."""
    why = " ".join(read.told[:3])
    if not fallback.strip():
        raise InputError(
            f"Nothing of the language model's answer can be used as a {kind.value}. {why}{' ' * bool(why)}Try another "
            "seed or a larger model, or write your own text into fallback."
        )
    if kind in PARSERS:
        PARSERS[kind](fallback)
    return fallback, ("Nothing of the answer can be used: the text in fallback is taken.", *read.told)
