"""Checkpoints of the published sizes that take no room: a header, and a file of that length without content."""

from pathlib import Path

from pack.model_loaders.params import expected_shapes
from pack.model_loaders.safetensors_writer import SafetensorsFile
from pack.skyreels_v3.model.params import AudioParams, TransformerParams
from pack.skyreels_v3.recipes import Job

AVATAR = TransformerParams(in_dim=36, image_dim=1280, audio=AudioParams())


def write_sparse(path: Path, job: Job, dtype: str = "BF16") -> Path:
    """A single file in Wan names, all zeros. dtype: as headers name it."""
    params = AVATAR if job is Job.AVATAR else TransformerParams()
    file = SafetensorsFile({name: (dtype, shape) for name, shape in expected_shapes(params).items()}, {})
    with path.open("wb") as out:
        out.write(file.header)
        out.truncate(file.size)
    return path
