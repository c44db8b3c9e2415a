"""ComfyUI's VAE as the pack runs it: precision, pieces, tiles, interrupts and memory that does not suffice."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from pack.dev.samples.tiny_models import write_vae
from pack.tests.support.out_of_memory import OUT_OF_MEMORY

pytestmark = pytest.mark.usefixtures("computes_in_float32")

FRAMES = 9
SIZE = (64, 96)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return load_file(write_vae(tmp_path_factory.mktemp("vae") / "vae.safetensors"))


@pytest.fixture(scope="module")
def vae(comfyui, weights):
    return loaded(weights)


@pytest.fixture
def own(pack_nodes):
    return pack_nodes.module("nodes.encoders.vae")


def loaded(weights, dtype=torch.float32):
    import comfy.sd

    return comfy.sd.VAE(sd=dict(weights), dtype=dtype)


def picture(frames=FRAMES, size=SIZE, seed=0):
    """A smooth moving picture [1, 3, F, H, W] in [-1, 1]."""
    coarse = torch.randn(1, 3, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (frames, *size), mode="trilinear").clamp(-1, 1)


def noise(latents, size=SIZE):
    return torch.randn(1, 16, latents, size[0] // 8, size[1] // 8, generator=torch.Generator().manual_seed(1))


def error(got, wanted):
    return float((got.detach().float() - wanted.detach().float()).norm() / wanted.detach().float().norm())


def psnr(got, wanted):
    return float(10 * torch.log10(4 / (got - wanted).square().mean()))


def comfyuis(own, vae, latents):
    return vae.decode(own.LATENT_FORMAT.process_out(latents)).movedim(-1, 1).mul(2).sub(1)


@pytest.mark.parametrize("latents", [1, 2, 4])
def test_decoded_as_comfyui_does(own, vae, latents):
    pieces = list(own.decoder(vae)(noise(latents)))
    assert [piece.shape[2] for piece in pieces] == [1] + [4] * (latents - 1)
    got, wanted = torch.cat(pieces, dim=2).clamp(-1, 1), comfyuis(own, vae, noise(latents))
    assert got.shape == wanted.shape and got.dtype == torch.float32
    assert error(got, wanted) < 1e-5


@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
@pytest.mark.parametrize(
    ("shape", "kernel", "stride"),
    [
        ((12, 5, 16, 24), (3, 3, 3), 1),
        ((12, 6, 9, 7), (3, 1, 1), 2),
        ((12, 2, 9, 7), (3, 3, 3), 1),  # fewer frames than the kernel has: the last part of it
        ((96, 4, 64, 8), (3, 3, 3), 1),  # large enough for torch's own
    ],
)
def test_small_frames_are_convolved_as_large_ones_are(own, shape, kernel, stride, layout):
    convolved, generator = own.versions.convolved, torch.Generator().manual_seed(2)
    x = torch.randn(1, *shape, generator=generator).contiguous(memory_format=layout)
    weight, bias = torch.randn(8, shape[0], *kernel, generator=generator), torch.randn(8, generator=generator)
    padding = (0, kernel[1] // 2, kernel[2] // 2)
    wanted = F.conv3d(x, weight[:, :, -shape[1] :], bias, (stride, 1, 1), padding)
    got = convolved(x, weight, bias, (stride, 1, 1), padding)
    assert got.shape == wanted.shape and error(got, wanted) < 1e-6
    assert got.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("frames", [1, 5, FRAMES])
def test_encoded_as_comfyui_does(own, vae, frames):
    video = picture(frames)
    wanted = own.LATENT_FORMAT.process_in(vae.encode((video[0].permute(1, 2, 3, 0) + 1) / 2))
    got = own.encoder(vae)(video)
    assert got.shape == wanted.shape and error(got, wanted) < 1e-5


def test_frames_at_once_change_nothing(own, vae, monkeypatch):
    whole, clean = torch.cat(list(own.decoder(vae)(noise(3))), dim=2), own.encoder(vae)(picture())
    for at_once in (2, 1):
        use(monkeypatch, own, at_once=at_once)
        pieces = list(own.decoder(vae)(noise(3)))
        assert max(piece.shape[2] for piece in pieces) == at_once
        assert error(torch.cat(pieces, dim=2), whole) < 1e-5
        assert error(own.encoder(vae)(picture()), clean) < 1e-5


def test_encoding_is_float32_in_a_bfloat16_vae(own, weights):
    low = loaded(weights, torch.bfloat16)
    high = loaded({name: weight.bfloat16().float() for name, weight in weights.items()})
    assert torch.equal(own.encoder(low)(picture()), own.encoder(high)(picture()))
    assert {parameter.dtype for parameter in low.first_stage_model.parameters()} == {torch.bfloat16}
    frames = torch.cat(list(own.decoder(low)(noise(3))), dim=2)
    assert frames.dtype == torch.float32
    assert psnr(frames, torch.cat(list(own.decoder(high)(noise(3))), dim=2)) > 40, "decoded as it was loaded"


def test_an_interrupt_stops_between_latents(own, vae):
    import comfy.model_management as management

    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        own.encoder(vae)(picture())
    pieces = own.decoder(vae)(noise(3))
    assert next(pieces).shape[2] == 1
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        next(pieces)


def test_no_seam_between_tiles(own, vae, monkeypatch):
    size = (224, 352)
    video = picture(5, size)
    latents = own.encoder(vae)(video)
    whole = torch.cat(list(own.decoder(vae)(latents)), dim=2)
    use(monkeypatch, own, rows=2, columns=2)
    assert psnr(torch.cat(list(own.decoder(vae)(latents)), dim=2), whole) > 45
    # Latents have a deviation of one; their error is as one of pixels then.
    assert psnr(own.encoder(vae)(video), latents) > 40


def test_out_of_memory_takes_smaller_parts(own, vae, pack_nodes, monkeypatch, caplog):
    host = pack_nodes.module("nodes.versions")
    whole, clean = torch.cat(list(own.decoder(vae)(noise(3))), dim=2), own.encoder(vae)(picture())
    convolve, calls = host.convolve, []

    def scarce(fails):
        """Runs out of memory at the calls that are named."""

        def run(*args):
            calls.append(None)
            if len(calls) in fails:
                raise OUT_OF_MEMORY["cudnn"]
            return convolve(*args)

        calls.clear()
        monkeypatch.setattr(host, "convolve", run)

    scarce({60})  # in the second latent frame: the first has been handed out
    pieces = list(own.decoder(vae)(noise(3)))
    assert error(torch.cat(pieces, dim=2), whole) < 1e-5
    assert len(caplog.records) == 1 and "did not suffice to decode" in caplog.text
    caplog.clear()
    scarce({30})
    assert error(own.encoder(vae)(picture()), clean) < 1e-5
    assert len(caplog.records) == 1 and "did not suffice to encode" in caplog.text
    caplog.clear()
    scarce(range(10**6))  # until nothing smaller is left
    with pytest.raises(RuntimeError, match="WORKSPACE"):
        list(own.decoder(vae)(noise(3)))
    caplog.clear()
    sizes = [own.Tiling(SIZE[0] // 8, SIZE[1] // 8, 1, 1, at_once, size) for at_once, size in ((4, 9), (2, 6), (1, 4))]
    monkeypatch.setattr(own.TiledVae, "tilings", lambda self: iter(sizes))
    scarce({60, 110})
    assert error(torch.cat(list(own.decoder(vae)(noise(3))), dim=2), whole) < 1e-5
    assert [record.args[-1] for record in caplog.records] == [2, 1]


def test_other_errors_are_not_tried_again(own, vae, pack_nodes, monkeypatch):
    calls = []

    def broken(*_):
        calls.append(None)
        raise RuntimeError("broken")

    monkeypatch.setattr(pack_nodes.module("nodes.versions"), "convolve", broken)
    with pytest.raises(RuntimeError, match="broken"):
        list(own.decoder(vae)(noise(1)))
    assert len(calls) == 1


def test_a_vae_of_other_pictures_is_refused(own, vae, pack_nodes, monkeypatch):
    error = pack_nodes.module("skyreels_v3.errors").InputError
    monkeypatch.setattr(vae.first_stage_model.encoder.conv1, "in_channels", 4)
    with pytest.raises(error, match="4 channels"):
        own.encoder(vae)


def test_the_plan_names_bytes_and_tiles(own, vae, pack_nodes, monkeypatch):
    import comfy.model_management as management

    plan, plans = pack_nodes.module("nodes.jobs.plan"), pack_nodes.module("skyreels_v3.jobs.estimates.budget")
    size = plans.Size(1280, 720, 121, 31, 0)
    (line,) = plan.beside_the_model(size, vae, None)
    assert line.startswith("VAE: decode ") and ", encode " in line and "tiles" not in line
    taken = management.extra_reserved_memory() + vae.patcher.model_size()
    monkeypatch.setattr(management, "get_total_memory", lambda device: int(0.9e9) + taken)
    (line,) = plan.beside_the_model(size, vae, None)
    tiling = own.TiledVae(vae, own.Direction.DECODE, 90, 160).planned()
    assert f"{tiling.bytes / 1e9:.1f} GB in {tiling.columns} x {tiling.rows} tiles" in line
    assert tiling.bytes <= 0.9e9


def use(monkeypatch, own, rows=1, columns=1, at_once=4):
    monkeypatch.setattr(
        own.TiledVae, "ready", lambda self: own.Tiling(self.height, self.width, rows, columns, at_once, 0)
    )


def test_what_is_computed_in_float32_has_all_its_digits(own, vae, pack_nodes, monkeypatch):
    host, flags = pack_nodes.module("nodes.versions"), []
    convolve = host.convolve
    monkeypatch.setattr(
        host, "convolve", lambda *args: flags.append(torch.backends.cudnn.allow_tf32) or convolve(*args)
    )
    before = torch.backends.cudnn.allow_tf32
    own.encoder(vae)(picture())
    assert before and not any(flags) and torch.backends.cudnn.allow_tf32 == before
