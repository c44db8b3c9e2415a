"""The node Save Model in ComfyUI: precisions, LoRAs that are merged, names of files."""

import dataclasses
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pack.dev.samples.tiny_models import TINY, transformer_weights, write_transformer
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.skyreels_v3.recipes import Job
from pack.tests.support import dialects
from pack.tests.support.golden import relative_error
from pack.tests.support.loras import lora_products, named_products, write_lora
from pack.tests.support.saved import numbers, same

pytestmark = pytest.mark.usefixtures("computes_in_float32")

PREFIX = "diffusion_models/saved"


@pytest.fixture
def execute(pack_nodes, comfyui):
    """execute(model, precision, prefix) -> the path of the file."""
    folder = Path(comfyui.folder_paths.get_output_directory())

    def run(model, precision="as loaded", prefix=PREFIX) -> Path:
        (path,) = pack_nodes.ready("SkyReelsSaveModel").execute(model, prefix, precision).args
        return Path(path)

    yield run
    shutil.rmtree(folder / "diffusion_models", ignore_errors=True)


@pytest.fixture(scope="module")
def load(pack_nodes):
    """load(path, job, precision) -> MODEL."""
    return pack_nodes.module("nodes.models.load").load_patcher


@pytest.fixture(scope="module")
def lora(comfyui):
    """A LoRA for a matrix, a bias, a norm and a modulation: (path, Wan name -> what it adds at strength 1)."""
    generator = torch.Generator().manual_seed(0)
    weights = transformer_weights(TINY)
    down, up, bias = (torch.randn(size, generator=generator) for size in ((4, 128), (256, 4), (128,)))
    norm, modulation = torch.randn(128, generator=generator), torch.randn(1, 6, 128, generator=generator)
    path = Path(comfyui.folder_paths.get_folder_paths("loras")[0]) / "style.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        "blocks.0.ffn.0.lora_A.weight": down,
        "blocks.0.ffn.0.lora_B.weight": up,
        "blocks.0.ffn.0.alpha": torch.tensor(2.0),
        "blocks.1.self_attn.o.diff_b": bias,
        "blocks.1.norm3.diff": norm,
        "blocks.1.diff_m": modulation,
    }
    save_file({f"diffusion_model.{key}": tensor for key, tensor in tensors.items()}, path)
    added = {
        "blocks.0.ffn.0.weight": 0.5 * up @ down,
        "blocks.1.self_attn.o.bias": bias,
        "blocks.1.norm3.weight": norm,
        "blocks.1.modulation": modulation,
    }
    assert added.keys() <= weights.keys()
    return path, added


def same_with(found, added, strength, dtype=torch.float32) -> None:
    # Modulation is changed when the LoRA is put on, in the model's own dtype.
    bounds = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.016, "atol": 0.002}
    for name, weight in transformer_weights(TINY).items():
        wanted = weight + strength * added[name] if name in added else weight
        torch.testing.assert_close(found[name], wanted, msg=lambda text, name=name: name + text, **bounds)


@pytest.mark.parametrize("job", list(Job))
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp8", "int8"])
def test_the_node_saves_what_it_is_given(execute, load, tmp_path, job, precision):
    model = load(str(write_transformer(tmp_path / "model", job, shards=2)), job.value)
    path = execute(model, precision)
    again = load(str(path))
    assert again.model.job.value == job.value
    saved = open_checkpoint(path)
    assert saved.precision == {"fp8": "bf16 + fp8 scaled", "int8": "bf16 + int8"}.get(precision, precision)
    if precision != "fp8":
        kept = load(str(tmp_path / "model"), job.value, precision)
        assert same(again.model.diffusion_model.state_dict(), kept.model.diffusion_model.state_dict())


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp8", "int8"])
def test_as_loaded_is_the_precision_that_was_chosen(execute, load, tmp_path, precision):
    source = str(write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE))
    loaded, chosen = execute(load(source, precision=precision)), execute(load(source), precision)
    assert loaded.read_bytes() == chosen.read_bytes()


def test_as_loaded_of_a_float32_file(execute, load, tmp_path):
    source = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE, dtype=torch.float32)
    model = load(str(source))
    path = execute(model)
    assert {tensor.dtype for tensor in load_file(path).values()} == {model.model.get_dtype()}


@pytest.mark.parametrize("source", ["Q8_0", "bf16"])
def test_what_has_no_format_is_told_before_anything_is_written(execute, load, comfyui, pack_nodes, tmp_path, source):
    dialects.write(source, tmp_path / "r2v", Job.REFERENCE)
    (path,) = tmp_path.iterdir()
    model = load(str(path), precision="nf4" if source == "bf16" else "auto")
    Refused = pack_nodes.module("skyreels_v3.errors").InputError
    with pytest.raises(Refused, match=r"ComfyUI has no format for .*: choose the precision bf16, fp8 or int8"):
        execute(model)
    assert not Path(comfyui.folder_paths.get_output_directory(), "diffusion_models").exists()
    assert execute(model, "int8").exists()


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp8"])
def test_the_stock_loader_opens_the_file(execute, load, comfyui, tmp_path, precision):
    model = load(str(write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)))
    path = execute(model, precision)
    comfyui.folder_paths.add_model_folder_path("diffusion_models", str(path.parent))
    (stock,) = comfyui.nodes.UNETLoader().load_unet(path.name, "default")
    assert type(stock.model).__name__ == "WAN21"
    found = numbers(open_checkpoint(path))
    state = {name: tensor for name, tensor in stock.model.diffusion_model.named_parameters()}
    names = [name for name in state if not name.endswith("weight_scale")]
    assert set(names) == set(found)
    for name in names:
        weight = state[name].data
        weight = (
            weight.dequantize() if hasattr(weight, "dequantize") and "Quantized" in type(weight).__name__ else weight
        )
        assert torch.equal(weight.float(), found[name].to(weight.dtype).float()), name


@pytest.mark.parametrize("loaded", ["auto", "bf16", "int8"])
@pytest.mark.parametrize("node", ["ours", "ComfyUI's"])
def test_loras_are_merged(execute, load, pack_nodes, comfyui, tmp_path, lora, caplog, loaded, node):
    import comfy.sd
    import comfy.utils

    source = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE, dtype=torch.float32)
    path, added = lora
    model = load(str(source), precision=loaded)
    if node == "ours":
        model, _ = pack_nodes.module("nodes.models.lora").with_lora(model, path, 0.5)
    else:
        tensors = {key: tensor for key, tensor in comfy.utils.load_torch_file(str(path)).items() if "diff_m" not in key}
        model, _ = comfy.sd.load_lora_for_models(model, None, tensors, 0.5, 0)
        added = {name: tensor for name, tensor in added.items() if "modulation" not in name}
    caplog.set_level("INFO")
    saved = execute(model, "bf16")
    same_with(numbers(open_checkpoint(saved)), added, 0.5, torch.bfloat16)
    assert f"Merged into {len(added)} weights: " in caplog.text
    assert ("style.safetensors at strength 0.5" in caplog.text) == (node == "ours")
    if loaded == "auto" and model.model.get_dtype() == torch.float32:
        same_with(numbers(open_checkpoint(execute(model))), added, 0.5)


def test_two_loras_add_up_and_the_model_stays_as_it_was(execute, load, pack_nodes, tmp_path, lora):
    source = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)
    path, added = lora
    model = load(str(source), precision="int8")
    before = {key: tensor.clone() for key, tensor in model.model.diffusion_model.state_dict().items()}
    twice = model
    for strength in (1.0, -0.5):
        twice, _ = pack_nodes.module("nodes.models.lora").with_lora(twice, path, strength)
    saved = execute(twice, "int8")
    assert same(model.model.diffusion_model.state_dict(), before)
    found = numbers(open_checkpoint(saved))["blocks.0.ffn.0.weight"]
    wanted = transformer_weights(TINY)["blocks.0.ffn.0.weight"] + 0.5 * added["blocks.0.ffn.0.weight"]
    assert relative_error(found, wanted) < 0.015


def test_a_dora_among_loras_is_merged_as_it_runs(load, pack_nodes, comfyui, tmp_path, lora):
    """Its gain is that of the weight alone, as in training, wherever it stands among them."""
    path = lora[0].with_name("decomposed.safetensors")
    layer = "blocks.0.ffn.0"
    write_lora(path, named_products(lora_products("DoRA", layers=[layer])))
    model = load(str(write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE, dtype=torch.float32)))
    for file, strength in ((lora[0], 0.3), (path, 0.8), (lora[0], -0.2)):
        model, _ = pack_nodes.module("nodes.models.lora").with_lora(model, file, strength)
    network, attached = model.model.diffusion_model, pack_nodes.module("nodes.weights.lora_branches").attached
    own, given = network.get_submodule(layer), [(one.lora, one.strength, one.gains) for one in attached(model)]
    with torch.inference_mode(), pack_nodes.module("skyreels_v3.model.lora").applied(network, given):
        runs = (own(torch.eye(own.in_features)) - own.bias).T
    saved = pack_nodes.module("nodes.models.weight_changes").weight_changes(model)[f"{layer}.weight"]
    merged = saved(own.weight.detach().float().clone())
    assert relative_error(merged - own.weight, runs - own.weight) < 1e-4


def test_a_lora_that_only_runs_is_refused(execute, load, pack_nodes, tmp_path):
    model = load(str(write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE))).clone()
    model.set_injections("bypass_lora", [])  # what ComfyUI's bypass loader of later versions does
    with pytest.raises(pack_nodes.module("skyreels_v3.errors").InputError, match=r"in bypass mode: put the LoRA on"):
        execute(model)


def test_existing_files_are_never_replaced(execute, load, tmp_path):
    model = load(str(write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)))
    paths = [execute(model), execute(model)]
    assert [path.name for path in paths] == ["saved_00001_.safetensors", "saved_00002_.safetensors"]
    paths[0].with_name("saved_00003_.safetensors.part").touch()  # of a ComfyUI that was killed while saving
    assert execute(model).name == "saved_00004_.safetensors"
    # ComfyUI 0.3.75 does not count where the prefix ends in a slash.
    assert execute(model, prefix=f"{PREFIX}/").name != paths[0].name


@pytest.mark.parametrize(
    "prefix", ["diffusion_models/模型 ü", "diffusion_models/%year% a'b", "diffusion_models\\deep\\er"]
)
def test_names_as_people_write_them(execute, load, tmp_path, prefix):
    model = load(str(write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)))
    path = execute(model, prefix=prefix)
    assert path.exists() and "%" not in path.name and "\\" not in path.name
    assert load(str(path)).model.job.value == "reference"


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("", "is no name"),
        (" / ", "is no name"),
        ("a\0b", "is no name"),
        ("../outside", "leads out of the output folder"),
        (str(Path(tempfile.gettempdir(), "outside")), "leads out of the output folder"),
        ("diffusion_models/../../outside", "leads out of the output folder"),
        ("diffusion_models/" + 300 * "x", "could not be written .*choose another folder or name"),
        ("in_the_way/saved", "cannot be made .*choose another filename_prefix"),
    ],
)
def test_names_that_are_none(execute, load, pack_nodes, comfyui, tmp_path, prefix, words):
    model = load(str(write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)))
    Path(comfyui.folder_paths.get_output_directory(), "in_the_way").touch()
    with pytest.raises(pack_nodes.module("skyreels_v3.errors").InputError, match=words) as caught:
        execute(model, prefix=prefix)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_comfyuis_interrupt_ends_a_save(execute, load, comfyui, tmp_path):
    import comfy.model_management

    model = load(str(write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)))
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        execute(model)
    assert not list(Path(comfyui.folder_paths.get_output_directory(), "diffusion_models").iterdir())


def test_another_file_in_the_place_of_the_loaded_one(execute, load, pack_nodes, tmp_path):
    source = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)
    model = load(str(source))
    write_transformer(source, Job.REFERENCE, params=dataclasses.replace(TINY, num_layers=1))
    with pytest.raises(pack_nodes.module("skyreels_v3.errors").InputError, match="load the model again"):
        execute(model)
