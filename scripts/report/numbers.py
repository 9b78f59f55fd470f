"""Numbers for readers: few digits, units, no exponent."""

import math
import re

from scripts.common import units

# Narrow no-break space, between a number and its unit.
THIN_SPACE = "\u202f"

# Word joiner: invisible, keeps a line from breaking at the dash of an interval.
NO_BREAK = "\u2060"


def _with_thin_spaces(text: str) -> str:
    """`1 min 42 s` with no line break between a number and its unit."""
    return re.sub(r"(?<=\d) ", THIN_SPACE, text)


def count(number: int) -> str:
    """1234567 as `1,234,567`."""
    return f"{number:,}"


def percent(share: float) -> str:
    """0.9775 as `97.8 %`; never rounded up to 100 or down to 0 when something is left."""
    return percent_digits(share) + THIN_SPACE + "%"


def percent_digits(share: float) -> str:
    """0.9775 as `97.8`. Halves round up."""
    tenths = math.floor(share * 1000 + 0.5 + 1e-9)
    if tenths >= 1000 and share < 1:
        return ">99.9"
    if tenths == 0 and share > 0:
        return "<0.1"
    return f"{tenths / 10:.1f}"


def interval(low: float, high: float) -> str:
    """The two ends of an interval of shares, in percent: `95.8–98.8`."""
    return f"{percent_digits(low)}{NO_BREAK}–{NO_BREAK}{percent_digits(high)}"


def points(difference: float) -> str:
    """0.0525 as `+5.3`, in percentage points with a sign; −0.0 is `0.0`."""
    rounded = f"{difference * 100:+.1f}"
    return "0.0" if float(rounded) == 0 else rounded.replace("-", "−")


def p_value(value: float) -> str:
    """0.0123 as `0.012`, smaller than a ten-thousandth as `<0.0001`."""
    return "<0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}"


def size(num_bytes: int) -> str:
    """17740000000 as `17.74 GB`."""
    return _with_thin_spaces(units.size(num_bytes))


def duration(seconds: float) -> str:
    """102.4 as `1 min 42 s`, 0.3512 as `0.351 s`."""
    return _with_thin_spaces(units.duration(seconds))


def decimal(value: float | None, digits: int = 3) -> str:
    """A measured number with `digits` significant digits, trailing zeros kept, exponent only when unavoidable."""
    if value is None:
        return "not measured"
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent >= digits:
        return f"{value:,.0f}"
    if exponent < -3:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        superscripts = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{mantissa}{THIN_SPACE}·{THIN_SPACE}10{superscripts}"
    return f"{value:.{max(digits - 1 - exponent, 0)}f}"


def short_hash(text: str) -> str:
    """The first 12 characters of a hash: enough to tell two apart, short enough to read."""
    return text[:12]
