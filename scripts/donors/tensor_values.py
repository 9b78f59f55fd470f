"""Numbers in the bytes of BF16, F16 and F32 tensors: to and from float32, and a search for NaN and infinity."""

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]

# Unsigned type of an element and the bits of its exponent, which are all ones in NaN and infinity and nowhere else.
_EXPONENT_BITS: dict[str, tuple[str, int]] = {
    "BF16": ("<u2", 0x7F80),
    "F16": ("<u2", 0x7C00),
    "F32": ("<u4", 0x7F800000),
}
FLOAT_DTYPES = tuple(_EXPONENT_BITS)


def to_float32(data: bytes | bytearray | memoryview, dtype: str) -> Float32Array:
    """The values of a tensor's bytes."""
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, "<f2" if dtype == "F16" else "<f4").astype(np.float32)


def from_float32(values: Float32Array, dtype: str) -> bytes:
    """The bytes of a tensor with these values, rounded to nearest, ties to even, as hardware and torch do."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return values.astype("<f2" if dtype == "F16" else "<f4").tobytes()


def first_non_finite(data: bytes | bytearray | memoryview, dtype: str) -> int | None:
    """Index of the first NaN or infinity in a tensor's bytes, or None. Integer arithmetic: no conversion, no copy."""
    element_type, exponent_bits = _EXPONENT_BITS[dtype]
    bits = np.frombuffer(data, element_type)
    exponents = bits & bits.dtype.type(exponent_bits)
    if not exponents.size or exponents.max() != exponent_bits:
        return None
    return int(np.argmax(exponents == exponent_bits))
