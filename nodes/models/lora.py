"""LoRA: a file beside the layers of a SkyReels-V3 model, in every precision."""

import functools
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from ...model_loaders.files.stamps import FileStamp, stamp_of
from ...model_loaders.loras.lora import LoraFile, open_lora
from ...model_loaders.loras.scale import config_beside
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.model.params import TransformerParams
from .. import versions
from ..network.model import skyreels_model
from ..network.shared.patcher import attach_file, is_shared
from ..weights.lora_branches import attach, lora_patcher

FOLDER = "loras"
KEPT = 4  # files whose weights stay at hand, so that a changed strength reads nothing


def stamps_of(path: Path) -> tuple[FileStamp, ...]:
    """The file as it is now, and a configuration beside it: the same as long as the LoRA is."""
    return tuple(stamp_of(file) for file in (path, config_beside(path)) if file is not None)


@functools.lru_cache(maxsize=KEPT)
def read_lora(files: tuple[FileStamp, ...], params: TransformerParams, load_device, offload_device):
    """(the file's description, its patcher, changes of weights that are no linear layer's) for a transformer.

    files: as `stamps_of` gave them, so that a changed one is read again.  Raises InputError for whatever is wrong.
    """
    file = open_lora(files[0].path, params)
    weights, deltas = file.read(versions.file_reader())
    patcher = lora_patcher(file.layers, weights, load_device, offload_device)
    return file, patcher, deltas


def with_lora(model, path: Path, strength: float) -> tuple[object, LoraFile]:
    """A clone of a SkyReels-V3 MODEL with a LoRA on it, and what the file is."""
    files = stamps_of(path)
    if is_shared(model):
        file, model = open_lora(path, skyreels_model(model).params), model.clone()
        attach_file(model, files, strength)
        return model, file
    file, patcher, deltas = read_lora(files, skyreels_model(model).params, model.load_device, model.offload_device)
    model = model.clone()
    attach(model, patcher, strength, files)
    patch_weights(model, deltas, strength)
    return model, file


def patch_weights(model, deltas: dict[str, torch.Tensor], strength: float) -> None:
    """Change weights that are no linear layer's, by ComfyUI's patches.

    deltas: Wan name -> change. They are few and never packed.
    """
    patches = {}
    for name, delta in deltas.items():
        key = f"diffusion_model.{name}"
        if name.endswith("modulation"):
            # ComfyUI patches only the weights of modules without modules inside.
            weight = model.get_model_object(key)
            changed = weight.float() + strength * delta.to(weight.device, torch.float32)
            model.add_object_patch(key, torch.nn.Parameter(changed.to(weight.dtype), requires_grad=False))
        else:
            patches[key] = ("diff", (delta,))
    if patches:
        model.add_patches(patches, strength)


class LoraNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return versions.schema(
            node_id="SkyReelsLora",
            display_name="SkyReels-V3 LoRA",
            description="Puts a LoRA for Wan 2.1 14B or SkyReels-V3 on a model, in every precision.",
            search_aliases=["lora", "load lora", "lora loader", "LoraLoaderModelOnly", "skyreels lora", "style"],
            inputs=[
                io.Model.Input("model", tooltip="A model from SkyReels-V3 Load Model, also after another LoRA."),
                io.Combo.Input(
                    "lora",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip="A safetensors file in models/loras, in the names of any trainer.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    tooltip="1 is as trained, 0 none, below 0 the opposite. A change reads nothing again.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For another LoRA or any ComfyUI sampler.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, lora: str, strength: float, **_):
        path = lora_path(lora)
        return str(path), *(stamp.key for stamp in stamps_of(path)), strength

    @classmethod
    def execute(cls, model, lora: str, strength: float) -> io.NodeOutput:
        skyreels_model(model)
        if not strength:
            return io.NodeOutput(model)
        model, file = with_lora(model, lora_path(lora), strength)
        versions.tell(cls.hidden.unique_id, f"{file.summary()}, strength {strength:g}", *file.notes())
        return io.NodeOutput(model)


def lora_path(name: str) -> Path:
    """Where an entry of the list lies. Raises InputError for one that is gone."""
    path = folder_paths.get_full_path(FOLDER, name)
    if path is None:
        raise InputError(f"There is no file {name} in models/loras: choose one from the list, or refresh the list.")
    return Path(path)
