"""Test sets in the layouts that people keep them in."""

import numpy as np
import pytest
from PIL import Image

from jobs.datasets import ALIASES, USUAL, Pair, find_dataset, pair_images, read_image, title_of, usual_datasets
from pipeline.errors import ConfigError, MediaError


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("layout", ["HR", "GTmod12", "original", "HR_mod2", "."])
def test_originals_are_found_where_they_usually_lie(tmp_path, layout):
    image = put(tmp_path / "Set5" / layout / "baby.png")
    assert find_dataset("Set5", tmp_path, 2) == ("Set5", [Pair(None, image)])
    assert find_dataset(str(tmp_path / "Set5"), None, 2) == ("Set5", [Pair(None, image)])


@pytest.mark.parametrize("layout", ["LR_bicubic/X2", "LRbicx2"])
def test_small_images_are_taken_where_they_are_for_enlarging_alone(tmp_path, layout):
    large, small = put(tmp_path / "Set5/HR/baby.png"), put(tmp_path / "Set5" / layout / "babyx2.png")
    assert find_dataset("Set5", tmp_path, 2).pairs == [Pair(small, large)]
    assert find_dataset("Set5", tmp_path, 3).pairs == [Pair(None, large)]
    assert find_dataset("Set5", tmp_path, 1).pairs == [Pair(None, large)]


def test_what_macos_writes_beside_an_image_is_none(tmp_path):
    image = put(tmp_path / "Set5" / "baby.png")
    image.with_name("._baby.png").write_bytes(b"Mac OS X")
    assert find_dataset("Set5", tmp_path, 2).pairs == [Pair(None, image)]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("LR/a.png", "HR/a.png", "HR/b.png", "HR/c.png"), "HR holds images without a small one in .*LR: b.png, c.png; put"),
        (("LR/0.png", *(f"HR/{i}.png" for i in range(8))), "LR: 1.png, 2.png, 3.png, 4.png, 5.png and 2 more; put"),
        (("LR/a.png", "LR/b.png", "HR/a.bmp", "HR/a.png", "HR/b.png"), r"HR/a\.bmp and a\.png are both images of a; take one"),
        (("LR/a.png", "LR/ax2.png", "HR/a.png"), r"LR/a\.png and ax2\.png are both images of a; take one"),
        (("LR/a.png", "LR/b.png", "HR/a.png"), "LR/b.png has no counterpart in .*HR: an image called b"),
    ],
)
def test_what_is_not_one_small_image_for_each_large_one_is_refused(tmp_path, names, says):
    for name in names:
        put(tmp_path / name)
    with pytest.raises(ConfigError, match=says):
        pair_images(tmp_path / "LR", tmp_path / "HR")


def test_originals_of_the_scale_are_chosen(tmp_path):
    images = {scale: put(tmp_path / f"Set14/HR_mod{scale}/a.png") for scale in (2, 3)}
    assert find_dataset("Set14", tmp_path, 3).pairs == [Pair(None, images[3])]


@pytest.mark.parametrize("kept_as", ["B100", "BSDS100", "bsd100"])
@pytest.mark.parametrize("asked", ["BSD100", "b100"])
def test_a_set_of_several_names_is_one(tmp_path, kept_as, asked):
    put(tmp_path / kept_as / "a.png")
    assert find_dataset(asked, tmp_path, 2).name == "BSD100"


def test_any_other_folder_is_a_set_of_its_own_name(tmp_path):
    put(tmp_path / "mine" / "a.png")
    assert find_dataset("mine", tmp_path, 2).name == "mine"
    assert title_of(tmp_path / "mine" / "HR") == "mine"


def test_the_usual_sets_of_a_task_are_those_that_are_there(tmp_path):
    for name in ("Set14", "Set5", "classic5"):
        put(tmp_path / name / "a.png")
    assert [name for name, _ in usual_datasets("sr", tmp_path, 2)] == ["Set5", "Set14"]
    assert [name for name, _ in usual_datasets("grey jpeg", tmp_path, 1)] == ["classic5"]
    with pytest.raises(ConfigError, match="holds none of CBSD68, Kodak24"):
        usual_datasets("colour noise", tmp_path, 1)
    with pytest.raises(ConfigError, match="is not a folder; --datasets"):
        usual_datasets("sr", tmp_path / "nowhere", 2)


def test_other_names_are_of_sets_that_are_known():
    assert set(ALIASES) <= {name for names in USUAL.values() for name in names}


def test_what_cannot_be_found_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"Set5 is not a folder.*say by --datasets"):
        find_dataset("Set5", None, 2)
    with pytest.raises(ConfigError, match=f"there is none under {tmp_path}"):
        find_dataset("Set5", tmp_path, 2)
    (tmp_path / "Set5").mkdir()
    with pytest.raises(ConfigError, match="holds no images"):
        find_dataset("Set5", tmp_path, 2)


def test_pictures_may_be_of_any_mode(tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png", keep_grey=False).shape == (4, 5, 3)
    assert read_image(tmp_path / "grey.png", keep_grey=True).shape == (4, 5)
    assert read_image(put(tmp_path / "rgb.png"), keep_grey=True).shape == (12, 12, 3)
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png", keep_grey=True).tolist() == [[0, 1, 255]]
    Image.fromarray(np.zeros((4, 5), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(MediaError, match=r"float\.tif cannot be read as an image \(samples of floating point"):
        read_image(tmp_path / "float.tif", keep_grey=True)
    turn = Image.Exif()
    turn[0x0112] = 6
    Image.new("RGB", (5, 4)).save(tmp_path / "turned.jpg", exif=turn)
    assert read_image(tmp_path / "turned.jpg", keep_grey=True).shape == (5, 4, 3)
    (tmp_path / "not.png").write_text("no")
    with pytest.raises(MediaError, match=r"not\.png cannot be read as an image"):
        read_image(tmp_path / "not.png", keep_grey=True)
