"""The Triton kernels compiled for real cards and sizes, without a card: what they need of it must be there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("Triton has packages for Linux only", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pack.kernels import triton_int8_linear, triton_modulation, triton_norm_rope, triton_quantise

pytestmark = pytest.mark.workshop

DIM, FFN, HEADS = 5120, 13824, 40
# Compute capability -> bytes of shared memory a program may have: 2080, A100, 3090, 4090, H100, 5090. Source: the CUDA
# C++ programming guide, "Technical Specifications per Compute Capability".
CARDS = {75: 64 * 1024, 80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024, 120: 99 * 1024}
# Bytes of a thread's stack, where registers go that do not fit: 8 with Triton 3.9, 32 with 3.6.
SPILLED = 32
FIRST_WITH_FP8 = 89
# PYTHONPATH=folder of another Triton's wheel tests that one: from 3.0, with torch 2.4, on.
VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])
FIRST_WITH_BLACKWELL = (3, 3)

POINTERS = {
    "bf16": ("x", "y", "out", "bias"),
    "fp32": ("gate", "shift", "scale", "out_scale", "weight", "cos_sin", "row_scale", "column_scale"),
    "i8": ("a", "b", "codes"),
}
TYPES = {name: f"*{dtype}" for dtype, names in POINTERS.items() for name in names} | {"eps": "fp32"}


def variants() -> dict:
    """name -> (kernel, options of its launch, types that differ from TYPES)."""
    row = triton_quantise.whole_row(DIM)
    norm = {"ROWS": triton_modulation.ROWS, "ADD": False, "GATED": False, "NORM": True, "QUANTISE": False}
    norm |= {"FP8": False, "DIGITS": 0, **row}
    all_int8 = {**norm, "ADD": True, "GATED": True, "QUANTISE": True, "DIGITS": 4}
    gate = {**norm, "ADD": True, "GATED": True, "NORM": False}
    all_fp8 = {**norm, "ADD": True, "GATED": True, "QUANTISE": True, "FP8": True}
    modulate, rope = triton_modulation.modulation_kernel, triton_norm_rope.norm_rope_kernel
    quantise, product = triton_quantise.quantise_kernel, triton_int8_linear.int8_kernel
    tile = triton_norm_rope.tile(HEADS, DIM // HEADS)
    found = {
        "norm": (modulate, norm, {}),
        "norm float32": (modulate, norm, {"x": "*fp32", "out": "*fp32"}),
        "gate": (modulate, gate, {}),
        "gate, norm, int8": (modulate, all_int8, {"out": "*i8"}),
        "gate, norm, fp8": (modulate, all_fp8, {"out": "*fp8e4nv"}),
        "norm and rotary": (rope, {"ROPE": True, **tile}, {}),
        "norm over the heads": (rope, {"ROPE": False, **triton_norm_rope.tile(1, DIM)}, {}),
    }
    for width in (DIM, FFN):
        options = triton_quantise.whole_row(width)
        found[f"quantise {width}"] = (quantise, {"FP8": False, "DIGITS": 4, **options}, {})
        fp8 = {"FP8": True, "DIGITS": 0, **options}
        found[f"quantise {width}, fp8"] = (quantise, fp8, {"codes": "*fp8e4nv"})
    for size in (*triton_int8_linear.TILES, triton_int8_linear.LARGE):
        options = {"ONE_SCALE": False, "BIAS": True, "GELU": True, **triton_int8_linear.options(size)}
        found[f"product {size}"] = (product, options, {})
    return found


VARIANTS = variants()
LARGE = f"product {triton_int8_linear.LARGE}"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Nothing compiled earlier is taken, and nothing stays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


def compiled(kernel, options: dict, types: dict, capability: int):
    if capability >= 100 and VERSION < FIRST_WITH_BLACKWELL:
        pytest.skip("torch has a newer Triton where it has these cards")
    launch = {name: options[name] for name in ("num_warps", "num_stages") if name in options}
    constants = {name: value for name, value in options.items() if name not in launch}
    signature = {name: {**TYPES, **types}.get(name, "i32") for name in kernel.arg_names if name not in constants}
    if capability < 80:  # computes in fp16
        signature = {name: kind.replace("bf16", "fp16") for name, kind in signature.items()}
    # Sizes and strides of the real model are multiples of 16, and tensors lie at such addresses.
    divisible = [kernel.arg_names.index(name) for name, kind in signature.items() if kind != "fp32"]
    source = source_of(kernel, signature, constants, divisible)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch)


def source_of(kernel, signature: dict, constants: dict, divisible: list[int]) -> ASTSource:
    """What is compiled, as each version wants it."""
    names = kernel.arg_names
    if VERSION >= (3, 3):
        facts = {(place,): [["tt.divisibility", 16]] for place in divisible}
        return ASTSource(kernel, {name: signature.get(name, "constexpr") for name in names}, constants, facts)
    if VERSION == (3, 2):
        from triton.backends.compiler import AttrsDescriptor

        attributes = AttrsDescriptor()
        attributes.arg_properties["tt.divisibility"] = divisible
        return ASTSource(kernel, signature, constants, attributes)
    from triton.compiler.compiler import AttrsDescriptor

    attributes = AttrsDescriptor(tuple(divisible), ())
    by_place = {names.index(name): kind for name, kind in signature.items()}
    return ASTSource(kernel, by_place, {names.index(name): value for name, value in constants.items()}, attributes)


def stack_bytes(cubin: bytes, folder: Path) -> int:
    """What the assembler says that a thread spills."""
    path = folder / "kernel.cubin"
    path.write_bytes(cubin)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    usage = subprocess.run([tool, "-res-usage", path], check=True, capture_output=True, text=True).stdout
    return max(int(size) for size in re.findall(r"(?:STACK|LOCAL):(\d+)", usage))


@pytest.mark.parametrize("capability", CARDS)
@pytest.mark.parametrize("name", [name for name in VARIANTS if name != LARGE])
def test_a_kernel_fits_the_card(name, capability, tmp_path):
    kernel, options, types = VARIANTS[name]
    if "fp8e4nv" in str(types) and capability < FIRST_WITH_FP8:
        with pytest.raises(Exception, match="fp8e4nv" if VERSION >= (3, 2) else None):
            compiled(kernel, options, types, capability)
        return
    if kernel is triton_int8_linear.int8_kernel and not triton_int8_linear.compiles_for(divmod(capability, 10)):
        with pytest.raises(RuntimeError, match="PassManager"):  # why the pack does not try
            compiled(kernel, options, types, capability)
        return
    binary = compiled(kernel, options, types, capability)
    assert binary.metadata.shared <= CARDS[capability]
    assert stack_bytes(binary.asm["cubin"], tmp_path) <= SPILLED


def test_the_largest_tile_fits_hopper(tmp_path):
    test_a_kernel_fits_the_card(LARGE, 90, tmp_path)


@pytest.mark.parametrize("capability", [capability for capability in CARDS if capability > 75])
def test_products_are_made_by_the_cards_int8_units(capability):
    """mma of signed 8-bit numbers, and data that is fetched ahead."""
    kernel, options, types = VARIANTS[f"product {triton_int8_linear.TILES[-1]}"]
    assembly = compiled(kernel, options, types, capability).asm["ptx"]
    assert re.search(r"mma[\w.:]*\.s8\.s8", assembly) and "cp.async" in assembly


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != LARGE])
def test_addresses_have_64_bits(name):
    """What depends on the program is multiplied in 64 bits before it is added to a pointer: 2^31 numbers are passed."""
    lines = compiled(*VARIANTS[name], 90).asm["ttir"].splitlines()
    made = {one.partition(" = ")[0].strip().partition(":")[0]: one.partition(" = ")[2] for one in lines if " = " in one}

    def narrow(value: str, multiplied: bool, seen: frozenset) -> bool:
        line = made.get(value.partition("#")[0], "")
        if value in seen or line.startswith(("tt.load", "scf.")):
            return False
        multiplied |= line.startswith("arith.muli") and "i64" not in line
        if "tt.get_program_id" in line:
            return multiplied
        if line.startswith("arith.ext"):  # to 64 bits: what comes before is the program's number
            return False
        return any(narrow(other, multiplied, seen | {value}) for other in re.findall(r"%[\w#]+", line))

    added = [re.findall(r"%[\w#]+", line)[1] for line in made.values() if line.startswith("tt.addptr")]
    assert added and not [offset for offset in added if narrow(offset, False, frozenset())]


def test_rows_are_read_in_wide_loads():
    """16 bytes a thread of the activations, whose traffic is what these kernels cost."""
    for name in ("norm", "quantise 5120", "norm and rotary", "gate, norm, int8"):
        assembly = compiled(*VARIANTS[name], 89).asm["ptx"]
        assert re.search(r"ld\.global[\w.:]*\.v4\.b32", assembly), name


def test_every_kernel_is_compiled_here():
    modules = (triton_int8_linear, triton_modulation, triton_norm_rope, triton_quantise)
    kernels = {thing for module in modules for name, thing in vars(module).items() if name.endswith("_kernel")}
    assert kernels == {kernel for kernel, _, _ in VARIANTS.values()}
