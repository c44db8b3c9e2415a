"""The keys of what a long job keeps: they follow from values alone."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch

from pack.skyreels_v3.digest import chain_keys, digest
from pack.skyreels_v3.jobs.extension.script import Line
from pack.skyreels_v3.recipes import Job


def test_a_changed_line_keeps_the_lines_before_it():
    base = {"seed": 1, "source": torch.arange(3)}
    before = chain_keys(base, ["one", "two", "three", "four"])
    after = chain_keys(base, ["one", "two", "THREE", "four"])
    assert before[:2] == after[:2] and before[2] != after[2] and before[3] != after[3]
    assert len(set(before + after)) == 6
    assert chain_keys(base, ["one", "two"])[-1] == before[1] and digest("base", base) not in before
    assert chain_keys({**base, "seed": 2}, ["one"])[0] != before[0]
    assert chain_keys(base, []) == ()


def test_digests_follow_from_values_alone():
    lines = [Line(1, "cut", Fraction(2), "x"), Line(2, "cut", Fraction(2), "x")]
    values = [None, True, False, 0, 1, 1.0, -0.0, 0.0, float("nan"), Fraction(1, 2), "1", "", b"1", "ab", "\ud800"]
    values += [["a", "b"], ["ab"], [["a"], "b"], [], {}, {"a": 1}, {"a": [1]}, {"b": 1}, *lines]
    values += [torch.ones(2), torch.ones(2, 1), torch.ones(2, dtype=torch.int32), torch.zeros(0)]
    values += [torch.ones(1, dtype=torch.bfloat16)]
    digests = [digest(value) for value in values]
    assert len(set(digests)) == len(values)
    assert all(len(text) == 32 and int(text, 16) >= 0 for text in digests)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest((1, 2)) == digest([1, 2]) != digest(1, 2)
    assert digest(Job.SHOT) == digest("shot") and digest(np.float64(0.5)) != digest("0.5")
    assert digest(np.ones((2, 2))[:, 0]) == digest(torch.ones(2, dtype=torch.float64))
    assert digest(dataclasses.replace(lines[0])) == digest(lines[0])
    assert digest("fixed", 1, [2.5]) == "4fbdfc4555bb01190ce18ddf5812f180"
    with pytest.raises(TypeError, match="object"):
        digest(object())
