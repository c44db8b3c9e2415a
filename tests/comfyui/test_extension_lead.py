"""The source's part of an extended video: written once beside the rolls, cancelled, waited for, changed on the way."""

import os
import time
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from pack.tests.comfyui.test_extension_nodes import decoded, own_folders, picture, sources, stored
from pack.tests.support.video_clips import clip, numbers_of

__all__ = ["own_folders"]

pytestmark = pytest.mark.usefixtures("computes_in_float32")


def test_a_trimmed_video_is_read_from_its_own_file(pack_nodes, comfyui, tmp_path):
    from comfy_api.latest import InputImpl

    video = InputImpl.VideoFromFile(str(clip(tmp_path / "clip.mp4")))
    if hasattr(video, "as_trimmed"):  # 0.14 and later
        video = video.as_trimmed(0.5, 1)
    else:
        vars(video).update(_VideoFromFile__start_time=0.5, _VideoFromFile__duration=1)
    source = pack_nodes.module("nodes.inputs.source").source_of(video, 0)
    assert numbers_of(pack_nodes.module("skyreels_v3.video.sources.source").frames(source)) == list(range(12, 36))
    assert not (tmp_path / "temp").exists()


def test_a_cancel_keeps_what_is_written_of_the_source(pack_nodes, comfyui, tmp_path, monkeypatch):
    import comfy.model_management as management
    import comfy.utils

    lead = pack_nodes.module("nodes.runs.lead")
    source = pack_nodes.module("skyreels_v3.video.sources.source").FramesSource(picture(100), 24)
    one = lead.Lead(source, 96, 64, "crop", Fraction(24), "lossless")
    fit_frame, fitted, bar = lead.fit_frame, [], []

    def interrupting(*args):
        fitted.append(args)
        time.sleep(0.01)
        if len(fitted) == 40:
            management.interrupt_current_processing()
        return fit_frame(*args)

    monkeypatch.setattr(lead, "fit_frame", interrupting)
    monkeypatch.setattr(lead, "PIECE_SECONDS", 1)
    monkeypatch.setattr(lead, "LOOK_AGAIN", 0.05)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **__: bar.append((value, total)))
    with pytest.raises(management.InterruptProcessingException), lead.LeadWriting(one, "1") as writing:
        writing.pieces()
    kept = len(sources(tmp_path / "output"))
    assert kept >= 1 and writing.so_far() == [] and len(fitted) < 100
    assert {total for _, total in bar} == {100} and 0 < bar[-1][0] < 100
    monkeypatch.setattr(lead, "fit_frame", fit_frame)
    with lead.LeadWriting(one, "1") as writing:
        assert torch.equal(torch.cat([decoded(path)[0] for path in writing.pieces()]), stored(picture(100)))
    assert sum(len(decoded(path)[0]) for path in sources(tmp_path / "output")) == 100


def test_a_source_that_another_comfyui_writes_is_waited_for_and_one_that_is_gone_is_told(pack_nodes, tmp_path):
    lead = pack_nodes.module("nodes.runs.lead")
    path = clip(tmp_path / "clip.mp4", 12)
    source = pack_nodes.module("skyreels_v3.video.sources.file").FileSource(path)
    one = lead.Lead(source, 96, 64, "crop", source.info.frame_rate, "h264")
    other = pack_nodes.module("skyreels_v3.resume.folder").RunFolder(lead.sources_folder(), one.key)
    with lead.LeadWriting(one, None) as writing:
        time.sleep(0.2)
        assert writing.so_far() == []
        other.close()
        assert len(writing.pieces()) == 1
    path.unlink()
    with lead.LeadWriting(replace(one, width=64), None) as writing, pytest.raises(ValueError, match="is not there"):
        writing.pieces()
    with lead.LeadWriting(None, None) as writing:
        assert writing.pieces() == writing.so_far() == []


def test_a_source_that_changes_on_the_way_is_not_joined(pack_nodes, tmp_path, monkeypatch):
    """Uploaded again under its name while rolls are made, or while it is written."""
    lead = pack_nodes.module("nodes.runs.lead")
    FileSource = pack_nodes.module("skyreels_v3.video.sources.file").FileSource
    path, fit_frame = clip(tmp_path / "clip.mp4", 30), lead.fit_frame
    whole = path.read_bytes()
    one = lead.Lead(FileSource(path), 96, 64, "crop", Fraction(24), "h264")

    def changing(*args):
        os.utime(path, ns=(1, 1))
        return fit_frame(*args)

    monkeypatch.setattr(lead, "fit_frame", changing)
    with lead.LeadWriting(one, None) as writing, pytest.raises(ValueError, match=r"clip\.mp4 was changed while it was"):
        writing.pieces()
    assert not sources(tmp_path / "output"), "frames of two files are kept for neither"
    monkeypatch.setattr(lead, "fit_frame", fit_frame)
    own = tmp_path / "own.mp4"
    with lead.LeadWriting(replace(one, source=FileSource(path)), None) as writing:
        own.write_bytes(writing.pieces()[0].read_bytes())
        path.write_bytes(whole[:-1])
        assert writing.so_far() == []
        with pytest.raises(ValueError, match="goes on with what is made"):
            writing.pieces()
    as_it_is = replace(one, source=FileSource(own), width=96, height=64)
    with lead.LeadWriting(as_it_is, None) as writing:
        assert writing.pieces() == writing.so_far() == [own]
        own.unlink()
        assert writing.so_far() == []


def test_a_long_video_shows_how_it_is_put_together(pack_nodes, monkeypatch):
    import comfy.model_management as management
    import comfy.utils

    bar = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **__: bar.append((value, total)))
    joined = pack_nodes.module("nodes.runs.progress").RunProgress("1", "roll", 1, 1).joining(1200)
    for count in range(1, 1201):
        joined(count)
    assert bar == [(500, 1200), (1000, 1200)]
    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        joined(1500)
