"""Planes to RGB and back lose nothing: facts C1 and C2."""

import pytest
import torch

from swinir.colour import MATRICES, PlaneLayout, planes_to_rgb, rgb_to_planes

SIZE = (31, 45)  # odd both ways


def random_planes(layout: PlaneLayout) -> list[torch.Tensor]:
    """Every code value, most of them outside the RGB cube."""
    generator = torch.Generator().manual_seed(0)
    chroma = tuple(-(-size // 2**shift) for size, shift in zip(SIZE, (layout.chroma_y, layout.chroma_x), strict=True))
    shapes = [SIZE] if layout.kind == "gray" else [SIZE, chroma, chroma]
    dtype = torch.uint8 if layout.depth == 8 else torch.uint16
    return [torch.randint(0, 2**layout.depth, shape, generator=generator).to(dtype) for shape in shapes]


LAYOUTS = [
    PlaneLayout(kind, depth, x, y, matrix, full)
    for depth in (8, 10, 12)
    for full in (False, True)
    for kind, x, y, matrix in [
        *(("yuv", 1, 1, matrix) for matrix in MATRICES),
        ("yuv", 1, 0, "bt709"),
        ("yuv", 0, 0, "bt2020nc"),
        ("yuv", 2, 0, "bt709"),
        ("gray", 0, 0, "bt709"),
    ]
] + [PlaneLayout("rgb", 8), PlaneLayout("rgb", 10)]


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_an_unchanged_picture_returns_bit_for_bit(layout: PlaneLayout, smooth: bool) -> None:
    planes = random_planes(layout)
    for before, after in zip(planes, rgb_to_planes(planes_to_rgb(planes, layout, smooth), layout), strict=True):
        assert before.dtype == after.dtype
        assert torch.equal(before.int(), after.int())


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_nearest_neighbours_are_the_planes_nearest_neighbours(layout: PlaneLayout) -> None:
    planes = random_planes(layout)
    rgb = planes_to_rgb(planes, layout).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    for before, after in zip(planes, rgb_to_planes(rgb, layout), strict=True):
        wanted = before.int().repeat_interleave(2, dim=0).repeat_interleave(2, dim=1)[: after.shape[0], : after.shape[1]]
        assert torch.equal(wanted, after.int())


def test_smooth_chroma_is_a_ramp_where_the_samples_are_one_and_never_overshoots() -> None:
    layout = PlaneLayout("yuv", 8, 1, 1)
    grey = torch.full((8, 16), 126, dtype=torch.uint8)
    ramp = torch.arange(100, 164, 8, dtype=torch.uint8).expand(4, 8)
    step = torch.tensor([100] * 4 + [150] * 4, dtype=torch.uint8).expand(4, 8)
    neutral = torch.full((4, 8), 128, dtype=torch.uint8)

    def blue_difference(chroma: torch.Tensor) -> torch.Tensor:
        """The U that each pixel was given, in code values."""
        rgb = planes_to_rgb([grey, chroma, neutral], layout, smooth_chroma=True)
        return rgb_to_planes(rgb, PlaneLayout("yuv", 8))[1][3].float()

    assert torch.equal(blue_difference(ramp)[2:-2].diff(), torch.full((11,), 4.0))
    assert torch.equal(blue_difference(step), torch.tensor([100.0] * 8 + [150.0] * 8))


def test_primary_red_has_the_code_values_of_the_standard() -> None:
    red = torch.zeros(3, 2, 2)
    red[0] = 1
    y, u, v = rgb_to_planes(red, PlaneLayout("yuv", 8, 0, 0, "bt709"))
    assert (int(y[0, 0]), int(u[0, 0]), int(v[0, 0])) == (63, 102, 240)  # ITU-R BT.709, 8 bit, limited range


def test_what_lies_beyond_white_is_clamped_once_at_the_end() -> None:
    layout = PlaneLayout("gray", 8)
    assert planes_to_rgb([torch.full((2, 2), 254, dtype=torch.uint8)], layout).max() > 1
    assert int(rgb_to_planes(torch.full((3, 2, 2), 9.0), layout)[0].max()) == 255
