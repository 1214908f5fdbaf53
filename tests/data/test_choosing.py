"""Which images are shown: first those that bring something new."""

from pathlib import Path

from wsfcn_lib.data.choosing import spread_out, varied
from wsfcn_lib.data.manifest import Sample


def samples(*tags):
    return [Sample(str(k), Path(f"{k}.jpg"), own) for k, own in enumerate(tags)]


def test_new_classes_come_first():
    found = varied(samples((1, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 1, 1)), 4)
    assert [sample.name for sample in found] == ["0", "2", "4", "1"]
    assert varied([], 3) == []


def test_few_are_spread_over_all():
    many = samples(*[(1,)] * 10)
    assert [sample.name for sample in spread_out(many, 3)] == ["0", "4", "9"]
    assert [sample.name for sample in spread_out(many, 7)] == ["0", "2", "3", "4", "6", "8", "9"], "both ends"
    assert spread_out(many[:1], 3) == many[:1] and spread_out([], 3) == []
    assert len(spread_out(many, 99)) == 10
