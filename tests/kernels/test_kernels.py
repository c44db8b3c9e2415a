"""The operations of a forward: what their references compute, and when a faster backend is taken or given up."""

import logging
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pack import kernels
from pack.kernels import dispatch, quantised_rows, scaled_mm
from pack.kernels.dispatch import Operation
from pack.kernels.quantised_rows import Quantisation, QuantisedRows, quantise_rows, rows_like
from pack.kernels.rotation import rotate
from pack.tests.support.golden import normal, relative_error
from pack.tests.support.out_of_memory import OUT_OF_MEMORY

TESTS = Path(__file__).resolve().parents[1]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
EPS = 1e-6
CPU = torch.device("cpu")


# Triton, in processes of their own: it is set up for its interpreter, or for a card, when it is imported.


@pytest.mark.skipif(sys.platform != "linux", reason="Triton has packages for Linux only")
@pytest.mark.parametrize("which", ["not workshop", pytest.param("workshop", marks=pytest.mark.workshop)])
def test_the_triton_kernels_compute_what_their_references_do(which):
    command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-m", which]
    done = subprocess.run(
        [*command, str(TESTS / "kernels" / "interpreted_kernels.py")],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-20000:]


def test_triton_is_not_imported_for_tensors_on_the_cpu():
    code = (
        "import sys, torch; before = 'triton' in sys.modules; from pack import kernels; "
        "kernels.rms_norm_(torch.ones(1, 2, 8), torch.ones(8), 1e-6); assert ('triton' in sys.modules) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=TESTS.parent / "tools")


# When a backend is taken. The devices here are the CPU, and the backends functions of the tests.


def doubled(x, y=None):
    """The reference: x *= 2 in place."""
    if len(x) == 3:
        raise ValueError("three rows are too many")
    return x.mul_(2)


def sample(x, y=None):
    return (dispatch.normal(2, x.shape[-1], dtype=x.dtype),), {}


class Backend:
    """A backend that does what it is told: `behaviour` of every call's tensor; counts its calls."""

    def __init__(self, behaviour):
        self.behaviour = behaviour
        self.calls = 0

    def __call__(self, x, y=None):
        self.calls += 1
        return self.behaviour(x)


def raises(error):
    def behaviour(x):
        raise error

    return behaviour


def fails_on_long(error):
    """Right for as few rows as a sample has."""
    return lambda x: x.mul_(2) if len(x) <= 2 else raises(error)(x)


@pytest.fixture
def operation(caplog, monkeypatch):
    """operation(behaviour) -> (the operation, its backend); warnings are in caplog."""
    caplog.set_level(logging.WARNING)
    # Whoever develops a kernel may have set one.
    monkeypatch.setattr(dispatch, "MODE", "")
    monkeypatch.setattr(dispatch, "REFUSED", {})

    def make(behaviour, backend=None):
        backend = backend or Backend(behaviour)
        return Operation(doubled, backend, sample, devices=("cpu",)), backend

    return make


def test_a_backend_that_computes_the_same_is_taken(operation, caplog):
    run, backend = operation(lambda x: x.mul_(2))
    x = normal("x", (5, 8))
    wanted = x * 2
    with caplog.at_level("INFO", dispatch.log.name):
        assert run(x) is x and torch.equal(x, wanted)
    assert [one.getMessage() for one in caplog.records] == [
        "SkyReels-V3: compiling doubled for cpu, which takes seconds the first time."
    ]
    caplog.clear()
    assert backend.calls == 2  # its trial and the call
    run(x)
    assert backend.calls == 3 and not caplog.records
    assert run.__name__ == "doubled" and "reference" in run.__doc__


@pytest.mark.parametrize(
    "behaviour, reason",
    [
        (raises(RuntimeError("no C compiler\n found")), "no C compiler found"),
        (raises(ImportError("libcuda is missing")), "libcuda is missing"),
        (raises(AssertionError()), "AssertionError"),
        (lambda x: x.fill_(float("nan")), "its results are wrong"),
        (lambda x: x.mul_(2.1), "its results are wrong"),
        (lambda x: x * 2, "its results are wrong"),  # not in place
        (lambda x: x.mul_(2)[:1], "its results are wrong"),
    ],
)
def test_a_backend_that_fails_its_trial_is_given_up_in_one_sentence(operation, caplog, behaviour, reason):
    run, backend = operation(behaviour)
    for dtype in (torch.float32, torch.float32, torch.bfloat16):
        x = torch.ones(5, 8, dtype=dtype)
        assert run(x) is x and (x == 2).all()
    assert backend.calls == 2  # one trial for each dtype
    assert dispatch.REFUSED["doubled"] == reason
    assert [record.getMessage() for record in caplog.records] == [
        f"SkyReels-V3: doubled runs on cpu without its own kernel: {reason}"
    ]


def test_a_backend_that_fails_later_is_given_up_for_calls_of_that_kind(operation, caplog):
    run, backend = operation(fails_on_long(RuntimeError("out of resource: shared memory")))
    for _ in range(3):
        x = torch.ones(5, 8)
        assert (run(x) == 2).all()
    assert backend.calls == 2 and len(caplog.records) == 1
    assert (run(torch.ones(2, 16)) == 2).all() and backend.calls == 4


def test_wrong_arguments_are_not_held_against_a_backend(operation, caplog):
    run, backend = operation(fails_on_long(RuntimeError("what?")))
    run(torch.ones(2, 8))
    for _ in range(2):
        with pytest.raises(ValueError, match="too many"):
            run(torch.ones(3, 8))
    run(torch.ones(2, 8))
    assert backend.calls == 5 and not caplog.records


@pytest.mark.parametrize("how", OUT_OF_MEMORY)
def test_too_little_memory_is_the_hosts_to_solve(operation, caplog, how):
    run, backend = operation(fails_on_long(OUT_OF_MEMORY[how]))
    for _ in range(2):
        with pytest.raises(type(OUT_OF_MEMORY[how])):
            run(torch.ones(5, 8))
    assert backend.calls == 3 and not caplog.records


def test_a_backend_can_leave_calls_to_the_reference(operation, caplog):
    run, backend = operation(lambda x: NotImplemented if len(x) > 2 else x.mul_(2))
    assert (run(torch.ones(5, 8)) == 2).all() and (run(torch.ones(2, 8)) == 2).all()
    assert backend.calls == 3 and not caplog.records


def test_without_triton_nothing_is_said(operation, caplog):
    run, _ = operation(raises(ModuleNotFoundError("No module named 'triton'", name="triton")))
    assert (run(torch.ones(5, 8)) == 2).all() and not caplog.records
    run, _ = operation(None, backend="no_such_module:function")
    assert (run(torch.ones(5, 8)) == 2).all() and len(caplog.records) == 1


def test_every_kind_of_call_has_its_own_trial(operation):
    run, backend = operation(lambda x: x.mul_(2))
    for x, y in ((torch.ones(2, 8), None), (torch.ones(7, 8), None), (torch.ones(2, 16), None), (torch.ones(2, 8), 1)):
        run(x, y)
    assert backend.calls == 4 + 3
    run(torch.ones(2, 8), y=torch.ones(1))
    run(torch.ones(2, 8), y=torch.ones(2))
    assert backend.calls == 7 + 3


def test_the_mode_forces(operation, monkeypatch, caplog):
    run, backend = operation(fails_on_long(RuntimeError("a fault")))
    monkeypatch.setattr(dispatch, "MODE", "eager")
    assert (run(torch.ones(2, 8)) == 2).all() and not backend.calls
    monkeypatch.setattr(dispatch, "MODE", "triton")
    assert (run(torch.ones(2, 8)) == 2).all() and backend.calls == 1
    with pytest.raises(RuntimeError, match="a fault"):
        run(torch.ones(5, 8))


def test_a_compiled_graph_has_the_reference_in_it(operation):
    run, backend = operation(lambda x: x.mul_(2))
    compiled = torch.compile(lambda x: run(x) + 1, backend="eager", fullgraph=True)
    assert (compiled(torch.ones(2, 8)) == 3).all() and not backend.calls
    torch.compiler.reset()


def test_many_threads_try_once(operation):
    run, backend = operation(lambda x: x.mul_(2))
    results = []
    threads = [threading.Thread(target=lambda: results.append(run(torch.ones(5, 8)))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert backend.calls == 17 and all((result == 2).all() for result in results) and len(results) == 16


def test_a_trial_leaves_the_random_state(operation):
    run, _ = operation(lambda x: x.mul_(2))
    torch.manual_seed(5)
    run(torch.ones(5, 8))
    own = torch.randn(3)
    torch.manual_seed(5)
    assert torch.equal(own, torch.randn(3))


# What the references compute.


@pytest.mark.parametrize("how", [None, Quantisation("int8"), Quantisation("int8", 64), Quantisation("fp8")], ids=str)
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gate_norm_and_modulation(dtype, rows, how, monkeypatch):
    x, y = (normal(key, (2, 7, 128)).to(dtype) for key in "xy")
    gate, shift, scale = normal("modulation", (3, rows, 128)).unbind()
    wanted = (x.float() + y.float() * gate[:, None]).to(dtype)
    normed = (F.layer_norm(wanted.float(), (128,), eps=EPS) * (1 + scale[:, None]) + shift[:, None]).to(dtype)
    tolerance = max(torch.finfo(dtype).eps / 2, 1e-6)
    for chunk in (8192, 3):
        monkeypatch.setattr(sys.modules["pack.kernels.modulation"], "CHUNK_TOKENS", chunk)
        own = x.clone()
        out = kernels.add_gated_norm_modulate_(own, y, gate, shift, scale, EPS, how)
        assert relative_error(own.float(), wanted.float()) < tolerance
        if how is None:
            assert relative_error(out.float(), normed.float()) < tolerance
        else:
            assert out.dtype == dtype and out.scale.shape == (2, 7, 1)
            again = kernels.quantised(normed, how)
            assert relative_error(out.unpacked().float(), again.unpacked().float()) < 0.01
    out = kernels.add_gated_norm_modulate_(x.clone(), y, None, shift, scale, EPS)
    assert relative_error(out.float(), kernels.norm_modulate(x + y, shift, scale, EPS).float()) < tolerance


@pytest.mark.parametrize("how", [None, Quantisation("int8", 64), Quantisation("fp8")], ids=str)
def test_parts_of_a_sequence_fill_one_result(how):
    x, (shift, scale) = normal("x", (2, 9, 128)).bfloat16(), normal("modulation", (2, 1, 128)).unbind()
    whole, out = kernels.norm_modulate(x, shift, scale, EPS, how), rows_like(x, how)
    for span in (slice(0, 4), slice(4, 9)):
        kernels.norm_modulate(x[:, span], shift, scale, EPS, how, out=out[:, span])
    if how is not None:
        assert torch.equal(out.scale, whole.scale)
        out, whole = out.unpacked(), whole.unpacked()
    assert torch.equal(out, whole)


def test_a_layer_norm_with_weight_and_bias_is_a_modulation():
    x, weight, bias = normal("x", (1, 7, 128)), normal("weight", (128,)), normal("bias", (128,))
    own = kernels.norm_modulate(x, bias[None], weight[None] - 1, EPS)
    torch.testing.assert_close(own, F.layer_norm(x, (128,), weight, bias, EPS), rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_int8_layers_take_rows_that_are_quantised_already(dtype):
    x, bias = normal("x", (2, 33, 320)).to(dtype), normal("bias", (71,))
    codes, scale = quantise_rows(rotate(normal("weight", (71, 320)), 64))
    q = kernels.quantised(x, Quantisation("int8", 64))
    for gelu in (False, True):
        y = kernels.int8_linear(x, codes, scale, bias, 64, gelu)
        assert y.dtype == dtype and torch.equal(kernels.int8_linear(q, codes, scale, bias, 64, gelu), y)
    plain = kernels.int8_linear(x.float(), codes, scale, bias, 64)
    assert relative_error(y.float(), F.gelu(plain, approximate="tanh")) < max(2 * torch.finfo(dtype).eps, 1e-6)
    assert torch.equal(kernels.int8_linear(q[0, 3:5], codes, scale, bias, 64, True), y[0, 3:5])


@pytest.mark.parametrize("other", [Quantisation("int8"), Quantisation("int8", 16), Quantisation("fp8")], ids=str)
def test_rows_quantised_for_another_weight_are_refused(other):
    q = kernels.quantised(normal("x", (5, 64)), other)
    codes, scale = quantise_rows(normal("weight", (7, 64)))
    with pytest.raises(ValueError, match="int8 rotated by 64 are needed"):
        kernels.int8_linear(q, codes, scale, None, 64)
    if other.kind == "int8":
        with pytest.raises(ValueError, match="fp8 without rotation is needed"):
            kernels.fp8_linear(q, *quantise_rows(normal("weight", (7, 64)), "fp8"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("one_scale", [False, True])
def test_fp8_layers(dtype, one_scale, monkeypatch):
    monkeypatch.setattr(sys.modules["pack.kernels.fp8_linear"], "CHUNK_ROWS", 5)
    x, weight, bias = normal("x", (2, 33, 320)).to(dtype), normal("weight", (48, 320)), normal("bias", (48,))
    codes, scale = quantise_rows(weight, "fp8")
    if one_scale:
        scale = weight.abs().max() / 448
        codes = (weight / scale).to(torch.float8_e4m3fn)
    unpacked = codes.float() * scale
    y = kernels.fp8_linear(x, codes, scale, bias)
    assert y.dtype == dtype and y.shape == (2, 33, 48)
    tolerance = max(torch.finfo(dtype).eps, 1e-6)
    assert relative_error(y.float(), x.float() @ unpacked.t() + bias) < tolerance
    assert relative_error(y.float(), x.float() @ weight.t() + bias) < 0.028
    q = kernels.quantised(x, Quantisation("fp8"))
    own = kernels.fp8_linear(q, codes, scale, bias)
    assert relative_error(own.float(), q.unpacked().float() @ unpacked.t() + bias) < tolerance
    # PyTorch's own product is there on a CPU as well.
    fast = scaled_mm.fp8_linear(x, codes, scale, bias)
    if dtype == torch.float32:
        assert fast is NotImplemented
        return
    assert fast.dtype == dtype and relative_error(fast.float(), own.float()) < 0.0078
    assert relative_error(fast.float(), x.float() @ weight.t() + bias) < 0.04
    assert torch.equal(scaled_mm.fp8_linear(q, codes, scale, bias), fast)
    monkeypatch.setattr(scaled_mm, "CHUNK_ROWS", 16)
    assert torch.equal(scaled_mm.fp8_linear(q, codes, scale, bias), fast)
    assert scaled_mm.fp8_linear(x, codes[:7], scale, bias) is NotImplemented


@contextmanager
def fresh_probes():
    """What a device can do is tried anew within, and after it."""
    probes = scaled_mm.has_fp8_matmul, scaled_mm.scales_rows
    for probe in probes:
        probe.cache_clear()
    yield
    for probe in probes:
        probe.cache_clear()


def test_a_device_without_fp8_products_is_left_to_the_reference(monkeypatch):
    def refused(*args, **options):
        raise RuntimeError("torch._scaled_mm is only supported on CUDA devices with compute capability >= 9.0 or 8.9")

    monkeypatch.setattr(torch, "_scaled_mm", refused)
    codes, scale = quantise_rows(normal("weight", (48, 64)), "fp8")
    with fresh_probes():
        assert scaled_mm.fp8_linear(normal("x", (3, 64)).half(), codes, scale) is NotImplemented


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fp8_products_where_rows_have_no_scale(dtype, monkeypatch):
    """As in wheels for Windows: the scales are applied to the sums."""
    x, bias = normal("x", (2, 33, 320)).to(dtype), normal("bias", (48,))
    codes, scale = quantise_rows(normal("weight", (48, 320)), "fp8")
    wanted, multiply = scaled_mm.fp8_linear(x, codes, scale, bias), torch._scaled_mm

    def whole_only(a, b, row_scale, column_scale, **options):
        if row_scale.numel() > 1 or column_scale.numel() > 1:
            raise RuntimeError("Rowwise scaling is not currently supported on your device")
        return multiply(a, b, row_scale, column_scale, **options)

    monkeypatch.setattr(torch, "_scaled_mm", whole_only)
    monkeypatch.setattr(scaled_mm, "chunk_rows", lambda width: 20)
    with fresh_probes():
        assert scaled_mm.has_fp8_matmul(x.device) and not scaled_mm.scales_rows(x.device)
        assert relative_error(scaled_mm.fp8_linear(x, codes, scale, bias).float(), wanted.float()) < 0.0078


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_rows_become_the_nearest_8_bit_codes(kind):
    x = normal("x", (3, 5, 5120)) * normal("size", (3, 5, 1)).exp()
    x[1, 1] = 0
    q = kernels.quantised(x, Quantisation(kind))
    assert isinstance(q, QuantisedRows) and q.shape == x.shape and q.device == CPU and len(q) == 3
    wrong = (q.unpacked() - x).abs()
    # Half a step: of int8 the same everywhere, of fp8 a 16th of the number and for the smallest 2^-10 of the scale.
    assert (wrong <= (q.scale / 2 if kind == "int8" else x.abs() / 16 + q.scale / 1024) * 1.0001).all()
    assert not q.unpacked()[1, 1].any()
    parts = q.split(2, dim=1)
    assert [part.shape[1] for part in parts] == [2, 2, 1] and torch.equal(parts[2].scale, q.scale[:, 4:])


def test_the_operations_have_their_references():
    operations = [getattr(kernels, name) for name in kernels.__all__]
    named = {one.__name__ for one in operations if isinstance(one, Operation)}
    assert named == {
        "add_gated_", "add_gated_norm_modulate_", "fp8_linear", "int8_linear", "norm_modulate", "quantised",
        "rms_norm_", "rms_norm_rope_",
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_card_rounds_to_int8_in_one_pass(dtype):
    """As cards without Triton do it: the same numbers, ties to even."""
    x = torch.cat([normal("x", (33, 320)), torch.arange(-160, 160)[None] / 2, torch.zeros(1, 320)]).to(dtype)
    _, scale = quantise_rows(x)
    scale[-2:] = 1
    codes = quantised_rows._rounded(x, scale)
    assert torch.equal(codes, (x.float() / scale).round().to(torch.int8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_card_scales_sums_in_few_passes(dtype, gelu, bias):
    sums = (1000 * normal("sums", (33, 48))).int()
    for columns in (48, 1):
        given = normal("rows", (33, 1)).abs() / 100, normal("columns", (1, columns)).abs()
        given += (normal("bias", (48,)).to(dtype) if bias else None, gelu)
        few, steps = torch.empty(2, 33, 48, dtype=dtype)
        quantised_rows._put_in_passes(few, sums, *given)
        quantised_rows._put_in_steps(steps, sums, *given)
        assert relative_error(few.float(), steps.float()) < torch.finfo(dtype).eps
    few = torch.empty(33, 48, dtype=dtype)
    quantised_rows._put_in_passes(few, sums.to(dtype), *given)  # as fp8's come
    assert relative_error(few.float(), steps.float()) < 4 * torch.finfo(dtype).eps


def test_half_precision_is_normed_and_rotated_with_one_rounding():
    x, weight, angles = normal("x", (2, 33, 256)), normal("weight", (256,)), normal("angles", (33, 32))
    cos_sin = torch.stack([angles.cos(), angles.sin()], dim=-1)
    half = x.to(torch.bfloat16)
    wanted = kernels.rms_norm_rope_(half.float(), weight, cos_sin, 4, 1e-6)
    own = kernels.rms_norm_rope_(half, weight, cos_sin, 4, 1e-6)
    assert torch.equal(own, wanted.to(torch.bfloat16))
