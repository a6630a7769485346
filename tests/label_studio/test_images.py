"""The images of Label Studio's tasks: below the operator's folders or in the task, and nowhere else."""

import base64
from pathlib import Path

import pytest

from alserve.errors import ImageError
from alserve.label_studio.images import TaskImages


@pytest.fixture
def images(tmp_path: Path) -> TaskImages:
    for name in ("files/a b/ä.png", "media/upload/3/x-1.png", "media/avatars/me.png", "secret.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "files" / "out.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "files" / "up").symlink_to(tmp_path, target_is_directory=True)
    return TaskImages(tmp_path / "files", tmp_path / "media")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/data/local-files/?d=a%20b/%C3%A4.png", "files/a b/ä.png"),
        ("/data/local-files/?d=a b/ä.png", "files/a b/ä.png"),
        ("http://studio.example:8080/sub/data/local-files/?d=a%20b/ä.png", "files/a b/ä.png"),
        ("/data/upload/3/x-1.png", "media/upload/3/x-1.png"),
        ("https://studio.example/data/upload/3/x-1.png", "media/upload/3/x-1.png"),
        ("data:image/png;base64," + base64.b64encode(b"in the task").decode(), "in the task"),
    ],
)
def test_an_image_is_found(images: TaskImages, address: str, name: str) -> None:
    assert images.read(address).decode() == name


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("/data/local-files/?d=../secret.png", "no name of a file below ALSERVE_LABEL_STUDIO_FILES"),
        ("/data/local-files/?d=%2e%2e%2fsecret.png", "no name of a file"),
        ("/data/local-files/?d=a\\..\\..\\secret.png", "no name of a file"),
        ("/data/local-files/?d=/etc/passwd", "no name of a file"),
        ("/data/local-files/?d=out.png", "no name of a file"),
        ("/data/local-files/?d=up/secret.png", "no name of a file"),
        ("/data/local-files/?d=a\x00b", "no name of a file"),
        ("/data/local-files/", "no name of a file"),
        ("/data/local-files/?d=a b", "cannot be read: it is a folder"),
        ("/data/local-files/?d=gone.png", "'gone.png' cannot be read: No such file"),
        ("/data/upload/../avatars/me.png", "no name of a file below ALSERVE_LABEL_STUDIO_MEDIA"),
        ("/data/upload/%2e%2e/avatars/me.png", "no name of a file"),
        ("https://example.org/1.png", "is not fetched"),
        ("file:///etc/passwd", "is not fetched"),
        ("s3://bucket/data/upload/3/x-1.png", "is not fetched"),
        ("http://[", "cannot be read"),
        ("data:image/png;base64,*", "data URL is damaged"),
        ("data:image/png,abc", "not in base64"),
        ("data:image/png;base64,ä", "data URL is damaged"),
        (None, "has no image where the labelling configuration says"),
        (3, "has no image"),
        ("", "has no image"),
    ],
)
def test_nothing_else_is_read(images: TaskImages, tmp_path: Path, address: object, words: str) -> None:
    with pytest.raises(ImageError) as error:
        images.read(address)
    assert words in str(error.value)
    assert str(tmp_path) not in str(error.value)


def test_a_folder_that_is_not_named_is_asked_for() -> None:
    with pytest.raises(ImageError, match="name it in ALSERVE_LABEL_STUDIO_FILES"):
        TaskImages().read("/data/local-files/?d=a.png")
    with pytest.raises(ImageError, match="name it in ALSERVE_LABEL_STUDIO_MEDIA"):
        TaskImages().read("/data/upload/1/a.png")
