"""Load Model's precisions in a real ComfyUI: what comes out, and what moving, offloading and reloading leave intact."""

import copy
import gc
import json
import os
from math import prod

import pytest
import torch
from safetensors.torch import load_file, save_file

from pack.dev.samples.tiny_models import write_transformer
from pack.model_loaders.architecture.params import expected_shapes
from pack.model_loaders.tensors.precision import MATRICES
from pack.skyreels_v3.model.params import TransformerParams
from pack.skyreels_v3.recipes import Job
from pack.tests.support import dialects
from pack.tests.support.golden import relative_error
from pack.tests.support.mapped import mapped_files

pytestmark = pytest.mark.usefixtures("computes_in_float32")

SHAPE = (1, 16, 3, 8, 12)
# Wide enough for every block size and, as in real models, with matrices that are most of the file.
PARAMS = TransformerParams(dim=256, ffn_dim=512, num_heads=2, num_layers=3)
# Relative error of one forward against the same model in float32, on random weights: bounds of a defect, not an aim.
ERRORS = {"bf16": 0.02, "fp16": 0.01, "int8": 0.05, "fp8": 0.08, "nf4": 0.25}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "r2v.safetensors"
    return write_transformer(path, Job.REFERENCE, params=PARAMS, dtype=torch.float32)


@pytest.fixture(scope="module")
def load(pack_nodes):
    return pack_nodes.module("nodes.models.load").load_patcher


@pytest.fixture(scope="module")
def forward(reference_prompt):
    """forward(patcher, steps, callback) -> the model's output through ComfyUI's sampling of one step or several."""
    import comfy.sample

    def run(patcher, steps=1, callback=None):
        latent = torch.zeros(SHAPE)
        noise = comfy.sample.prepare_noise(latent, 5)
        return comfy.sample.sample(
            patcher,
            noise,
            steps,
            1.0,
            "euler",
            "simple",
            reference_prompt,
            reference_prompt,
            latent,
            seed=5,
            callback=callback,
        )

    return run


@pytest.fixture(scope="module")
def exact(load, forward, file):
    return forward(load(str(file)))


@pytest.mark.parametrize("precision", ERRORS)
def test_every_precision_samples(load, forward, file, exact, precision):
    patcher = load(str(file), precision=precision)
    error = relative_error(forward(patcher), exact)
    assert 1e-5 < error <= ERRORS[precision]
    assert any(precision in note for note in patcher.model.notes)


def test_auto_keeps_what_the_file_has(load, forward, tmp_path, file, exact):
    import comfy.utils

    assert torch.equal(forward(load(str(file), precision="auto")), exact)
    dialects.write("fp8 mixed", tmp_path / "r2v", Job.REFERENCE, params=PARAMS)
    patcher = load(str(tmp_path / "r2v.safetensors"))
    layer = comfy.utils.get_attr(patcher.model, "diffusion_model.blocks.0.ffn.0")
    assert layer.format.name == "fp8" and layer.weight.dtype == torch.float8_e4m3fn
    assert relative_error(forward(patcher), exact) <= ERRORS["fp8"]


@pytest.mark.parametrize("dialect", ["fp8 old", "int8 rotated", "nvfp4", "mxfp8", "Q8_0", "Q5_1", "fp8 plain"])
def test_files_sample_as_they_are_stored(load, forward, tmp_path, exact, dialect):
    dialects.write(dialect, tmp_path / "r2v", Job.REFERENCE, params=PARAMS)
    (path,) = tmp_path.iterdir()
    assert relative_error(forward(load(str(path), "reference")), exact) <= 0.3
    assert relative_error(forward(load(str(path), "reference", "bf16")), exact) <= 0.3


@pytest.mark.parametrize("dialect", ["bf16", "fp8 old", "Q8_0"])
@pytest.mark.parametrize("precision", ["auto", "int8", "bf16"])
def test_no_file_is_mapped_where_comfyui_maps_none(load, forward, tmp_path, monkeypatch, dialect, precision):
    import comfy.cli_args

    dialects.write(dialect, tmp_path / "r2v", Job.REFERENCE, params=PARAMS)
    (path,) = tmp_path.iterdir()
    mapped = load(str(path), "reference", precision)
    monkeypatch.setattr(comfy.cli_args.args, "disable_mmap", True)
    read = load(str(path), "reference", precision)
    assert same(state(read), state(mapped))
    del mapped
    gc.collect()
    assert str(path) not in mapped_files()
    assert torch.isfinite(forward(read)).all()


@pytest.mark.skipif(os.name == "nt", reason="Windows lets nobody write to mapped files")
@pytest.mark.parametrize(("dialect", "precision"), [("bf16", "auto"), ("bf16", "int8"), ("Q8_0", "auto")])
def test_a_file_that_is_written_to_ends_a_sampling_in_a_sentence(load, forward, tmp_path, dialect, precision):
    dialects.write(dialect, tmp_path / "r2v", Job.REFERENCE, params=PARAMS)
    (path,) = tmp_path.iterdir()
    content, wanted = path.read_bytes(), forward(load(str(path), "reference", precision))
    link = tmp_path / f"link{path.suffix}"
    link.symlink_to(path)
    for write in (lambda: os.truncate(path, 5000), lambda: path.write_bytes(content[:-1] + b"x")):
        for name in (path, link):
            patcher = load(str(name), "reference", precision)
            write()
            with pytest.raises(ValueError, match=rf"{name.name} has been written to .* queue again"):
                forward(patcher)
            path.write_bytes(content)
    assert torch.equal(forward(load(str(path), "reference", precision)), wanted)


@pytest.mark.skipif(os.name == "nt", reason="Windows lets nobody write to mapped files")
def test_a_file_that_is_written_to_while_it_is_sampled(load, forward, tmp_path):
    path = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE, params=PARAMS)
    patcher = load(str(path))
    with pytest.raises(ValueError, match="has been written to"):
        forward(patcher, steps=3, callback=lambda *_: os.truncate(path, 5000))


@pytest.mark.skipif(os.name == "nt", reason="Windows lets nobody replace mapped files")
def test_a_file_that_is_replaced_or_deleted_goes_on(load, forward, tmp_path):
    path = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE, params=PARAMS)
    patcher = load(str(path))
    wanted = forward(patcher)
    other = write_transformer(tmp_path / "other.safetensors", Job.REFERENCE, params=PARAMS, seed=1)
    other.replace(path)
    assert torch.equal(forward(patcher), wanted)
    path.unlink()
    assert torch.equal(forward(patcher), wanted)


@pytest.mark.parametrize("dialect", ["bf16", "Q8_0"])
@pytest.mark.parametrize(
    ("flag", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)]
)
def test_auto_follows_the_dtype_that_comfyui_was_started_with(load, tmp_path, monkeypatch, dialect, flag, dtype):
    import comfy.cli_args

    dialects.write(dialect, tmp_path / "r2v", Job.REFERENCE, params=PARAMS)
    (path,) = tmp_path.iterdir()
    monkeypatch.setattr(comfy.cli_args.args, f"{flag}_unet", True)
    patcher = load(str(path), "reference")
    assert patcher.model.diffusion_model.head.head.weight.dtype == dtype
    assert any(f"--{flag}-unet" in note for note in patcher.model.notes)
    chosen = load(str(path), "reference", "fp16")
    assert chosen.model.diffusion_model.head.head.weight.dtype == torch.float16


@pytest.mark.parametrize("flag", ["fp8_e4m3fn", "fp8_e5m2"])
def test_auto_packs_to_fp8_where_comfyui_was_told_to(load, file, monkeypatch, flag):
    import comfy.cli_args

    monkeypatch.setattr(comfy.cli_args.args, f"{flag}_unet", True)
    patcher = load(str(file))
    assert patcher.model.diffusion_model.blocks[0].ffn[0].format.name == "fp8"
    assert any(f"--{flag}-unet" in note for note in patcher.model.notes)


def state(patcher):
    return {name: tensor.clone() for name, tensor in patcher.model.diffusion_model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[name].reshape(-1).view(torch.uint8), second[name].reshape(-1).view(torch.uint8))
        for name in first
    )


@pytest.mark.parametrize("precision", ["fp8", "int8", "nf4"])
def test_moves_leave_the_codes_intact(load, forward, file, precision):
    """Casts, copies, partial loads, offloads and reloads: the same bits and the same picture after each."""
    import comfy.model_management

    patcher = load(str(file), precision=precision)
    before, picture = state(patcher), forward(patcher)
    network = patcher.model.diffusion_model
    codes = network.blocks[0].ffn[0]
    scales = {name: getattr(codes, name).clone() for name in codes.part_names}
    assert same(state(patcher), before)
    moved = copy.deepcopy(codes).half().to(torch.bfloat16).double()
    assert all(torch.equal(getattr(moved, name), scale) for name, scale in scales.items())

    comfy.model_management.unload_all_models()
    assert same(state(patcher), before)
    size = patcher.model_size()
    for budget in (size // 3, size // 2, 1, size * 2):
        patcher.load(torch.device("cpu"), lowvram_model_memory=budget)
        assert torch.equal(forward(patcher), picture)
        patcher.partially_unload(torch.device("cpu"), size // 4)
        assert torch.equal(forward(patcher), picture)
    patcher.detach()
    assert same(state(patcher), before)
    assert torch.equal(forward(patcher.clone()), picture)


def test_packed_weights_count_at_their_size(load, tmp_path):
    file = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE, params=PARAMS)
    sizes = {precision: load(str(file), precision=precision).model_size() for precision in ("bf16", *list(ERRORS)[2:])}
    # Of a tiny model the layers that stay high are a large part.
    matrices = sum(prod(shape) for name, shape in expected_shapes(PARAMS).items() if MATRICES.match(name))
    for precision, share in {"int8": 0.52, "fp8": 0.52, "nf4": 0.29}.items():
        assert sizes["bf16"] - sizes[precision] >= (1 - share) * 2 * matrices, precision


def test_an_untouched_copy_has_the_same_precision(load, forward, file):
    """What ComfyUI does for deep clones: the stored call makes the same model again."""
    patcher = load(str(file), precision="int8")
    make, arguments = patcher.cached_patcher_init[:2]
    assert torch.equal(forward(make(*arguments, disable_dynamic=True)), forward(patcher))


def test_numbers_that_are_not_finite_stop_the_sampling(load, forward, file, pack_nodes):
    patcher = load(str(file))
    weight = patcher.model.diffusion_model.blocks[1].ffn[0].weight
    weight.data = weight.data.clone()  # what is mapped cannot be written to
    weight.data[3, 7] = float("nan")
    with pytest.raises(pack_nodes.module("skyreels_v3.errors").InputError, match="not finite"):
        forward(patcher)


def test_an_unknown_precision(load, file, pack_nodes):
    with pytest.raises(pack_nodes.module("skyreels_v3.errors").InputError, match="precision is 'int4'"):
        load(str(file), precision="int4")


@pytest.mark.parametrize(
    ("products", "said"),
    [
        ("auto", "Weights in fp8 are multiplied exactly; products 8 bits is faster, not so exact."),
        ("exact", "Weights in fp8 are multiplied exactly, as chosen."),
        ("8 bits", "Weights in fp8 are multiplied in 8 bits, their inputs too."),
    ],
)
def test_products_on_a_card_that_multiplies_fp8(load, file, pack_nodes, monkeypatch, products, said):
    module, card = pack_nodes.module("nodes.models.load"), torch.device("cuda")
    network = load(str(file), precision="fp8", products=products).model.diffusion_model
    monkeypatch.setattr(pack_nodes.module("formats.fp8"), "has_fp8_matmul", lambda device: True)
    assert module.products_in_words(network, module.Products(products), False, card) == (said,)
    layer = network.blocks[0].ffn[0]
    assert (layer.quantised_input(card) is None) == (products != "8 bits")


def test_products_are_what_is_chosen_and_are_said(load, forward, file, exact, pack_nodes):
    """On a processor int8 is multiplied as it is stored, and no other format is."""
    stamps = pack_nodes.module("nodes.runs.identity").model_stamps
    rounding, precise = (load(str(file), precision="int8", products=chosen) for chosen in ("auto", "exact"))
    assert "Weights in int8 are multiplied in 8 bits, their inputs too." in rounding.model.notes
    assert "Weights in int8 are multiplied exactly, as chosen." in precise.model.notes
    errors = [relative_error(forward(patcher), exact) for patcher in (precise, rounding)]
    assert errors[0] < 0.9 * errors[1]
    assert stamps([precise]) == [*stamps([rounding]), ("products", "exact")]
    make, arguments = precise.cached_patcher_init[:2]
    assert torch.equal(forward(make(*arguments, disable_dynamic=True)), forward(precise))
    sentence = "This device multiplies none of the weights in 8 bits: they are multiplied exactly."
    assert sentence in load(str(file), precision="fp8", products="8 bits").model.notes
    assert not any("multipl" in note for note in load(str(file), precision="fp8").model.notes)
    with pytest.raises(pack_nodes.module("skyreels_v3.errors").InputError, match="products is 'fast', but it must be"):
        load(str(file), products="fast")


def test_a_file_that_wishes_for_exact_products_has_them_and_it_is_said(load, forward, tmp_path):
    """The marker of an old fp8 file, and int8 of ComfyUI's with the wish in its layers."""
    dialects.write("int8", tmp_path / "r2v", Job.REFERENCE, params=PARAMS)
    tensors = load_file(tmp_path / "r2v.safetensors")
    plain = load(str(tmp_path / "r2v.safetensors"), "reference")
    for key in [key for key in tensors if key.endswith("comfy_quant")]:
        config = {**json.loads(bytes(tensors[key].tolist())), "full_precision_matrix_mult": True}
        tensors[key] = torch.tensor(list(json.dumps(config).encode()), dtype=torch.uint8)
    save_file(tensors, tmp_path / "wishing.safetensors")
    wishing = load(str(tmp_path / "wishing.safetensors"), "reference")
    sentence = "Where the file asks for it, weights are multiplied exactly."
    assert sentence in wishing.model.notes and sentence not in plain.model.notes
    assert not torch.equal(forward(wishing), forward(plain))


@pytest.mark.parametrize("precision", ["fp8", "int8", "nf4"])
def test_only_a_patched_weight_is_refused(load, forward, file, precision, pack_nodes):
    """Dynamic VRAM hands small weights back as they are; what another node has patched past our patcher is no code."""
    patcher = load(str(file), precision=precision)
    picture = forward(patcher)
    layer = patcher.model.diffusion_model.blocks[1].ffn[0]
    assert layer.set_weight(layer.weight.data, return_weight=True) is not None
    layer.set_weight(layer.weight.data.clone(), inplace_update=False, seed=1)
    assert torch.equal(forward(patcher), picture)
    key = "diffusion_model.blocks.1.ffn.0.weight"
    patcher.patches[key] = [(1.0, ("diff", (torch.ones(512, 256),)), 1.0, None, None)]
    if precision == "nf4":  # its codes have another shape, which ComfyUI leaves alone with a warning
        patcher.patches[key] = [(1.0, ("diff", (torch.ones(layer.weight.shape),)), 1.0, None, None)]
    with pytest.raises(pack_nodes.module("skyreels_v3.errors").InputError, match=f"stored as {precision}"):
        patcher.patch_weight_to_device(key, torch.device("cpu"))


CPU = torch.device("cpu")
CARD = torch.device("meta")  # a device that is not the CPU, from which no number comes back


def move(layer, device):
    """What `layer.to` does, also from the card; a weight that is copied from there is garbage."""
    layer._apply(lambda tensor: torch.full_like(tensor, 77, device=device) if tensor.is_meta else tensor.to(device))


@pytest.mark.parametrize("dialect", ["bf16", "fp8 mixed", "Q8_0", "int8 rotated"])
def test_what_comes_back_from_the_card_lies_in_its_file_again(load, forward, tmp_path, dialect):
    dialects.write(dialect, tmp_path / "r2v", Job.REFERENCE, params=PARAMS)
    (path,) = tmp_path.iterdir()
    patcher = load(str(path), "reference")
    picture, codes = forward(patcher), state(patcher)
    layers = [layer for layer in patcher.model.diffusion_model.blocks.modules() if hasattr(layer, "file_weights")]
    assert len(layers) == 10 * PARAMS.num_layers
    for layer in layers:
        before = {name: one.data_ptr() for name, one in layer.named_parameters()}
        for there in (CARD, CARD, CPU, CPU, CARD, CPU):
            move(layer, there)
            assert {one.device for one in layer.parameters()} == {there}
        assert {name: one.data_ptr() for name, one in layer.named_parameters()} == before
        assert all(map(layer.lies_in_file, before))
    assert same(state(patcher), codes) and torch.equal(forward(patcher), picture)


def test_a_patched_weight_is_not_taken_for_the_one_in_the_file(load, file):
    import comfy.utils

    network = load(str(file)).model.diffusion_model
    key, layer = "blocks.1.ffn.0.weight", network.blocks[1].ffn[0]
    original, patched = layer.weight, torch.ones(layer.weight.shape)
    for places in ([], [CPU], [CARD, CPU]):
        move(layer, CARD)
        comfy.utils.set_attr_param(network, key, patched.to(CARD if len(places) == 2 else CPU))
        for place in places:
            move(layer, place)
            assert layer.weight.device == place and not layer.lies_in_file("weight")
        comfy.utils.set_attr_param(network, key, original)  # from ComfyUI's backup
        move(layer, CPU)
        assert layer.lies_in_file("weight") and layer.lies_in_file("bias")


def test_weights_in_files_are_never_pinned(load, file, monkeypatch):
    """ComfyUI would count and keep a copy of each."""
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "pin_memory", lambda weight: asked.append(weight.data_ptr()) or False)
    for precision, wanted in {"auto": (), "int8": ("ffn.0",), "fp16": ("ffn.0",)}.items():
        asked, patcher = [], load(str(file), precision=precision)
        block = patcher.model.diffusion_model.blocks[0]
        for name in ("ffn.0", "norm3"):
            patcher.pin_weight_to_device(f"diffusion_model.blocks.0.{name}.weight")
        assert asked == [block.get_submodule(name).weight.data_ptr() for name in wanted]
