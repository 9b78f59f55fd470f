"""Pictures of rows become files that training reads as a person sees them."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from scripts.data.made_pictures import PictureMaker, write_picture
from scripts.data.row_files import RowProblem
from scripts.data.seen_pictures import FIRST_FRAME, ON_WHITE, SCALED, TURNED


def png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


PLAIN = png(Image.new("RGB", (4, 3), "red"))


def test_pictures_of_one_content_become_one_file(tmp_path: Path) -> None:
    (path,) = {write_picture(PLAIN, "png", tmp_path / "pictures") for _ in range(2)}
    assert Path(path).read_bytes() == PLAIN
    assert len([p for p in (tmp_path / "pictures").rglob("*") if p.is_file()]) == 1


def test_a_plain_file_stays_where_it_is_and_one_that_is_not_there_is_left_to_the_check(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PLAIN)
    pictures = PictureMaker(tmp_path / "made")
    assert pictures.path_of(f"{tmp_path}/a.png") == f"{tmp_path}/a.png"
    assert pictures.path_of(f"{tmp_path}/b.png") == f"{tmp_path}/b.png"
    assert not (tmp_path / "made").exists()
    assert not pictures.num_changed


@pytest.mark.parametrize(
    "given",
    [
        {"bytes": PLAIN},
        {"bytes": base64.b64encode(PLAIN).decode()},
        {"bytes": "data:image/png;base64," + base64.b64encode(PLAIN).decode()},
    ],
)
def test_a_picture_given_as_bytes_becomes_a_file(tmp_path: Path, given: object) -> None:
    assert Path(PictureMaker(tmp_path / "made").path_of(given)).read_bytes() == PLAIN


@pytest.mark.parametrize("given", [5, None, {"bytes": "no base64!"}, {"bytes": b"no picture"}, {"path": 3}])
def test_what_is_no_picture_is_a_problem_of_its_row(tmp_path: Path, given: object) -> None:
    with pytest.raises(RowProblem, match="picture"):
        PictureMaker(tmp_path / "made").path_of(given)


def test_changed_pictures_are_made_once_and_counted(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 3), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 3)).save(tmp_path / "lying.jpg", exif=exif)
    Image.new("I;16", (4, 3), 65535).save(tmp_path / "deep.png")
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    pictures = PictureMaker(tmp_path / "made")
    made = {
        name: pictures.path_of(f"{tmp_path}/{name}")
        for name in ("clear.png", "lying.jpg", "deep.png", "moving.gif")
        for _ in range(2)
    }
    assert dict(pictures.num_changed) == {ON_WHITE: 1, TURNED: 1, SCALED: 1, FIRST_FRAME: 1}
    assert Path(made["moving.gif"]) == tmp_path / "moving.gif", "training takes the first frame itself"
    with Image.open(made["lying.jpg"]) as picture:
        assert picture.size == (3, 4)
    for name in ("clear.png", "deep.png"):
        with Image.open(made[name]) as picture:
            assert (picture.mode, picture.getpixel((0, 0))) == ("RGB", (255, 255, 255))
