"""Load Model: a SkyReels-V3 checkpoint from disk as a native MODEL."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_management
import comfy.patcher_extension
import folder_paths
import torch
from comfy_api.latest import io

from ...distributed.cluster import is_alone
from ...formats.kinds import Precision, Products
from ...model_loaders.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ...model_loaders.files import folders
from ...model_loaders.files.folders import checkpoint_files
from ...model_loaders.files.tensor_info import some
from ...model_loaders.placement import copied_bytes
from ...model_loaders.tensors.file_tensors import DTYPES
from ...model_loaders.tensors.precision import automatic
from ...model_loaders.weights import fill, load_weights
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.recipes import Job
from .. import versions
from ..network import attention as attentions
from ..network.forecast import remember
from ..network.machine import main_memory
from ..network.model import Config, Model
from ..network.network import begin_sampling, end_sampling
from ..network.patcher import patcher_class
from ..network.shared.groups import MOST, let_go
from ..weights.files import watch_files
from ..weights.in_files import remember_files
from ..weights.layers import Packed
from .companions import missing_companions
from .copies import place_for
from .shared import shared_patcher

log = logging.getLogger(__name__)

FOLDER = "diffusion_models"
AUTO = "auto"
JOBS = [AUTO, *(job.value for job in Job)]
PRECISIONS = [precision.value for precision in Precision]
PRODUCTS = [products.value for products in Products]
PLAIN_DTYPES = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}
DTYPES_OF_FLAGS = {"--fp32-unet": torch.float32, "--bf16-unet": torch.bfloat16, "--fp16-unet": torch.float16}


class Arguments(NamedTuple):
    """What `load_patcher` was called with, as ComfyUI keeps it beside a model."""

    path: str
    job: str
    precision: str
    attention: str
    products: str
    gpus: int


def load_patcher(
    path: str,
    job: str = AUTO,
    precision: str = AUTO,
    attention: str = AUTO,
    products: str = AUTO,
    gpus: int = 1,
    disable_dynamic: bool = False,
    others: int = 0,
):
    """A ModelPatcher for the checkpoint file or folder at `path`; `job` is a Job's value or auto, `precision` a
    Precision's, `attention` one of attention.CHOICES, `products` a Products's. Its `model.notes` say in sentences what
    was chosen and why. `disable_dynamic` keeps it from ComfyUI's dynamic VRAM, as in ComfyUI's own loaders. `others`:
    bytes that the other models of the graph will take in RAM.

    Also what ComfyUI calls again to get an untouched copy (deep clones, devices of their own).
    Raises InputError for whatever is wrong with the file.
    """
    choices = ("job", job, JOBS), ("precision", precision, PRECISIONS), ("products", products, PRODUCTS)
    for name, value, known in choices:
        if value not in known:
            raise InputError(f"The {name} is {value!r}, but it must be one of {', '.join(known)}.")
    load_device = comfy.model_management.get_torch_device()
    attending = attentions.choose(attention, load_device, {})
    checkpoint = open_checkpoint(Path(path), None if job == AUTO else Job(job))
    chosen, why = resolve(Precision(precision), checkpoint, load_device)
    if checkpoint.left_out:
        log.info("SkyReels-V3: Left out, because they are no weights: %s.", some(checkpoint.left_out))
    shared = gpus != 1 and not (gpus == 0 and is_alone())
    config = Config(checkpoint.params, checkpoint.job, shared)
    dtype = plain_dtype(chosen, checkpoint, config, load_device)
    cast = comfy.model_management.unet_manual_cast(dtype, load_device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast)
    notes = [checkpoint.why, *why]
    if shared:
        model, patcher = shared_patcher(path, config, checkpoint, chosen, dtype, products, gpus)
    else:
        let_go()
        copies, where = place_for(copied_bytes(checkpoint, chosen, dtype), others)
        notes += where
        model = Model(config, files=checkpoint.stamps)
        # Packing is matrix work: for a graphics card where there is one.
        packing = load_device if load_device.type == "cuda" else "cpu"
        reading = versions.file_reader(), versions.maps_files()
        weights = load_weights(checkpoint, chosen, dtype, packing, *reading, copies, Products(products))
        fill(model.diffusion_model, weights, load_device, Packed)
        remember_files(model.diffusion_model)
        versions.keep_dtypes(model.diffusion_model)
        patcher = patcher_class(not disable_dynamic, load_device)(
            model, load_device=load_device, offload_device=comfy.model_management.unet_offload_device()
        )
    model.diffusion_model.attention = attention
    asked = any(weight.encoding is not None and weight.encoding.exact for weight in checkpoint.weights.values())
    products_told = products_in_words(model.diffusion_model, Products(products), asked, load_device)
    model.notes = (*notes, attending.sentence(), *model.notes, *products_told)
    watch_files(patcher)
    patcher.add_callback(comfy.patcher_extension.CallbacksMP.ON_PRE_RUN, begin_sampling)
    patcher.add_callback(comfy.patcher_extension.CallbacksMP.ON_CLEANUP, end_sampling)
    patcher.add_callback(comfy.patcher_extension.CallbacksMP.ON_CLEANUP, remember)
    patcher.cached_patcher_init = (load_patcher, Arguments(path, job, precision, attention, products, gpus))
    return patcher


def resolve(precision: Precision, checkpoint: Checkpoint, device: torch.device) -> tuple[Precision, list[str]]:
    """What `precision` means for a checkpoint on this machine, and sentences that say why."""
    if precision is not Precision.AUTO:
        return precision, [f"Precision {precision.value}, as chosen; the file is {checkpoint.precision}."]
    flag = versions.model_dtype_flag()
    numbers = [f"Numbers that are not packed follow ComfyUI's {flag}."] if flag in DTYPES_OF_FLAGS else []
    if checkpoint.is_packed:
        return precision, [f"Precision {checkpoint.precision}, as in the file.", *numbers]
    if flag is not None and flag.startswith("--fp8"):
        return Precision.FP8, [f"Precision fp8, by ComfyUI's {flag}; the file is {checkpoint.precision}."]
    vram = comfy.model_management.get_total_memory(device)
    ram, _ = main_memory()
    chosen, room = automatic(checkpoint.parameters, device.type, vram, ram)
    return chosen, [room, *numbers]


def plain_dtype(precision: Precision, checkpoint: Checkpoint, config: Config, device: torch.device) -> torch.dtype:
    """The dtype of weights that are plain numbers: the chosen one, ComfyUI's flag's or the file's own; float32 follows
    the device."""
    if precision in PLAIN_DTYPES:
        return PLAIN_DTYPES[precision]
    if (flag := versions.model_dtype_flag()) in DTYPES_OF_FLAGS:
        return DTYPES_OF_FLAGS[flag]
    own = DTYPES[checkpoint.plain_dtype]
    if own in (torch.bfloat16, torch.float16):
        return own
    return comfy.model_management.unet_dtype(
        device=device,
        model_params=checkpoint.parameters,
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=None if checkpoint.is_packed else own,
    )


def copies_of(path: Path, job: str, precision: str) -> int:
    """Bytes that loading a checkpoint makes. Raises InputError as `load_patcher` does."""
    device = comfy.model_management.get_torch_device()
    checkpoint = open_checkpoint(path, None if job == AUTO else Job(job))
    chosen, _ = resolve(Precision(precision), checkpoint, device)
    config = Config(checkpoint.params, checkpoint.job)
    return copied_bytes(checkpoint, chosen, plain_dtype(chosen, checkpoint, config, device))


def others_in(graph: Mapping[str, Any] | None, node_id: str | None) -> int:
    """Bytes that the Load Model nodes of a graph other than `node_id` make. graph: as ComfyUI's queue has it."""
    total = 0
    for key, node in (graph or {}).items():
        given = {name: value for name, value in node.get("inputs", {}).items() if isinstance(value, str)}
        of_ours = node.get("class_type") == "SkyReelsLoadModel" and node["inputs"].get("gpus", 1) == 1
        if key == node_id or not of_ours or "model" not in given:
            continue
        with suppress(InputError, ValueError):  # which that node itself will tell
            total += copies_of(entry_path(given["model"]), given.get("job", AUTO), given.get("precision", AUTO))
    return total


def products_in_words(
    network: torch.nn.Module, products: Products, asked: bool, device: torch.device
) -> tuple[str, ...]:
    """Sentences on how packed weights are multiplied, where this device can do it in 8 bits or is told to.

    asked: whether the file asks for exact products of some layers.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, Packed)]
    able = [layer for layer in layers if layer.format.quantised_input(device, layer.part_names) is not None]
    rounding = sorted({layer.format.name for layer in able if not layer.exact})
    exact = sorted({layer.format.name for layer in able if layer.exact})
    said = []
    if rounding:
        said.append(f"Weights in {' and '.join(rounding)} are multiplied in 8 bits, their inputs too.")
    if exact and products is Products.EXACT:
        said.append(f"Weights in {' and '.join(exact)} are multiplied exactly, as chosen.")
    elif exact and asked:
        said.append("Where the file asks for it, weights are multiplied exactly.")
    elif exact:
        said.append(
            f"Weights in {' and '.join(exact)} are multiplied exactly; products 8 bits is faster, not so exact."
        )
    if layers and not able and products is Products.EIGHT_BITS:
        said.append("This device multiplies none of the weights in 8 bits: they are multiplied exactly.")
    return tuple(said)


def entry_path(entry: str) -> Path:
    """Where an entry of the list lies. Raises InputError for one that is gone or leaves the model folders."""
    return folders.entry_path(entry, folder_paths.get_folder_paths(FOLDER))


class LoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        listed = [*folder_paths.get_filename_list(FOLDER), *folders.gguf_files(folder_paths.get_folder_paths(FOLDER))]
        return versions.schema(
            node_id="SkyReelsLoadModel",
            display_name="SkyReels-V3 Load Model",
            description="Loads a SkyReels-V3 checkpoint: a single file, or Skywork's folder as downloaded.",
            search_aliases=["skyreels loader", "r2v", "v2v", "a2v", "skyreels checkpoint", "unet loader"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=folders.model_entries(listed),
                    tooltip="A file or folder in models/diffusion_models. A folder as downloaded from Skywork is one "
                    "entry that ends in a slash.",
                ),
                io.Combo.Input(
                    "job",
                    options=JOBS,
                    default=AUTO,
                    tooltip="What the checkpoint was trained for. auto reads it from the weights, the file's name and "
                    "its folder, and the log says which was taken and why.",
                ),
                io.Combo.Input(
                    "precision",
                    options=PRECISIONS,
                    default=AUTO,
                    optional=True,
                    tooltip="How the weights are kept. auto leaves quantised files as they are and makes others int8 "
                    "where the card cannot hold them at 16 bits. int8 is the most exact small one, nf4 the smallest.",
                ),
                io.Combo.Input(
                    "attention",
                    options=attentions.CHOICES,
                    default=AUTO,
                    optional=True,
                    tooltip="What computes attention, most of the time of a large video. auto takes the fastest exact "
                    "one. sage and int8 are faster and round to 8 bits. flash and sage need packages of their own.",
                ),
                versions.advanced(
                    io.Combo.Input(
                        "products",
                        options=PRODUCTS,
                        default=AUTO,
                        optional=True,
                        tooltip="How weights in fp8 and int8 are multiplied. exact leaves what they are multiplied by "
                        "as it is, as the official --low_vram does with fp8. 8 bits rounds that too, which is faster "
                        "where the card can do it. auto is 8 bits for int8, where it costs little, and exact for fp8 "
                        "or where the file asks for it.",
                    )
                ),
                versions.advanced(
                    io.Int.Input(
                        "gpus",
                        default=1,
                        min=0,
                        max=MOST,
                        optional=True,
                        tooltip="Graphics cards that share each step, so that one video is ready sooner. 0 takes all "
                        "of this machine, or of the Ray cluster that it belongs to. More than 1 needs Linux or WSL2 "
                        "and the package ray.",
                    )
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For any ComfyUI sampler.")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def fingerprint_inputs(
        cls, model: str, job: str, precision: str = AUTO, attention: str = AUTO, products: str = AUTO, gpus: int = 1
    ):
        path = entry_path(model)
        files = checkpoint_files(path)
        return [
            job,
            precision,
            attention,
            products,
            gpus,
            *((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files),
        ]

    @classmethod
    def execute(
        cls,
        model: str,
        job: str = AUTO,
        precision: str = AUTO,
        attention: str = AUTO,
        products: str = AUTO,
        gpus: int = 1,
    ) -> io.NodeOutput:
        others = others_in(cls.hidden.prompt, cls.hidden.unique_id)
        patcher = load_patcher(str(entry_path(model)), job, precision, attention, products, gpus, others=others)
        loaded = patcher.model
        versions.tell(cls.hidden.unique_id, *loaded.notes, *missing_companions(loaded.job))
        return io.NodeOutput(patcher)
