"""Film: one script makes a film of scenes from references, continued, cut, spoken and real shots."""

from fractions import Fraction

from comfy_api.latest import io

from ...skyreels_v3.jobs.extension.plan import FPS
from ...skyreels_v3.jobs.extension.script import MAX_SECONDS
from ...skyreels_v3.jobs.film.grammar.script import named_files
from ...skyreels_v3.recipes import RECIPES, Job
from ...skyreels_v3.speech.encoder import ENCODER
from ...skyreels_v3.speech.recording import FPS as SPOKEN_FPS
from .. import versions
from ..inputs.cast import CastType
from ..inputs.conditioning import clip_input, vae_input
from ..inputs.files import stamps
from ..inputs.sampling import codec_input, guidance_input, negative_input, seed_input, shift_input, steps_input
from ..inputs.size import chosen_size, size_inputs
from ..inputs.source import fit_input, frame_rate_input, source_input, source_of
from ..runs.film.ask import FilmAsked, film_run
from ..runs.film.shots import FilmModels
from ..runs.identity import Node, upstream
from ..runs.results import hand_out, lost_results

AS_FOOTAGE = "as the footage"
MODELS = {
    Job.REFERENCE: ("reference_model", "The reference checkpoint (R2V), from SkyReels-V3 Load Model; for scenes."),
    Job.EXTENSION: ("model", "The single-shot extension model, from SkyReels-V3 Load Model; for lines that continue."),
    Job.SHOT: ("shot_model", "The shot switching model, from SkyReels-V3 Load Model; for lines that cut."),
    Job.AVATAR: ("avatar_model", "The talking avatar (A2V), from SkyReels-V3 Load Model; for lines that speak or dub."),
}
FOLLOWED = ("clip", "vae", "clip_vision", "audio_encoder", *(name for name, _ in MODELS.values()))
SCRIPT = """\
scene 5s [anna]: Anna walks along a wall in the evening sun, the camera beside her.
continue 5s: She stops and looks up.
cut 4s: [ZOOM_IN_CUT] The scene cuts from the wall to a close-up of her face."""


class Film(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        models = [io.Model.Input(name, optional=True, tooltip=tooltip) for name, tooltip in MODELS.values()]
        source = source_input()
        source.optional = True
        source.tooltip = (
            "Footage that the film begins with, before the first line: a VIDEO, or frames as IMAGE. `continue`, `cut` "
            "and `speak` may go on from it."
        )
        fit, seed = fit_input(), seed_input("")
        fit.tooltip = "How footage fills the film: crop cuts its edges, letterbox adds black bars, stretch distorts it."
        seed.tooltip = "Of the noise of all shots whose lines name none. Another one makes these shots anew."
        return versions.schema(
            node_id="SkyReelsFilm",
            display_name="SkyReels-V3 Film",
            description="One script makes a film: scenes of named pictures, continued, cut and spoken shots, and real "
            "footage. A changed line makes itself anew and what goes on from it, nothing else; every take is kept. "
            "After an interrupt or a crash, queue the same graph again.",
            search_aliases=["movie", "story", "storyboard", "shots", "takes", "long video", "script", "director"],
            inputs=[
                clip_input("Each line of the script is encoded once."),
                vae_input(),
                io.String.Input(
                    "script",
                    multiline=True,
                    default=SCRIPT,
                    tooltip="One line for each shot: `scene 5s [anna, cafe]: ...`, `continue 8s: ...`, `cut 4s: "
                    "[ZOOM_IN_CUT] ...`, `speak [anna: hello.wav]: ...`, `clip harbour.mp4 3s-8s`, `dub harbour.mp4 "
                    "8s-12s [ben: answer.wav]`. Before the colon stand options in braces: `seed 7`, `steps 6`, `takes "
                    "3`, `take 2`, `lock`, `name door`. Lines that begin with # are comments. At most "
                    f"{MAX_SECONDS} s are made.",
                ),
                *size_inputs("the first shot"),
                fit,
                io.Combo.Input(
                    "rate",
                    options=[str(FPS), str(SPOKEN_FPS), AS_FOOTAGE],
                    default=str(FPS),
                    tooltip="Frames a second of the film. Speaking shots are made at 25, all others at 24; the other "
                    "rates repeat or leave out frames. As the footage: that of the first footage.",
                ),
                seed,
                steps_input(None, "Of all shots whose lines name none. 0: those that each model is distilled for."),
                shift_input(None, "0: that of each model. Above 1 spends more of the steps on layout and motion."),
                guidance_input("guidance", "Above 1 follows the prompts harder and uses negative; twice the time."),
                negative_input(RECIPES[Job.AVATAR]),
                io.Float.Input(
                    "colour_anchor",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Draws the colours of continued shots back to the first frame of their shot, so that they "
                    "do not walk away. 0: off, as officially.",
                ),
                codec_input(),
                frame_rate_input(),
                CastType.Input("cast", optional=True, tooltip="The pictures and voices that the script names."),
                *models,
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="clip_vision_h (CLIPVisionLoader); for lines that speak or dub, and for likeness as a "
                    "measure of takes.",
                ),
                io.AudioEncoder.Input(
                    "audio_encoder", optional=True, tooltip=f"{ENCODER}; for lines that speak or dub."
                ),
                source,
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The film as a file, with all sounds: for Save Video."),
                io.Image.Output(display_name="last_frames", tooltip="The last 25 frames at 24 a second."),
                io.String.Output(display_name="report", tooltip="The shots, what was made, and what to look at."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs):
        # ComfyUI sees a file's name alone: another file of that name is another film.
        return lost_results(), stamps(named_files(str(inputs.get("script") or "")))

    @classmethod
    def execute(cls, clip, vae, script, resolution, width, height, fit, rate, seed, steps, shift, guidance, **rest):
        source = rest.get("source")
        asked = FilmAsked(
            script=script,
            cast=rest.get("cast") or (),
            source=None if source is None else source_of(source, rest["frame_rate"]),
            size=chosen_size(resolution, width, height),
            rate=None if rate == AS_FOOTAGE else Fraction(rate),
            fit=fit,
            codec=rest["codec"],
            seed=seed,
            steps=steps,
            shift=shift,
            guidance=guidance,
            negative=rest["negative"],
            colour_anchor=rest["colour_anchor"],
        )
        by_job = {job: rest.get(name) for job, (name, _) in MODELS.items()}
        models = FilmModels(clip, vae, by_job, rest.get("clip_vision"), rest.get("audio_encoder"))
        node = Node(cls.hidden.unique_id, upstream(cls.hidden.prompt, cls.hidden.unique_id, FOLLOWED))
        path, last, report, cards = film_run(node, models, asked).run()
        settings = {"resolution": resolution, "width": width, "height": height, "fit": fit, "rate": rate, "seed": seed}
        settings |= {"steps": steps, "shift": shift, "guidance": guidance}
        settings |= {name: rest[name] for name in ("negative", "colour_anchor", "codec", "frame_rate")}
        run = {"script": script, "settings": settings}
        return io.NodeOutput(hand_out(path), last, report, ui={"skyreels_film": cards, "skyreels_film_run": [run]})
