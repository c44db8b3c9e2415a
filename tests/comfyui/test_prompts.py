"""Prompts of the long jobs: the token ids of the official code, in ComfyUI's text encoder."""

import pytest
import sentencepiece

from pack.dev.samples.tiny_models import write_text_encoder

# A prompt as artists write or paste it, and what the official prompt_clean makes of it.
PROMPTS = {
    "A woman walks to the window.": "A woman walks to the window.",
    "  A woman\n\nwalks\tto  the window. ": "A woman walks to the window.",
    "“A woman” – she’s on the beach…": '"A woman" – she\'s on the beach…',
    "It&apos;s Tom &amp; Jerry &lt;3": "It's Tom & Jerry <3",
    "Tom &amp;amp; Jerry": "Tom & Jerry",
    "a (close-up) of the rabbit": "a (close-up) of the rabbit",
    r"a \(close-up\) of \\(the\\\) rabbit: \)(\a": r"a \(close-up\) of \\(the\\\) rabbit: \)(\a",
    "a ((red:1.4)) hat and a [blue] one": "a ((red:1.4)) hat and a [blue] one",
    "[ZOOM_IN_CUT] Its face. [SHOT_REVERSE_SHOT_CUT] The other.": (
        "[ZOOM_IN_CUT] Its face. [SHOT_REVERSE_SHOT_CUT] The other."
    ),
    "The ﬁre in the oﬃce": "The fire in the office",
    "ＣＵＴ　２５％！": "CUT 25%!",
    "一个女人（特写）走到窗边，看着我。": "一个女人(特写)走到窗边,看着我。",
    "schÃ¶n, cafÃ©": "schön, café",
    "a caf\u0065\u0301 in the morning": "a café in the morning",
    "line one\r\nline two\u2028line three": "line one line two line three",
    "no\u00a0break": "no break",
    "a \x1b[31mred\x1b[0m rabbit": "a red rabbit",
    "": "",
    "embedded 😀 smile": "embedded 😀 smile",
    "\ufeffA rabbit looks up.": "A rabbit looks up.",
    "the rabbit looks up " * 400: ("the rabbit looks up " * 400).strip(),
}


@pytest.fixture(scope="module")
def clip(comfyui, pack_nodes, tmp_path_factory):
    from pack.dev.comfyui import small_encoders  # noqa: F401, it needs the real ComfyUI, which is there only now

    folder = tmp_path_factory.mktemp("prompts")
    write_text_encoder(folder / "prompts_umt5.safetensors")
    comfyui.folder_paths.add_model_folder_path("text_encoders", str(folder))
    comfyui.folder_paths.filename_list_cache.clear()
    return comfyui.nodes.CLIPLoader().load_clip("prompts_umt5.safetensors", "wan")[0]


@pytest.fixture(scope="module")
def ids(clip):
    """The 512 ids of the official tokenizer: cut before the last one, which ends the text, and filled up with zeros."""
    model = bytes(clip.tokenizer.state_dict()["spiece_model"].numpy())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)

    def official(text: str) -> list[int]:
        found = [*pieces.encode(text)[:511], pieces.eos_id()]
        return found + [0] * (512 - len(found))

    return official


@pytest.mark.parametrize("prompt", PROMPTS, ids=range(len(PROMPTS)))
def test_ids_are_those_of_the_official_code(clip, ids, pack_nodes, prompt):
    (rows,) = pack_nodes.module("nodes.encoders.prompts").official_tokens(clip, prompt).values()
    assert [[token for token, *_ in row] for row in rows] == [ids(PROMPTS[prompt])]
    assert {weight for _, weight, *_ in rows[0]} == {1.0}


def test_an_encoding_has_no_more_tokens_than_the_model_reads(clip, pack_nodes):
    prompts = pack_nodes.module("nodes.encoders.prompts").Prompts(clip)
    assert prompts["the rabbit looks up " * 400][0][0].shape == (1, 512, 4096)


def test_a_cast_is_named_in_the_brief_and_an_answer_becomes_a_script_or_ones_own_text(pack_nodes):
    member = pack_nodes.module("nodes.inputs.cast").Member
    brief = pack_nodes.ready("SkyReelsPromptBrief")
    cast = (member("anna", None, {"sample_rate": 16000}), member("cafe", None))
    system, prompt, both = brief.execute("Tea.", "film", 1, "any", 12.0, cast).args
    assert "anna, cafe" in system and "These have one: anna." in system and "about 12 s" in system
    assert (prompt, both) == ("The idea: Tea.", f"{system}\n\n{prompt}")
    assert brief.execute("Tea.", "cut", 1, "cut away", 3.0).args[0].count("_CUT]") == 2  # the kind and its example

    script = pack_nodes.ready("SkyReelsScriptFromText")
    made = script.execute("Sure!\ncut 9s: [Zoom In] Tea.", "script", "", 600.0).args
    assert made == ("cut 5s: [ZOOM_IN_CUT] Tea.", "Line 2 is 5 s long now, the nearest that a cut may be.")
    assert script.execute("Prompt: Tea.", "one prompt", "", 600.0).args == ("Tea.", "The answer is taken as it is.")
    assert script.execute("", "film", "scene 5s [anna]: Tea.", 600.0).args[0] == "scene 5s [anna]: Tea."
    refused = pack_nodes.module("skyreels_v3.errors").InputError
    with pytest.raises(refused, match=r"can be used as a script\. Line 1 is 0s long.* write your own text"):
        script.execute("cut 0s: Tea.", "script", " ", 600.0)
    with pytest.raises(refused, match="Line 1 is a cut of 9 s"):
        script.execute("", "script", "cut 9s: Tea.", 600.0)
