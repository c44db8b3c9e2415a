"""Which of the four jobs a checkpoint is taken for, and why."""

import pytest

from pack.dev.samples.tiny_models import TINY, TINY_AVATAR, write_transformer
from pack.model_loaders.architecture.jobs import METADATA_JOB, detect_job, job_in_name
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.recipes import Job

NAMES = {
    "SkyReels-v3-r2v-Q4_K_M": Job.REFERENCE,
    "Wan21_SkyReelsV3-R2V_fp8_scaled_mixed": Job.REFERENCE,
    "SkyReelsV3R2V_bf16": Job.REFERENCE,
    "Wan21-SkyReelsV3-V2V_fp8_scaled_mixed": Job.EXTENSION,
    "Wan21-SkyReelsV3-V2V_shot_fp8_scaled_mixed": Job.SHOT,
    "SkyReels-V3-V2V-14B-single_shot": Job.EXTENSION,
    "v2v single-shot": Job.EXTENSION,
    "shot_transformer": Job.SHOT,
    "SkyReels-V3-Video-Extension-720P": Job.EXTENSION,
    "Wan21-SkyReelsV3-A2V_fp8_scaled_mixed": Job.AVATAR,
    "talking_portrait": Job.AVATAR,
    "my reference model": Job.REFERENCE,
    "screenshots": None,
    "preferences": None,
    "wan2.1_t2v_14B_bf16": None,
    "transformer": None,
}


@pytest.mark.parametrize("name, job", NAMES.items())
def test_jobs_in_names(name, job):
    found = job_in_name(name)
    assert (found and found[0]) == job


def job_of(names, chosen=None, metadata=None, params=TINY, dialect="wan"):
    return detect_job(params, names, metadata or {}, chosen, dialect)


def test_where_the_job_comes_from():
    assert job_of(["v2v_x", "SkyReels-V3-R2V-14B"])[0] is Job.EXTENSION  # the file before its folder
    job, why = job_of(["transformer", "SkyReels-V3-V2V-14B"])
    assert job is Job.EXTENSION and "folder SkyReels-V3-V2V-14B says V2V" in why and "another job" in why
    assert job_of(["v2v"], metadata={METADATA_JOB: "shot"})[0] is Job.SHOT
    assert job_of(["v2v"], metadata={METADATA_JOB: "nonsense"})[0] is Job.EXTENSION
    assert job_of(["x"], metadata={"modelspec.title": "SkyReels V3 V2V shot"})[0] is Job.SHOT
    assert "diffusers" in job_of(["x"], dialect="diffusers")[1]
    job, why = job_of(["x"])
    assert job is Job.REFERENCE and "assumed" in why and "Load Model" in why
    assert job_of(["r2v"], Job.SHOT) == (Job.SHOT, "Job shot, as chosen in Load Model.")
    assert job_of(["a2v"])[0] is Job.REFERENCE  # without audio layers it is none
    assert job_of(["r2v"], params=TINY_AVATAR)[0] is Job.AVATAR


def test_a_job_that_the_weights_rule_out():
    with pytest.raises(InputError, match=r"avatar was chosen, but r2v has no audio layers"):
        job_of(["r2v"], Job.AVATAR)
    with pytest.raises(InputError, match=r"shot was chosen, but a2v has audio layers"):
        job_of(["a2v"], Job.SHOT, params=TINY_AVATAR)
    assert job_of(["a2v"], Job.AVATAR, params=TINY_AVATAR)[0] is Job.AVATAR


def test_folders_above_all_models_say_nothing(tmp_path):
    path = tmp_path / "avatar_v2v" / "models" / "diffusion_models" / "mine" / "x.safetensors"
    assert "assumed" in open_checkpoint(write_transformer(path, Job.REFERENCE)).why
    cache = tmp_path / "hub" / "models--Skywork--SkyReels-V3-V2V-14B" / "snapshots" / "0a1b" / "transformer"
    assert open_checkpoint(write_transformer(cache, Job.EXTENSION, shards=2)).job is Job.EXTENSION
