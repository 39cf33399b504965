"""Pictures go in and come out larger, in the same type and layout, the same bytes however they are batched."""

import pickle
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import SMALL, as_tensor, network, picture, psnr
from torch import nn

from swinir.checkpoint import to_bytes, weights_digest
from swinir.cpu.blocks import multiplies_bfloat16
from swinir.model import SwinIRConfig
from swinir.resize import resize
from swinir.reuse import TileMemory
from swinir.spec import ModelSpec, load_spec
from swinir.tiling import kept_weights
from swinir.upscaler import Upscaler
from swinir.windows import window_layout


def tiny_spec(**changes) -> ModelSpec:
    state = network().state_dict()
    given = {"precision": "fp32", "tile": 64} | changes
    config = SwinIRConfig(**SMALL)
    return ModelSpec(
        name="tiny-x2", scale=2, config=config, weights=to_bytes(state), weights_sha256=weights_digest(state), **given
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(9, 12, 3), (9, 12), (2, 9, 12, 3)])
@pytest.mark.parametrize("model", ["identity", "nearest-x2", "nearest-x3"])
def test_baselines_repeat_pixels_exactly(model, shape, dtype):
    up = Upscaler(model)
    lr = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype)
    rows, columns = (1, 2) if len(shape) == 4 else (0, 1)
    expected = lr.repeat(up.scale, axis=rows).repeat(up.scale, axis=columns)
    out = up(lr)
    assert out.dtype == dtype
    assert np.array_equal(out, expected)
    assert (up.weights_sha256, up.in_chans, up.name) == ("", 0, model)


def test_pictures_may_lie_in_memory_in_any_order():
    lr = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    upscaler = Upscaler("nearest-x2", device="cpu")
    fields = np.zeros((5, 7), [("x", np.uint8), ("rgb", np.uint16, 3)])
    fields["rgb"] = lr
    for view in (lr[..., ::-1], lr[::-1], lr[:, ::-2], fields["rgb"]):
        assert np.array_equal(upscaler(view), upscaler(view.copy()))


def test_nearest_in_tiles_copies_every_float():
    x = torch.randn(1, 4, 300, 170)
    assert torch.equal(Upscaler("nearest-x2", tile=64).upscale(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(Upscaler("identity", tile=64).upscale(x), x)


def test_bicubic_in_tiles_is_bicubic():
    x = torch.rand(1, 3, 150, 130)
    torch.testing.assert_close(Upscaler("bicubic-x3", tile=64).upscale(x), resize(x, 3), rtol=0, atol=1e-6)


def test_nothing_is_clamped_on_floats_and_everything_on_codes():
    up = Upscaler("bicubic-x2")
    x = torch.tensor([-0.2, -0.2, -0.2, 1.3, 1.3, 1.3]).expand(1, 3, 6, 6)
    y = up.upscale(x)
    assert y.min() < -0.2
    assert y.max() > 1.3
    edge = np.repeat(np.array([[0, 0, 0, 255, 255, 255]], np.uint8), 6, axis=0)
    assert (up(edge).min(), up(edge).max()) == (0, 255)


def test_codes_are_rounded_half_to_even():
    class Half(nn.Module):
        def forward(self, x):
            return x + 0.5 / 255

    up = Upscaler.from_network(Half(), scale=1, window=1)
    assert up(np.array([[0, 4, 254]], np.uint8)).tolist() == [[0, 4, 254]]


def test_a_spec_survives_the_wire_and_gives_the_same_bytes():
    spec = tiny_spec()
    lr = picture(70, 90)
    up = Upscaler.from_spec(pickle.loads(pickle.dumps(spec)), "cpu")
    assert np.array_equal(up(lr), Upscaler.from_spec(spec, "cpu")(lr))
    assert (up.scale, up.name, up.weights_sha256, up.in_chans) == (2, "tiny-x2", spec.weights_sha256, 3)
    assert (up.precision, up.tile, up.device.type) == ("fp32", 64, "cpu")


@pytest.mark.parametrize("batch", [1, 4])
def test_an_image_comes_out_the_same_whatever_it_is_batched_with(batch):
    up = Upscaler.from_spec(tiny_spec(), batch=batch)
    frames = np.stack([picture(40, 90, seed) for seed in range(5)])
    together = up(frames)
    alone = np.stack([up(frame) for frame in frames])
    assert np.array_equal(together, alone)
    assert np.array_equal(up(frames[::-1].copy())[::-1], together)


def test_batches_always_have_the_same_shape(monkeypatch):
    shapes = []

    class Watch(nn.Module):
        def forward(self, x):
            shapes.append(tuple(x.shape))
            return x

    up = Upscaler.from_network(Watch(), scale=1, tile=32, batch=4)
    up.upscale(torch.rand(3, 3, 60, 90))
    assert set(shapes) == {(4, 3, 32, 32)}
    monkeypatch.setattr("swinir.upscaler.BATCH_PIXELS", 2 * 32 * 32)
    shapes.clear()
    up.upscale(torch.rand(3, 3, 60, 90))
    assert set(shapes) == {(2, 3, 32, 32)}


def test_grey_pictures_through_rgb_models_and_rgb_through_grey_ones():
    rgb_model = Upscaler.from_spec(tiny_spec())
    grey = picture(24, 40)[..., 0]
    as_rgb = rgb_model.upscale(as_tensor(np.repeat(grey[..., None], 3, axis=2)))
    torch.testing.assert_close(rgb_model.upscale(torch.from_numpy(grey)[None, None] / 255), as_rgb.mean(1, keepdim=True))
    assert rgb_model(grey).shape == (48, 80)

    grey_network = network(in_chans=1)
    grey_model = Upscaler.from_network(grey_network, scale=2, in_chans=1, precision="fp32")
    x = torch.rand(2, 3, 24, 40)
    separate = torch.cat([grey_model.upscale(x[:, c : c + 1]) for c in range(3)], dim=1)
    torch.testing.assert_close(grey_model.upscale(x), separate, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("lr", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "uint8 or uint16, got float32"),
        (np.zeros((4, 4, 4), np.uint8), r"got \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
    ],
)
def test_what_is_no_picture_is_refused(lr, message):
    with pytest.raises(ValueError, match=message):
        Upscaler.from_spec(tiny_spec())(lr)


@pytest.mark.parametrize("lr", [Image.new("RGB", (4, 4)), torch.zeros(4, 4, 3, dtype=torch.uint8), [[[0, 0, 0]]], None])
def test_what_is_no_array_is_refused_with_what_to_do(lr):
    with pytest.raises(TypeError, match=rf"got {type(lr).__name__}; use np\.asarray, or upscale\(\) for tensors"):
        Upscaler("nearest-x2", device="cpu")(lr)


@pytest.mark.parametrize("x", [torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.int64), torch.zeros(1, 3, 8, 8) > 0])
def test_what_is_no_tensor_of_images_is_refused(x):
    with pytest.raises(ValueError, match=r"images are \(N, C, H, W\), floats or codes in uint8 or uint16, got"):
        Upscaler("nearest-x2", device="cpu").upscale(x)


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


CALLERS = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference": torch.inference_mode,
}


@pytest.mark.parametrize("caller", CALLERS)
def test_what_the_caller_has_set_for_pytorch_changes_nothing(caller):
    lr, spec = picture(70, 90), tiny_spec()
    kept_weights.cache_clear()
    window_layout.cache_clear()
    with CALLERS[caller]():
        there = Upscaler.from_spec(spec, "cpu")
        result = there(lr)
    assert np.array_equal(there(lr), result)
    here = Upscaler.from_spec(spec, "cpu")
    assert there.engine == here.engine
    assert np.array_equal(here(lr), result)


@pytest.mark.parametrize("chans", [2, 4])
def test_other_numbers_of_channels_are_refused(chans):
    with pytest.raises(ValueError, match=f"works on 3 channels, got {chans}"):
        Upscaler.from_spec(tiny_spec()).upscale(torch.rand(1, chans, 8, 8))


class Overflows(nn.Module):
    """Gives what is not finite for the first ``times`` tiles it sees."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, x):
        self.times -= 1
        return x / 0 if self.times >= 0 else x


def test_a_tile_that_is_not_finite_is_computed_again_in_float32_and_counted():
    up = Upscaler.from_network(Overflows(0), scale=1, tile=32)
    up._network = Overflows(1)
    x = torch.rand(1, 3, 60, 60) + 0.1
    torch.testing.assert_close(up.upscale(x), x)
    assert up.nonfinite_tiles == 1


def test_what_is_not_finite_in_float32_either_is_an_error():
    with pytest.raises(FloatingPointError, match="even in fp32"):
        Upscaler.from_network(Overflows(9), scale=1).upscale(torch.rand(1, 3, 8, 8) + 0.1)


def test_bfloat16_is_close_to_float32():
    x = as_tensor(picture(70, 90))
    exact, fast = (Upscaler.from_spec(tiny_spec(precision=p)).upscale(x) for p in ("fp32", "bf16"))
    assert psnr(exact, fast) > 45
    assert not torch.equal(exact, fast)


def test_the_result_can_be_changed_in_place():
    Upscaler.from_spec(tiny_spec()).upscale(torch.rand(1, 3, 8, 8)).mul_(2)


class Last(nn.Module):
    """Keeps the last that ``network`` gave."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.given = network, torch.empty(0)

    def forward(self, x):
        self.given = self.network(x).contiguous()
        return self.given


def test_what_a_swinir_gives_for_a_whole_picture_is_the_result():
    up = Upscaler.from_network(network(), scale=2, device="cpu", precision="fp32")
    up._network = last = Last(network())
    result, factor = up.upscale(torch.rand(1, 3, 16, 24)), torch.ones(1, requires_grad=True)
    assert result.data_ptr() == last.given.data_ptr()
    result.mul_(factor).sum().backward()  # it takes part in gradients, as any tensor does
    for x, memory in ((torch.rand(1, 3, 15, 24), None), (torch.rand(1, 3, 16, 24), TileMemory())):
        result = up.upscale(x, memory)
        assert result.is_contiguous()
        assert result.untyped_storage().data_ptr() != last.given.untyped_storage().data_ptr()


def test_a_result_holds_no_more_memory_than_it_needs():
    up = Upscaler.from_network(network(), scale=2, device="cpu", precision="fp32", batch=4)
    up._network = Last(network())
    result = up.upscale(torch.rand(1, 3, 16, 24))
    assert result.untyped_storage().nbytes() == result.nbytes


def test_a_network_may_give_the_same_tensor_again():
    class Same(nn.Module):
        kept = torch.empty(1, 3, 16, 24)

        def forward(self, x):
            return self.kept.copy_(x)

    up = Upscaler.from_network(Same(), scale=1, device="cpu")
    results = [up.upscale(torch.full((1, 3, 16, 24), value)) for value in (0.25, 0.5)]
    assert [float(result.mean()) for result in results] == [0.25, 0.5]


def test_one_tile_alone_is_not_copied_and_yet_the_result_is_the_callers_own():
    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            seen.append(x.data_ptr())
            return x

    up, x = Upscaler.from_network(Watch(), scale=1, device="cpu"), torch.rand(1, 3, 16, 24)
    up.stream(x, lambda top, band: seen.append(band.data_ptr()))
    assert seen == [x.data_ptr(), x.data_ptr()]
    before = x.clone()
    up.upscale(x).mul_(2)
    assert torch.equal(x, before)


def test_threads_may_share_one(small_network):
    up = Upscaler.from_spec(tiny_spec())
    frames = [picture(40, 70, seed) for seed in range(4)]
    expected = [up(frame) for frame in frames]
    found = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: up(frames[i])})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[i], expected[i]) for i in range(4))


def test_random_weights_make_a_whole_preset_usable():
    up = Upscaler("lightweight-x3", weights="random", precision="fp32")
    assert up(np.zeros((8, 8, 3), np.uint8)).shape == (24, 24, 3)
    assert len(up.weights_sha256) == 64


def test_settings_that_cannot_be_are_one_line():
    with pytest.raises(ValueError, match="did you mean 'real-x4'"):
        load_spec("reel-x4")
    with pytest.raises(ValueError, match="precision must be one of auto, fp32, bf16, got 'fp16'"):
        load_spec("identity", precision="fp16")
    with pytest.raises(ValueError, match="tile must be at least 1"):
        load_spec("identity", tile=0)


@pytest.mark.skipif(not multiplies_bfloat16(), reason="the processor or the compiler does not multiply bfloat16")
def test_bf16_is_computed_by_the_compiled_blocks():
    upscaler = Upscaler.from_network(network(embed_dim=72), scale=2, device="cpu", precision="bf16")
    assert (upscaler.engine, upscaler.precision) == ("compiled blocks", "bf16")


def test_importing_the_package_does_not_import_torch():
    code = "import swinir, sys; assert 'torch' not in sys.modules; swinir.SwinIRConfig; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_opening_a_model_does_not_import_pytorchs_compiler():
    """Which takes a second, on some machines several, in every process."""
    code = "import swinir, sys; swinir.Upscaler(device='cpu'); assert not {'torch._dynamo', 'sympy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
def test_on_a_gpu_tiles_are_halved_until_memory_holds_them():
    model, x = network(embed_dim=60, num_heads=(6, 6)), torch.rand(1, 3, 1000, 900)
    whole = Upscaler.from_network(model, scale=2, device="cuda", precision="fp32", tile=1024).upscale(x)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.5 * 2**30 / torch.cuda.get_device_properties("cuda").total_memory)
    try:
        up = Upscaler.from_network(model, scale=2, device="cuda", precision="fp32", tile=1024)
        tiled = up.upscale(x)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert up.tile < 1024
    assert psnr(tiled, whole) > 50


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_on_a_gpu_pictures_come_out_as_on_a_cpu(dtype):
    lr = picture(70, 90).astype(dtype) * (np.iinfo(dtype).max // 255)
    near, far = (Upscaler.from_spec(tiny_spec(), device)(lr).astype(np.float64) for device in ("cpu", "cuda"))
    assert np.abs(near - far).max() <= 2 * (np.iinfo(dtype).max // 255)
