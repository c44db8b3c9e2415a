"""Which of the four jobs a checkpoint was trained for.

R2V, both V2V checkpoints and plain Wan T2V have the same weights by name and shape; only the avatar shows itself by its
audio layers. So the job comes from what the artist chose, or from names, and the sentence that goes with it says from
which.
"""

import re
from collections.abc import Mapping, Sequence

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.model.params import TransformerParams
from ...skyreels_v3.recipes import Job

METADATA_JOB = "skyreels_v3.job"  # ours: the value is a Job's
METADATA_NAMES = ("modelspec.title", "modelspec.architecture", "general.name", "name", "title")

# In this order: "single shot" and "v2v shot" hold shorter words that mean another job.
WORDS: tuple[tuple[Job, str], ...] = (
    (Job.AVATAR, r"a2v|avatar|talking"),
    (Job.REFERENCE, r"r2v|references?|ref2v"),
    (Job.EXTENSION, r"single[ ._-]?shot"),
    (Job.SHOT, r"shot"),
    (Job.EXTENSION, r"v2v|extension|extend"),
)
# A word ends where letters end: "SkyReelsV3R2V_fp16" and "v2v_14B" count, "screenshot" does not.
PATTERNS = [(job, re.compile(rf"(?<![a-z])(?:{words})(?![a-z])", re.IGNORECASE)) for job, words in WORDS]

ELSE = "choose another job in Load Model if that is wrong"
ASSUMED = "is assumed"  # in the sentence where nothing tells the job


def job_in_name(name: str) -> tuple[Job, str] | None:
    """The job a name tells and the word that tells it, None if it tells none."""
    for job, pattern in PATTERNS:
        found = pattern.search(name)
        if found:
            return job, found.group(0)
    return None


def detect_job(
    params: TransformerParams,
    names: Sequence[str],
    metadata: Mapping[str, str],
    chosen: Job | None = None,
    dialect: str = "wan",
) -> tuple[Job, str]:
    """The job of a checkpoint and one sentence that says why.

    names: the file's name first, then its folders', nearest first.  metadata: the file's own.  chosen: what the artist
    set, None for auto; it wins wherever the weights allow it.  dialect: name of the key map of the file.
    Raises InputError if the avatar is chosen for a file without audio layers, or another job for one with them.
    """
    name = names[0] if names else "The file"
    has_audio = params.audio is not None
    if chosen is not None and (chosen is Job.AVATAR) != has_audio:
        problem = "has audio layers" if has_audio else "has no audio layers"
        wanted = (
            "only avatar or auto fits it"
            if has_audio
            else "the avatar needs the A2V file, or choose auto or the job of this file"
        )
        raise InputError(f"The job {chosen.value} was chosen, but {name} {problem}: {wanted}.")
    if chosen is not None:
        return chosen, f"Job {chosen.value}, as chosen in Load Model."
    if has_audio:
        return Job.AVATAR, f"Job avatar, because {name} has audio layers."
    for job, where in _evidence(names, metadata):
        if job is not Job.AVATAR:  # without audio layers it cannot be
            return job, f"Job {job.value}, because {where}; {ELSE}."
    if dialect == "diffusers":
        return Job.REFERENCE, f"Job reference, because only R2V is published with diffusers names; {ELSE}."
    return (
        Job.REFERENCE,
        f"Job reference {ASSUMED}, because neither the weights nor the name of {name} tell it from extension and "
        f"shot; {ELSE}.",
    )


def _evidence(names: Sequence[str], metadata: Mapping[str, str]):
    own = metadata.get(METADATA_JOB)
    if own in {job.value for job in Job}:
        yield Job(own), f"the file's metadata says {own}"
    for name, what in zip(names, ["name", *["folder"] * len(names)], strict=False):
        found = job_in_name(name)
        if found:
            yield found[0], f"the {what} {name} says {found[1]}"
    for key in METADATA_NAMES:
        found = job_in_name(metadata.get(key, ""))
        if found:
            yield found[0], f"the file's metadata ({key}) says {found[1]}"
