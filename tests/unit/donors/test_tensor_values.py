"""Numbers in the bytes of tensors: NaN and infinity are found, float32 is rounded as hardware does."""

import numpy as np
import pytest

from scripts.donors.tensor_values import first_non_finite, from_float32, to_float32


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_nan_and_infinity_are_found_and_the_largest_finite_value_is_not(dtype: str) -> None:
    largest = {"BF16": b"\x7f\x7f", "F16": b"\xff\x7b", "F32": b"\xff\xff\x7f\x7f"}[dtype]
    infinity = {"BF16": b"\x80\x7f", "F16": b"\x00\x7c", "F32": b"\x00\x00\x80\x7f"}[dtype]
    negative_nan = {"BF16": b"\xc1\xff", "F16": b"\x01\xfe", "F32": b"\x01\x00\xc0\xff"}[dtype]
    assert first_non_finite(largest * 5, dtype) is None
    assert first_non_finite(b"", dtype) is None
    assert first_non_finite(largest * 3 + infinity + largest, dtype) == 3
    assert first_non_finite(largest + negative_nan, dtype) == 1


def test_float32_is_rounded_to_the_nearest_bfloat16_ties_to_even() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8], np.float32)
    assert to_float32(from_float32(values, "BF16"), "BF16").tolist() == [1, 1, 1 + 2**-6, 1 + 2**-7, -1]
