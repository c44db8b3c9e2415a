"""Join Videos: videos one after the other in one film, each with its sound."""

import uuid

import comfy.model_management
import comfy.utils
from comfy_api.latest import io
from PIL import Image

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.images.resize import DEFAULT_FIT, FITS
from ...skyreels_v3.resume.folder import RunFolder
from ...skyreels_v3.video.concat import concat, film_rate
from ...skyreels_v3.video.preview import PREVIEW_SIDE
from .. import versions
from ..inputs.sampling import codec_input
from ..inputs.source import remarks, source_of
from ..runs.folders import runs_folder
from ..runs.results import RESULT, hand_out, lost_results, prune_runs

MOST = 6
SHOWN_EVERY = 24  # frames between two previews


class JoinVideos(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        videos = [
            io.Video.Input(
                f"video_{number}",
                optional=number > 1,
                tooltip="The first video; the film takes its size and frames a second."
                if number == 1
                else "What follows, of any size and rate. Inputs that are not connected are left out.",
            )
            for number in range(1, MOST + 1)
        ]
        return versions.schema(
            node_id="SkyReelsJoinVideos",
            display_name="SkyReels-V3 Join Videos",
            description="Puts videos one after the other into one, each with its own sound. Memory does not grow with "
            "their length.",
            search_aliases=["concat videos", "merge videos", "combine videos", "append video", "film", "edit"],
            inputs=[
                io.Combo.Input(
                    "fit",
                    options=list(FITS),
                    default=DEFAULT_FIT,
                    tooltip="How a video of another shape fills the film: crop cuts its edges, letterbox adds black "
                    "bars, stretch distorts it.",
                ),
                codec_input(),
                *videos,
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="As a file, with all sounds: for Save Video.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs):
        return lost_results()

    @classmethod
    def execute(cls, fit, codec, **videos) -> io.NodeOutput:
        connected = [videos[name] for name in sorted(videos) if videos[name] is not None]
        if not connected:
            raise InputError("No video is connected to Join Videos: connect at least video_1.")
        sources = [source_of(video, frame_rate=0) for video in connected]
        rate = film_rate(sources)
        expected = sum(source.info.frames_at(rate) for source in sources)
        bar = comfy.utils.ProgressBar(expected, node_id=cls.hidden.unique_id)
        done = 0

        def shown(number, pixels):
            nonlocal done
            comfy.model_management.throw_exception_if_processing_interrupted()
            preview = ("JPEG", Image.fromarray(pixels), PREVIEW_SIDE) if done % SHOWN_EVERY == 0 else None
            done += 1
            bar.update_absolute(min(done, expected), preview=preview)

        prune_runs()
        name = uuid.uuid4().hex
        with RunFolder(runs_folder(), f"film-{name}") as folder:
            folder.finish()  # from the start: of a film that is cancelled nothing is worth keeping
            path = folder.path(f"{RESULT}{name}.mp4")
            count = concat(sources, path, fit, codec, shown)
            folder.commit(f"{RESULT}{name}", [path.name], {"frames": count})
            folder.finish()
        told = f"{len(sources)} videos, {count} frames, {float(count / rate):.2f} s"
        notes = [
            f"video_{number}: {note}"
            for number, source in enumerate(sources, 1)
            for note in remarks(source.info, rate if number == 1 else None)
        ]
        versions.tell(cls.hidden.unique_id, told, *notes)
        return io.NodeOutput(hand_out(path))
