"""Attention by other packages: how each is called, what it is not given, and what happens where one fails.

The packages need a graphics card. Here stand-ins with their names lie on the path and compute on the CPU.
"""

import importlib
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.torch_version import TorchVersion

from pack import kernels
from pack.kernels import attention_backends as backends
from pack.kernels import dispatch
from pack.tests.support.golden import normal, relative_error

CPU = torch.device("cpu")
# Each package's function as its documentation has it: the layout, the options, what comes back.
SIGNATURES = {
    "flash2": ("flash_attn", "flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False)", "NHD"),
    "flash3": ("flash_attn_interface", "flash_attn_func(q, k, v, softmax_scale=None, causal=False)", "NHD"),
    "sage": (
        "sageattention",
        "sageattn(q, k, v, tensor_layout='HND', is_causal=False, sm_scale=None, **kwargs)",
        "tensor_layout",
    ),
    "int8": ("comfy_kitchen", "int8_attention(q, k, v, *, scale=None, attn_mask=None)", "HND"),
}
BODY = """
import torch
import torch.nn.functional as F

CALLS = []


def {signature}:
    CALLS.append(tuple(q.shape))
    layout = {layout}
    if layout == "NHD":
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    assert q.shape[1] == k.shape[1] and q.shape[3] == k.shape[3], "heads and tokens are mixed up"
    out = F.scaled_dot_product_attention(q, k, v)
    if layout == "NHD":
        out = out.transpose(1, 2).contiguous()
    {behaviour}
    return out
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch, caplog):
    """stand_in(key, behaviour) -> (a backend that takes the CPU, its package); behaviour: a statement about `out`."""
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(dispatch, "MODE", "")
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(key, behaviour="pass"):
        package, signature, layout = SIGNATURES[key]
        layout = layout if layout == "tensor_layout" else repr(layout)
        text = BODY.format(signature=signature, layout=layout, behaviour=behaviour)
        (tmp_path / f"{package}.py").write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, package, raising=False)
        importlib.invalidate_caches()
        backend = backends.BACKENDS[key]
        made = type(backend)(
            key, backend.name, package, backend.install, backend.exact, lambda device: True, backend.operation._backend
        )
        made.operation.devices = ("cpu",)
        monkeypatch.setitem(backends.BACKENDS, key, made)
        return made, lambda: sys.modules[package].CALLS

    yield make
    for package, *_ in SIGNATURES.values():
        sys.modules.pop(package, None)


def parts(queries=300, keys=1100, dtype=torch.bfloat16, heads=3, dim=128, batch=1):
    shapes = {"q": queries, "k": keys, "v": keys}
    return [normal(name, (batch, length, heads, dim)).to(dtype) for name, length in shapes.items()]


def test_attention_is_that_of_pytorch():
    q, k, v = parts(dtype=torch.float32, batch=2)
    scores = torch.einsum("blhd,bmhd->bhlm", q, k) / 128**0.5
    wanted = torch.einsum("bhlm,bmhd->blhd", scores.softmax(-1), v).flatten(2)
    assert relative_error(kernels.attention(q, k, v), wanted) < 1e-5
    assert torch.equal(kernels.attention(q, k, v, precise=True), kernels.attention(q, k, v))


@pytest.mark.parametrize("key", SIGNATURES)
def test_each_package_is_called_as_it_documents(stand_in, caplog, key):
    backend, calls = stand_in(key)
    assert backend.installed() and backend.runs_on(CPU)
    for dtype in (torch.bfloat16, torch.float16):
        q, k, v = parts(dtype=dtype, batch=2)
        group = [part[:, :, 1:] for part in (q, k, v)]  # of a long sequence: some of the heads, not contiguous
        for one in ((q, k, v), group):
            out = backend(*one)
            assert out.shape == (2, 300, one[0].shape[2] * 128) and out.dtype == dtype
            assert relative_error(out, kernels.attention(*one)) < 0.01
    assert len(calls()) == 2 * (1 + 2)  # for each dtype a trial and two calls
    assert not caplog.records


@pytest.mark.parametrize("key", SIGNATURES)
def test_what_a_package_is_not_given(stand_in, key):
    backend, calls = stand_in(key)
    q, k, v = parts(dtype=torch.float32)
    assert torch.equal(backend(q, k, v), kernels.attention(q, k, v)), "float32 is PyTorch's"
    q, k, v = parts()
    backend(q, k, v)
    before = len(calls())
    out = backend(q, k, v, precise=True)
    assert len(calls()) == before + backend.exact, "precise calls are for exact attention only"
    assert relative_error(out, kernels.attention(q, k, v)) < 0.01


def test_an_early_flash_attention_3_returns_its_sums_as_well(stand_in, caplog):
    backend, calls = stand_in("flash3", "out = (out, out[..., 0])")
    q, k, v = parts()
    assert relative_error(backend(q, k, v), kernels.attention(q, k, v)) < 0.01
    assert len(calls()) == 2 and not caplog.records


def test_the_first_sageattention_writes_into_the_keys(stand_in, caplog):
    """It takes their mean off in place: no result of ours may depend on it."""
    backend, calls = stand_in("sage", "k -= k.mean(dim=2, keepdim=True)")
    q, k, v = parts()
    wanted = kernels.attention(q, k, v)
    assert relative_error(backend(q, k, v), wanted) < 0.01
    assert relative_error(kernels.attention(q, k, v), wanted) < 0.01
    assert len(calls()) == 2 and not caplog.records


@pytest.mark.parametrize("key", SIGNATURES)
@pytest.mark.parametrize(
    "behaviour, reason",
    [
        ("raise RuntimeError('only Ampere cards\\n or newer')", "only Ampere cards or newer"),
        ("out = out * float('nan')", "its results are wrong"),
        ("out = out * 1.5", "its results are wrong"),
        ("out = out.flip(-1)", "its results are wrong"),
    ],
)
def test_one_that_fails_its_trial_is_given_up_in_one_sentence(stand_in, caplog, key, behaviour, reason):
    backend, calls = stand_in(key, behaviour)
    for length in (300, 301, 300):
        q, k, v = parts(length)
        assert torch.equal(backend(q, k, v), kernels.attention(q, k, v))
    assert len(calls()) == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"SkyReels-V3: attention runs on cpu without {backend.name}: {reason}"
    ]


def test_one_that_fails_later_is_given_up_then(stand_in, caplog):
    backend, calls = stand_in("sage", "assert len(CALLS) < 3, 'too long'")
    q, k, v = parts()
    for _ in range(3):
        assert relative_error(backend(q, k, v), kernels.attention(q, k, v)) < 0.01
    assert len(calls()) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "SkyReels-V3: attention runs on cpu without SageAttention: too long"
    ]


def test_an_8_bit_attention_may_differ_and_an_exact_one_may_not(stand_in, caplog):
    inexact = "out = out * (1 + 0.05 * torch.sin(torch.arange(out.numel()).view(out.shape)))"
    q, k, v = parts()
    for key, taken in (("sage", True), ("int8", True), ("flash2", False), ("flash3", False)):
        backend, calls = stand_in(key, inexact)
        backend(q, k, v)
        assert (len(calls()) == 2) is taken, key
    assert len(caplog.records) == 2


def test_a_missing_or_broken_package(stand_in, tmp_path, caplog):
    backend, _ = stand_in("flash2")
    backend.package = "no_such_package"
    assert not backend.installed()
    backend.package = "flash_attn"
    (tmp_path / "flash_attn.py").write_text("raise ImportError('DLL load failed')", encoding="utf-8")
    q, k, v = parts()
    assert backend.installed()
    assert torch.equal(backend(q, k, v), kernels.attention(q, k, v))
    assert "without FlashAttention 2: DLL load failed" in caplog.text
    backend, _ = stand_in("sage")
    (tmp_path / "sageattention.py").write_text("import triton_that_is_not_there", encoding="utf-8")
    assert torch.equal(backend(q, k, v), kernels.attention(q, k, v))
    assert "without SageAttention: No module named 'triton_that_is_not_there'" in caplog.text


def test_a_compiled_graph_calls_the_package(stand_in, caplog):
    backend, calls = stand_in("sage")
    q, k, v = parts()

    @torch.compile(backend="aot_eager", fullgraph=True)
    def block(q, k, v):
        return backend(q * 2, k, v) + backend(q, k, v, precise=True)

    out = block(q, k, v)
    wanted = kernels.attention(q * 2, k, v) + kernels.attention(q, k, v)
    assert relative_error(out, wanted) < 0.01
    assert len(calls()) == 2 and not caplog.records


def test_the_exact_ones_that_auto_takes(stand_in, monkeypatch):
    assert backends.fastest_exact(CPU) is None
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.version, "hip", None)
    built_in = []
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: bool(built_in))
    installed = set()
    monkeypatch.setattr(backends.Backend, "installed", lambda self: self.key in installed)

    def taken(capability, *there, flash=True):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        installed.clear()
        installed.update(there)
        built_in[:] = [True] if flash else []
        backend = backends.fastest_exact(device)
        return backend and backend.key

    everything = ("flash2", "flash3", "sage", "int8")
    assert taken((9, 0), *everything) == "flash3"
    assert taken((9, 0), "flash2", "sage", "int8") is None
    for card in ((7, 5), (8, 0), (8, 6), (8, 9), (10, 0), (12, 0)):
        assert taken(card, *everything) is None, "PyTorch's own is as fast there"
    assert taken((8, 9), *everything, flash=False) == "flash2"
    assert taken((8, 9), "sage", "int8", flash=False) == "cudnn"
    assert taken((7, 5), *everything, flash=False) is None
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1"))
    assert taken((9, 0), "flash2") == taken((10, 0)) == "cudnn" and taken((8, 9)) is None
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert taken((9, 4), *everything) is None


def test_cudnns_is_pytorchs_attention():
    """Where it is asked for first and cannot, the next one computes: here PyTorch's on the processor."""
    q, k, v = parts()
    assert relative_error(backends.CUDNN.run(q, k, v), kernels.attention(q, k, v)) < 1e-5
    assert backends.CUDNN.installed() and backends.CUDNN.exact


def test_nothing_is_imported_before_it_is_needed():
    names = [package for package, *_ in SIGNATURES.values()]
    code = (
        "import sys, torch; from pack import kernels; from pack.kernels import attention_backends; "
        "q = torch.ones(1, 4, 2, 8); kernels.attention(q, q, q); "
        f"assert not {set(names)!r} & set(sys.modules); assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[2] / "tools")
