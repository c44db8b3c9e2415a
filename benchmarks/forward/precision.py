"""What each precision costs in exactness: one layer, whole forwards, and the layers that stay high.

Everything is computed in float32 from weights rounded to bf16, which is the reference: what differs is how the weights
are stored and, where products are in 8 bits, that activations are rounded too. A processor has no such products of
fp8: they are computed in float32 from activations that were rounded so. Errors are relative, |y - y0| / |y0| over all
numbers.
Weights are Gaussian at the scale of trained ones, for nobody can ship those: the order of the precisions carries over,
the figures only roughly.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure

LAYER = (5120, 5120)  # rows, columns of an attention's matrix
ROWS = 512  # tokens
OUTLIERS, OUTLIER_SIZE = 0.005, 30.0  # a share of the channels, larger by so much
PRECISIONS = ("int8", "fp8", "nf4")
OTHER_PRODUCTS = {"int8": "exact", "fp8": "8 bits"}  # than `auto` has
# What is packed besides the matrices of the blocks, or what of these is left high.
VARIANTS = {
    "as shipped": None,
    "embeddings and head packed too": r".*\.weight$",
    "first and last block high": r"^blocks\.(?!0\.|{last}\.)\d+\.(?:self_attn|cross_attn|ffn).*\.weight$",
}


def error(y, reference) -> float:
    return float((y - reference).norm() / reference.norm())


def layers(quick: bool) -> dict:
    """Format -> activations -> error of one layer's output."""
    import torch

    from pack.formats.encoding import Encoding
    from pack.formats.registry import format_of

    rows, columns = (256, 256) if quick else LAYER
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(rows, columns, generator=generator) / columns**0.5).bfloat16().float()
    x = torch.randn(ROWS, columns, generator=generator)
    large = torch.rand(columns, generator=generator) < max(OUTLIERS, 1 / columns)
    activations = {"gaussian": x, "outlier channels": torch.where(large, x * OUTLIER_SIZE, x)}
    int8, fp8 = format_of(Encoding("int8", 256)), format_of(Encoding("float8_e4m3fn"))
    plain, nf4 = format_of(Encoding("int8")), format_of(Encoding("nf4"))
    cases = {
        "int8": (int8.linear, int8.pack(weight)),
        "int8, exact products": (int8.exact_linear, int8.pack(weight)),
        "int8 without rotation": (plain.linear, plain.pack(weight)),
        "fp8": (fp8.exact_linear, fp8.pack(weight)),
        "fp8, products in 8 bits": (lambda x, *rest: fp8.linear(rounded(x), *rest), fp8.pack(weight)),
        "fp8, one scale (as in files)": (fp8.exact_linear, fp8.pack_tensorwise(weight)),
        "nf4": (nf4.linear, nf4.pack(weight)),
    }
    return {
        name: {kind: error(linear(x, parts, rows, None), x @ weight.T) for kind, x in activations.items()}
        for name, (linear, parts) in cases.items()
    }


def rounded(x):
    """Activations in fp8 with a scale per row, as cards take them."""
    from pack.kernels.quantised_rows import QuantisedRows, quantise_rows

    return QuantisedRows(*quantise_rows(x, "fp8"), 0, x.dtype)


def forwards(quick: bool) -> dict:
    """Precision -> variant -> {error of a forward, bytes of the weights, both against bf16}."""
    measure.enter_comfyui()
    import torch

    from pack.dev.samples.tiny_models import TINY, write_transformer
    from pack.formats.fp8 import Float8
    from pack.model_loaders.tensors import precision as precisions
    from pack.nodes.models.load import load_patcher
    from pack.skyreels_v3.model.block import Runtime
    from pack.skyreels_v3.model.params import TransformerParams
    from pack.skyreels_v3.model.sequence import reference_segments
    from pack.skyreels_v3.recipes import Job

    params = TINY if quick else TransformerParams(dim=1024, ffn_dim=2816, num_heads=8, num_layers=12)
    generator = torch.Generator().manual_seed(1)
    video, slots = (torch.randn(1, 16, frames, 16, 16, generator=generator) for frames in (5, 4))
    text, timestep = torch.randn(1, 512, params.text_dim, generator=generator), torch.tensor([700.0])

    def run(path, precision, products="auto"):
        model = load_patcher(str(path), "reference", precision, products=products)
        with torch.inference_mode():
            network = model.model.diffusion_model
            runtime = Runtime(linear=lambda layer, x: layer(x))  # which may be packed
            segments = reference_segments(video, slots)
            return super(type(network), network).forward(segments, timestep, text, runtime=runtime), model

    def compared(path, precision, products="auto"):
        y, model = run(path, precision, products)
        return {"error": error(y, reference), "bytes": model.model_size() / high.model_size()}

    shipped, linear, result = precisions.MATRICES, Float8.linear, {}
    with tempfile.TemporaryDirectory(prefix="skyreels-bench-") as folder:
        path = write_transformer(Path(folder, "r2v.safetensors"), Job.REFERENCE, params=params)
        reference, high = run(path, "bf16")
        for name in PRECISIONS:
            result[name] = {}
            for variant, pattern in VARIANTS.items():
                if pattern is not None:
                    pattern = pattern.replace("{last}", str(params.num_layers - 1))
                precisions.MATRICES = shipped if pattern is None else re.compile(pattern)
                result[name][variant] = compared(path, name)
        precisions.MATRICES = shipped
        Float8.linear = lambda self, x, *rest: linear(self, rounded(x), *rest)
        for name, products in OTHER_PRODUCTS.items():
            result[name][f"products: {products}"] = compared(path, name, products)
        Float8.linear = linear
    return result


def measured(quick: bool) -> dict:
    return {"layers": layers(quick), "forwards": forwards(quick)}


def tables(result: dict) -> str:
    layer = [
        [name, *(f"{case[kind]:.2%}" for kind in ("gaussian", "outlier channels"))]
        for name, case in result["layers"].items()
    ]
    whole = [
        [f"{name}, {variant}", f"{case['error']:.2%}", f"{case['bytes']:.3f}"]
        for name, variants in result["forwards"].items()
        for variant, case in variants.items()
    ]
    return "\n\n".join(
        [
            measure.table(["one layer", "Gaussian activations", "with outlier channels"], layer),
            measure.table(["a forward of 12 blocks", "error", "bytes (x bf16)"], whole),
        ]
    )


if __name__ == "__main__":
    measure.main(measured)
