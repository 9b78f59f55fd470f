"""Numbers on pages and cards."""

from scripts.report.numbers import count, decimal, duration, interval, percent, size


def test_shares_are_rounded_half_up_and_never_to_all_or_nothing() -> None:
    assert percent(0.95250) == "95.3\u202f%"
    assert percent(0.9999) == ">99.9\u202f%"
    assert percent(0.0001) == "<0.1\u202f%"
    assert (percent(1.0), percent(0.0)) == ("100.0\u202f%", "0.0\u202f%")
    assert interval(0.25, 0.5).replace("\u2060", "") == "25.0–50.0"


def test_numbers_have_units_and_few_digits() -> None:
    found = [count(8190735360), size(17740000000), size(512), decimal(0.066649), decimal(9871.5), decimal(None)]
    found += [duration(0.4123), duration(102.4), duration(9.97), duration(59.97), duration(7503), duration(90061)]
    assert [text.replace("\u202f", " ") for text in found] == [
        "8,190,735,360", "17.74 GB", "512 B", "0.0666", "9,872", "not measured",
        "0.412 s", "1 min 42 s", "10 s", "1 min", "2 h 5 min", "1 d 1 h",
    ]  # fmt: skip
    assert decimal(0.0000123) == "1.23\u202f·\u202f10⁻⁵"
