"""Packed observations: the record's layout, views without a copy in NumPy and torch, masks, bad spaces."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from ridgeline.observations import (
    as_dict,
    check_action_mask,
    mask_size,
    pack,
    random_allowed,
    record_dtype,
    storage_shape_dtype,
    unpack,
)

SPACE: spaces.Dict = spaces.Dict({
    "flag": spaces.MultiBinary(3),
    "image": spaces.Box(0, 255, (2, 3), np.uint8),
    "lives": spaces.Discrete(5),
    "place": spaces.Box(-1, 1, (2,), np.float32),
    "score": spaces.Box(-np.inf, np.inf, (), np.float64),
})  # fmt: skip


def test_layout_by_hand():
    """Each number at a multiple of its size, in the order of the keys: 3 + 6 bytes, 7 of padding, 8, 8, 8."""
    dtype = record_dtype(SPACE)
    assert dtype.names == ("flag", "image", "lives", "place", "score")
    fields: Any = dtype.fields
    assert [fields[name][1] for name in fields] == [0, 3, 16, 24, 32]
    assert dtype.itemsize == 40 and dtype.isalignedstruct
    assert storage_shape_dtype(SPACE) == ((40,), np.uint8)
    assert storage_shape_dtype(spaces.Box(0, 255, (4, 4), np.uint8)) == ((4, 4), np.uint8)
    padded = record_dtype(spaces.Dict({"a": spaces.Box(0, 1, (3,), np.int8)}))
    assert padded.itemsize == 8  # up to a multiple of 8


@pytest.mark.parametrize("lead", [(), (4,), (2, 4)])
def test_pack_and_unpack(lead):
    generator = np.random.default_rng(0)
    parts = {
        key: np.array([part.sample() for _ in range(int(np.prod(lead)))]).reshape((*lead, *(part.shape or ())))
        for key, part in SPACE.spaces.items()
    }
    record = pack(SPACE, parts)
    assert record.shape == (*lead, 40) and record.dtype == np.uint8
    assert (record[..., 9:16] == 0).all()  # padding
    as_record = record.view(record_dtype(SPACE))[..., 0]
    for kind in (record, torch.from_numpy(record)):
        views = unpack(SPACE, kind)
        assert list(views) == list(SPACE.spaces)
        for key, part in SPACE.spaces.items():
            np.testing.assert_array_equal(views[key], parts[key])
            np.testing.assert_array_equal(as_record[key], parts[key])
            assert np.asarray(views[key]).dtype == part.dtype
    unpack(SPACE, record)["place"][...] = 0.25  # a view
    assert (unpack(SPACE, torch.from_numpy(record))["place"] == 0.25).all()
    rows = generator.permutation(4)
    if lead == (2, 4):  # gathered rows, rows of a slice
        gathered = torch.from_numpy(record)[1][torch.from_numpy(rows)]
        np.testing.assert_array_equal(unpack(SPACE, gathered)["score"], parts["score"][1][rows])
        np.testing.assert_array_equal(unpack(SPACE, torch.from_numpy(record)[:, 1:3])["lives"], parts["lives"][:, 1:3])
        np.testing.assert_array_equal(unpack(SPACE, record[:, ::2])["image"], parts["image"][:, ::2])


def test_tuples_are_dicts_and_boxes_are_left_alone():
    space = spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 1, (2,), np.float32)))
    record = pack(space, (np.array([2, 1]), np.array([[0.5, 1.0], [0.0, 0.25]])))
    assert unpack(space, record)["0"].tolist() == [2, 1]
    assert unpack(space, record)["1"].tolist() == [[0.5, 1.0], [0.0, 0.25]]
    image = np.zeros((4, 2, 2))
    assert unpack(spaces.Box(0, 1, (2, 2)), image) is image


def test_bad_spaces_and_observations_are_refused():
    nested = spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)})})
    with pytest.raises(ValueError, match=r"part 'a' is Dict.*use Box, Discrete"):
        record_dtype(nested)
    with pytest.raises(ValueError, match="without a part"):
        as_dict(spaces.Dict({}))
    with pytest.raises(ValueError, match="has no parts"):
        as_dict(spaces.Discrete(2))
    with pytest.raises(ValueError, match=r"observation_space is Discrete\(2\); use a Box"):
        storage_shape_dtype(spaces.Discrete(2))
    pair = spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(0, 1, (2,))})
    with pytest.raises(ValueError, match="has the parts a; the space a, b"):
        pack(pair, {"a": 1})
    with pytest.raises(ValueError, match=r"part 'b' has shape \(3,\); give \(2,\)"):
        pack(pair, {"a": 1, "b": np.zeros(3)})


def test_action_masks():
    assert mask_size(spaces.Discrete(4)) == 4 and mask_size(spaces.MultiDiscrete([2, 3])) == 5
    with pytest.raises(ValueError, match="cannot be masked"):
        mask_size(spaces.Box(-1, 1, (2,)))

    def space(*shape, dtype: Any = np.int8):
        return spaces.Dict({"action_mask": spaces.Box(0, 1, shape, dtype), "x": spaces.Box(0, 1, (2,))})

    assert check_action_mask(space(4), spaces.Discrete(4))
    assert check_action_mask(space(5, dtype=np.bool_), spaces.MultiDiscrete([2, 3]))
    assert not check_action_mask(spaces.Box(0, 1, (2,)), spaces.Discrete(4))
    assert not check_action_mask(spaces.Dict({"x": spaces.Discrete(2)}), spaces.Discrete(4))
    for wrong in (space(3), space(4, dtype=np.float32)):
        with pytest.raises(ValueError, match=r"use Box\(0, 1, \(4,\), np.int8\)"):
            check_action_mask(wrong, spaces.Discrete(4))


def test_random_allowed_actions():
    """Uniform over what is allowed in each part; a row that allows nothing (a dead agent's) gets any action."""
    generator = np.random.default_rng(0)
    mask = np.array([[1, 0, 1, 0, 0, 1], [0, 0, 0, 1, 1, 0]], np.int8).repeat(6000, 0)
    action = random_allowed(spaces.MultiDiscrete([3, 3]), mask, generator).reshape(2, 6000, 2)
    counts = np.stack([[np.bincount(action[row, :, part], minlength=3) for part in range(2)] for row in range(2)])
    expected = np.array([[[3000, 0, 3000], [0, 0, 6000]], [[2000, 2000, 2000], [3000, 3000, 0]]])
    assert (counts[expected == 0] == 0).all() and abs(counts - expected).max() < 200
    assert set(random_allowed(spaces.Discrete(6), mask[:100], generator)) == {0, 2, 5}
