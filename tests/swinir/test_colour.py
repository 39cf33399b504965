"""Planes to RGB and back lose nothing: facts C1 and C2; and colour stays where it is beside luma."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from swinir.colour import MATRICES, PlaneLayout, alpha_of, planes_to_rgb, rgb_to_planes, threshold
from swinir.resize import resize

SIZE = (31, 45)  # odd both ways


def chroma_size(layout: PlaneLayout) -> tuple[int, int]:
    return -(-SIZE[0] // 2**layout.chroma_y), -(-SIZE[1] // 2**layout.chroma_x)


def random_planes(layout: PlaneLayout) -> list[Tensor]:
    """Every code value, most of them outside the RGB cube."""
    generator = torch.Generator().manual_seed(0)
    small = chroma_size(layout)
    shapes = {"gray": [SIZE], "rgb": [SIZE] * 3, "yuv": [SIZE, small, small]}[layout.kind] + [SIZE] * layout.alpha
    dtype = torch.uint8 if layout.depth == 8 else torch.uint16
    return [torch.randint(0, 2**layout.depth, shape, generator=generator).to(dtype) for shape in shapes]


LAYOUTS = [
    PlaneLayout(kind, depth, x, y, matrix, full, alpha)
    for depth in (8, 9, 10, 12, 14, 16)
    for full in (False, True)
    for kind, x, y, matrix, alpha in [
        *(("yuv", 1, 1, matrix, False) for matrix in MATRICES),
        ("yuv", 1, 0, "bt709", True),
        ("yuv", 0, 0, "bt2020nc", True),
        ("yuv", 0, 1, "bt709", False),
        ("yuv", 2, 0, "bt709", False),
        ("yuv", 2, 2, "smpte170m", False),
        ("gray", 0, 0, "bt709", True),
        ("rgb", 0, 0, "bt709", True),
    ]
]
SITES = [(0.0, 0.5), (0.5, 0.5), (0.0, 0.0), (0.5, 0.0), (None, None)]


def assert_equal(before: list[Tensor], after: list[Tensor]) -> None:
    for a, b in zip(before, after, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a.int(), b.int())


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_c1_an_unchanged_picture_returns_bit_for_bit_wherever_its_chroma_lies(layout: PlaneLayout) -> None:
    planes = random_planes(layout)
    for x, y in SITES if layout.chroma_x or layout.chroma_y else [(None, None)]:
        placed = replace(layout, site_x=x, site_y=y, chroma_kept=True)
        assert_equal(planes, rgb_to_planes(planes_to_rgb(planes, placed), placed, alpha_of(planes, placed)))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_c2_nearest_neighbours_are_the_planes_nearest_neighbours(layout: PlaneLayout) -> None:
    def doubled(plane: Tensor) -> Tensor:
        return plane.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)

    planes = random_planes(layout)
    alpha = alpha_of(planes, layout)
    result = rgb_to_planes(doubled(planes_to_rgb(planes, layout)), layout, None if alpha is None else doubled(alpha))
    for before, after in zip(planes, result, strict=True):
        assert torch.equal(doubled(before.int())[: after.shape[0], : after.shape[1]], after.int())


def test_centred_chroma_is_a_ramp_where_the_samples_are_one_and_never_overshoots() -> None:
    layout = PlaneLayout("yuv", 8, 1, 1, site_x=0.5, site_y=0.5)
    grey = torch.full((8, 16), 126, dtype=torch.uint8)
    ramp = torch.arange(100, 164, 8, dtype=torch.uint8).expand(4, 8)
    step = torch.tensor([100] * 4 + [150] * 4, dtype=torch.uint8).expand(4, 8)
    neutral = torch.full((4, 8), 128, dtype=torch.uint8)

    def blue_difference(chroma: Tensor) -> Tensor:
        """The U that each pixel was given, in code values."""
        rgb = planes_to_rgb([grey, chroma, neutral], layout)
        return rgb_to_planes(rgb, PlaneLayout("yuv", 8))[1][3].float()

    assert torch.equal(blue_difference(ramp)[2:-2].diff(), torch.full((11,), 4.0))
    assert torch.equal(blue_difference(step), torch.tensor([100.0] * 8 + [150.0] * 8))


def edge_position(profile: Tensor, positions: Tensor) -> float:
    """Where a rising edge is: the mean position of its slope."""
    slope = profile.diff()
    return float(((positions[1:] + positions[:-1]) / 2 * slope).sum() / slope.sum())


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("shift", [1, 2])
@pytest.mark.parametrize("site", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dim", [0, 1])
def test_a_coloured_edge_stays_on_its_luma_edge_to_a_twentieth_of_a_pixel(
    dim: int, site: float, shift: int, scale: int
) -> None:
    """The picture is drawn as a function, and each plane is sampled from it where its samples lie."""
    size, block = 96, 2**shift
    where = {"site_x": site, "chroma_x": shift} if dim == 1 else {"site_y": site, "chroma_y": shift}
    layout = PlaneLayout("yuv", 16, matrix="bt709", full_range=True, **where)

    def places(length: int, layout: PlaneLayout) -> Tensor:
        return torch.arange(length, dtype=torch.float64) * block + site * (block - 1)

    def drawn(at: Tensor) -> Tensor:
        return torch.sigmoid((at - 47.3) / 4) * 20000 + 20000

    def plane(profile: Tensor) -> Tensor:
        codes = profile.round().to(torch.int32).to(torch.uint16)
        return codes.expand(8, -1) if dim == 1 else codes[:, None].expand(-1, 8)

    luma, chroma = torch.arange(size, dtype=torch.float64), places(size // block, layout)
    rgb = planes_to_rgb([plane(drawn(luma)), plane(drawn(chroma)), plane(drawn(chroma))], layout)

    y, u, v = rgb_to_planes(resize(rgb, scale), replace(layout, chroma_kept=scale == 1))

    profiles = [p.double()[4] if dim == 1 else p.double()[:, 4] for p in (y, u, v)]
    luma_edge = edge_position(profiles[0], torch.arange(size * scale, dtype=torch.float64))
    assert luma_edge == pytest.approx((47.3 + 0.5) * scale - 0.5, abs=0.05)
    for profile in profiles[1:]:
        assert edge_position(profile, places(len(profile), layout)) == pytest.approx(luma_edge, abs=0.05)


def test_primary_red_has_the_code_values_of_the_standard() -> None:
    red = torch.zeros(3, 2, 2)
    red[0] = 1
    y, u, v = rgb_to_planes(red, PlaneLayout("yuv", 8, 0, 0, "bt709"))
    assert (int(y[0, 0]), int(u[0, 0]), int(v[0, 0])) == (63, 102, 240)  # ITU-R BT.709, 8 bit, limited range
    y, cg, co = rgb_to_planes(red, PlaneLayout("yuv", 8, 0, 0, "ycgco", full_range=True))
    assert (int(y[0, 0]), int(cg[0, 0]), int(co[0, 0])) == (64, 64, 255)  # H.273 equations 58 to 60: 1/4, -1/4, 1/2


def test_the_input_is_not_clamped_and_the_result_once_in_the_code_domain() -> None:
    layout = PlaneLayout("gray", 8)
    assert planes_to_rgb([torch.full((2, 2), 254, dtype=torch.uint8)], layout).max() > 1
    assert planes_to_rgb([torch.zeros((2, 2), dtype=torch.uint8)], layout).min() < 0
    assert int(rgb_to_planes(torch.full((3, 2, 2), 9.0), layout)[0].max()) == 255
    assert int(rgb_to_planes(torch.full((3, 2, 2), -9.0), layout)[0].max()) == 0
    assert int(rgb_to_planes(torch.full((3, 2, 2), 254 / 219 - 16 / 219), layout)[0].max()) == 254  # super-white stays


def test_halves_are_rounded_to_even() -> None:
    halves = torch.arange(100, dtype=torch.float32) + 0.5
    codes, *_ = rgb_to_planes((halves / 255).expand(3, 1, 100), PlaneLayout("rgb", 8, full_range=True))
    exact = (halves / 255 * 255) == halves  # of those that are halves still
    assert exact.sum() > 50
    assert torch.equal(codes[0][exact].int(), halves.round().int()[exact])
    assert (codes[0][exact] % 2 == 0).all()


def test_dither_keeps_the_mean_and_whole_codes_and_differs_by_frame_and_plane() -> None:
    layout = PlaneLayout("yuv", 8, full_range=True)
    for level in (100.0, 100.25, 100.5, 100.9):
        picture = torch.full((3, 64, 64), level / 255)
        y, u, _ = rgb_to_planes(picture, layout, dither=7)
        assert float(y.double().mean()) == pytest.approx(level, abs=0.01)
        assert int(u.max()) - int(u.min()) <= 1
        assert set(y.unique().tolist()) <= {int(level), int(level) + 1}
    again = rgb_to_planes(picture, layout, dither=7)[0]
    assert torch.equal(y, again)
    assert not torch.equal(y, rgb_to_planes(picture, layout, dither=8)[0])
    patterns = [threshold(64, 64, 0, plane, torch.device("cpu")) for plane in range(3)]
    assert all(float(p.min()) >= -0.5 and float(p.max()) < 0.5 and abs(float(p.mean())) < 1e-2 for p in patterns)
    assert not torch.equal(patterns[0], patterns[1])


def test_without_an_alpha_of_its_own_a_picture_is_opaque() -> None:
    planes = rgb_to_planes(torch.zeros(3, 2, 2), PlaneLayout("yuv", 10, alpha=True))
    assert planes[3].int().unique().tolist() == [1023]
