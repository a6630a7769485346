"""The objects of the mask as COCO annotations: of an image by itself, and of all images of a run in one file.

An object is a polygon where it has no holes, which is all that COCO's polygons can say, or else compressed run lengths.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import count

from alserve.objects import means_and_maxima, some_at_once
from alserve.outputs import OUTPUTS, Case, Joined, Output
from alserve.outputs.polygons import ring_texts, write_list
from alserve.outputs.rle import encode_rle

_IMAGES, _CATEGORIES = b'],"images":[', b'],"categories":['
_HEAD = b'{"annotations":['
_IDS = re.compile(rb'\{"id":\d+,"image_id":1,')
"""How an annotation begins; nothing in one looks like it, for run lengths have no braces."""


def _encode(case: Case) -> bytes:
    prediction = case.prediction
    height, width = case.mask.shape
    classes = list(prediction.scores)
    category = classes.index(prediction.label) + 1
    measured = means_and_maxima(case.objects, prediction.probability())
    annotations = (
        f'{{"id":{item.number},"image_id":1,"category_id":{category},"segmentation":{segmentation},'
        f'"area":{item.area},"bbox":{list(item.box)},"iscrowd":0,"score":{mean:.4g}}}'.encode()
        for item, segmentation, (mean, _) in zip(case.objects, _segmentations(case), measured, strict=True)
    )
    image = json.dumps({"id": 1, "file_name": case.name, "width": width, "height": height})
    categories = json.dumps([{"id": number, "name": name} for number, name in enumerate(classes, start=1)])
    end = b"".join([_IMAGES, image.encode(), _CATEGORIES, categories[1:].encode(), b"}"])
    return write_list(_HEAD, annotations, end)


def _segmentations(case: Case) -> Iterator[str]:
    for some in some_at_once(case.objects):
        texts = ring_texts([item.rings[0] for item in some])
        for item, text in zip(some, texts, strict=True):
            if len(item.rings) == 1:
                yield f"[[{text}]]"
            else:
                left, top, _, _ = item.box
                yield json.dumps(encode_rle(item.mask, case.mask.shape, left=left, top=top))


def _join(files: Iterable[bytes]) -> Iterator[bytes]:
    """Number images and annotations anew; nothing else in them changes."""
    images: list[bytes] = []
    numbers = count(1)
    between, categories = b"", b"]}"
    yield _HEAD
    for place, file in enumerate(files, start=1):
        own, _, rest = file.removeprefix(_HEAD).partition(_IMAGES)
        image, _, categories = rest.partition(_CATEGORIES)
        images.append(image.replace(b'{"id": 1,', b'{"id": %d,' % place, 1))
        if own:
            yield between
            _, *annotations = _IDS.split(own)
            for annotation in annotations:
                yield b'{"id":%d,"image_id":%d,%b' % (next(numbers), place, annotation)
            between = b","
    yield _IMAGES + b",".join(images) + _CATEGORIES + categories


OUTPUTS.add("coco")(
    Output(
        "the objects of the mask as COCO annotations, in a run also in one file for all images: JSON",
        "coco",
        _encode,
        ".json",
        "application/json",
        joined=Joined("coco.json", _join),
    )
)
