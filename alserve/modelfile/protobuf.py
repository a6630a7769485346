"""As much of protobuf as the contract needs: a file's fields one by one, with a limit to the work they may cause."""

from collections.abc import Iterator

MAX_FIELDS = 1_000_000
"""Fields that are looked at in one file; a model of some hundred layers has some ten thousand."""

_VARINT_BYTES = 10

_MODEL, _GRAPH, _FUNCTION, _NODE, _ATTRIBUTE, _SPARSE, _TENSOR = range(7)
_INSIDE = {
    _MODEL: {7: _GRAPH, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}
"""Where tensors are in an ONNX model: by kind of message, the numbers of its fields that lead to them."""

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
"""Fields of a tensor that has its values in another file."""


class Budget:
    """Counts the fields that were looked at, over all messages of a file.

    Args:
        fields: The largest number of them.
    """

    def __init__(self, fields: int = MAX_FIELDS) -> None:
        self._left = fields

    def spend(self) -> None:
        """Count one.

        Raises:
            ValueError: There were too many.
        """
        self._left -= 1
        if self._left < 0:
            raise ValueError("more fields than a model has")


def fields(message: memoryview, budget: Budget) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Go through the fields of a message.

    Args:
        message: Its bytes.
        budget: Counts each of them.

    Yields:
        Number, content and all bytes of a field; of a number the content is its varint.

    Raises:
        ValueError: The bytes are no message, cut short, or too many fields.
    """
    at, end = 0, len(message)

    def varint() -> int:
        nonlocal at
        value = 0
        for place, byte in enumerate(message[at : at + _VARINT_BYTES]):
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:  # noqa: PLR2004  the last byte of a number
                at += place + 1
                return value
        raise ValueError("a number that does not end")

    while at < end:
        budget.spend()
        begin = at
        number, kind = divmod(varint(), 8)
        start = at
        match kind:
            case 0:
                varint()
            case 1 | 5:
                at += 8 if kind == 1 else 4
            case 2:
                length = varint()
                start, at = at, at + length
            case _:
                raise ValueError("no protobuf message")
        if at > end:
            raise ValueError("cut short")
        yield number, message[start:at], message[begin:at]


def field(number: int, content: bytes) -> bytes:
    """Write one field that has a length."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    rest, low = divmod(value, 0x80)
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def needs_other_files(model: memoryview, budget: Budget) -> bool:
    """Tell whether an ONNX model has values of tensors in other files.

    Args:
        model: Its bytes.
        budget: Counts the fields that are looked at.

    Raises:
        ValueError: The bytes are no ONNX model, cut short, or too many fields.
    """
    todo = [(_MODEL, model)]
    while todo:
        kind, message = todo.pop()
        for number, content, _ in fields(message, budget):
            if kind == _TENSOR and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and bytes(content) != b"\0")):
                return True
            if number in _INSIDE[kind]:
                todo.append((_INSIDE[kind][number], content))
    return False
