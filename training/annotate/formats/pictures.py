"""A folder of masks that were saved as pictures, by any paint program."""

from collections.abc import Iterator

from alserve.measure.dataset import read_mask
from alserve.measure.folders import find_pictures
from training.annotate.checks import check_drawn, check_one_sided
from training.annotate.formats import FORMATS, Annotation, Format, Source


def read_pictures(source: Source) -> Iterator[Annotation]:
    """Read all masks below a folder."""
    for name, path in find_pictures(source.path).items():
        mask = read_mask(path)
        check_drawn(path, mask, source.path, name)
        if mask.all():
            check_one_sided(path, mask, source.path, name)
        yield Annotation(path.relative_to(source.path).as_posix(), mask)


FORMATS.add("pictures")(
    Format(
        description="a folder of masks as pictures", recognize=lambda source: source.path.is_dir(), read=read_pictures
    )
)
