"""Messages of the policy server: openpi's form, byte for byte, and nobody's bytes do harm."""

from __future__ import annotations

import pickle
from contextlib import suppress

import msgpack
import numpy as np
import pytest
import robot_client
from hypothesis import given, settings
from hypothesis import strategies as st

from robolift.errors import DataError
from robolift.policy.server import wire

ARRAYS = (
    np.arange(6, dtype=np.uint8).reshape(1, 2, 3),
    np.array([[1.5, -2.0]], np.float32),
    np.array([True, False]),
    np.array(["fold", "the towel"]),
    np.zeros((0, 3), np.float64),
    np.array(7, np.int64),
)


@pytest.fixture(scope="module")
def openpi():
    robot_client.importable()
    from openpi_client import msgpack_numpy

    return msgpack_numpy


def array(**changes):
    entry = {b"__ndarray__": True, b"data": b"\1\0\2\0", b"dtype": "<i2", b"shape": [2], **changes}
    return msgpack.packb({"a": {k: v for k, v in entry.items() if v is not None}})


def test_an_array_is_these_bytes():
    # A map of one: "a" -> a map of four, with keys of 11, 4, 5 and 5 bytes.
    expected = (
        b"\x81\xa1a\x84\xc4\x0b__ndarray__\xc3\xc4\x04data\xc4\x04\1\0\2\0\xc4\x05dtype\xa3<i2\xc4\x05shape\x91\x02"
    )
    assert wire.pack({"a": np.array([1, 2], "<i2")}) == expected
    assert wire.unpack(expected)["a"].tolist() == [1, 2]


@pytest.mark.parametrize("value", ARRAYS, ids=lambda value: value.dtype.str)
def test_openpi_writes_and_reads_the_same(openpi, value):
    message = {"x": value, "scalar": np.float32(0.1), "text": np.str_("fold"), "plain": [1, 2.5, "a", None, True]}
    packed = wire.pack(message)
    assert packed == openpi.packb(message)
    ours, theirs = wire.unpack(packed), openpi.unpackb(packed)
    assert ours["x"].dtype == theirs["x"].dtype == value.dtype
    np.testing.assert_array_equal(ours["x"], value)
    assert ours["x"].shape == value.shape
    assert type(ours["scalar"]) is np.float32
    assert (ours["text"], ours["plain"]) == ("fold", message["plain"])


def test_text_arrays_hold_every_character_in_either_byte_order():
    for dtype in ("<U2", ">U2"):
        assert wire.unpack(wire.pack({"a": np.array("\U0010ffffé", dtype)}))["a"].item() == "\U0010ffffé"


def test_what_was_read_does_not_reach_into_other_messages():
    with pytest.raises(ValueError, match="read-only"):
        wire.unpack(array())["a"][0] = 5


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a message was unpickled",)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (b"", "incomplete"),
        (b"\xc1", "unreadable message: not msgpack"),
        (b"\x81\xa1a", "incomplete"),
        (array() + b"\0", "extra data"),
        (b"GET / HTTP/1.1\r\n\r\n", "extra data"),
        (pickle.dumps(Trap()), "unreadable"),
        (array().replace(b"<i2", b"|O8"), "|O8"),
        (msgpack.packb({b"__ndarray__": True, b"data": pickle.dumps(Trap()), b"dtype": "O", b"shape": []}), "'O'"),
        (msgpack.packb({b"__npgeneric__": True, b"data": pickle.dumps(Trap()), b"dtype": "O"}), "not one number"),
        (msgpack.packb({b"__npgeneric__": True, b"data": 1}), "not one number"),
        (msgpack.packb({b"__npgeneric__": True, b"data": "fold", b"dtype": "<f4"}), "unreadable"),
        (msgpack.packb({b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}), "unreadable"),
        (msgpack.packb({b"__npgeneric__": True, b"data": 2**63, b"dtype": "<i8"}), "unreadable"),
        *[
            (msgpack.packb({b"__ndarray__": True, b"data": b"1" * 8, b"dtype": name, b"shape": [1]}), "no type of")
            for name in ("V8", "<c8", "<M8[s]", "f4,f4", "object", "float32", "S8", ["<f4"], 5, None)
        ],
        (msgpack.packb({b"__ndarray__": True, b"data": b"123", b"dtype": "<f3", b"shape": [1]}), "unreadable"),
        (array().replace(b"shape", b"sharp"), "an array has the keys"),
        *[
            (msgpack.packb({b"__ndarray__": True, b"data": b"1234", b"dtype": "<f4", b"shape": shape}), said)
            for shape, said in [
                ([2], "can't be made of 4 bytes"),
                ([-1], "not the shape"),
                ([True], "not the shape"),
                ([1.0], "not the shape"),
                ([1] * 9, "not the shape"),
                (1, "not the shape"),
                ([2**62, 2**62], "can't be made"),
            ]
        ],
        (msgpack.packb({b"__ndarray__": True, b"data": "text", b"dtype": "<f4", b"shape": [1]}), "made of str"),
        (msgpack.packb({b"__ndarray__": True, b"data": b"", b"dtype": "<U0", b"shape": [2**60]}), "can't be made"),
        *[
            (msgpack.packb({b"__ndarray__": True, b"data": code, b"dtype": name, b"shape": []}), "is no character")
            for code, name in [
                (b"\xff\xff\xff\xff", "<U1"),
                (b"\0\0\x11\0", "<U1"),
                (b"\0\x11\0\0", ">U1"),
                (b"\0\xd8\0\0", "<U1"),
                (b"a\0\0\0\xff\xdf\0\0", "<U2"),
            ]
        ],
        (msgpack.packb({1: 2}), "unreadable"),
        (msgpack.packb({"a": msgpack.ExtType(5, b"x")}), "unreadable"),
        (b"\x91" * 2000 + b"\0", "unreadable"),
        (b"\xdd\xff\xff\xff\xff", "unreadable"),
        (b"\x9f" + (b"\xdc\x10\x00" + b"\x80" * 4096) * 15, "more than 4096 entries"),
        (b"\x81\xa1a\xa2\xff\xfe", "utf-8"),
    ],
)
def test_what_is_not_a_message_of_plain_numbers_and_text_is_refused(message, problem):
    with pytest.raises(DataError) as refused:
        wire.unpack(message)
    assert problem in str(refused.value)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize("value", [np.array([{}], object), np.array([1j]), np.zeros(2, "f4,f4"), object(), {1, 2}])
def test_what_has_no_form_is_not_sent(value):
    with pytest.raises(TypeError, match="no message holds"):
        wire.pack({"a": value})


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(message):
    with suppress(DataError):
        wire.unpack(message)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_message_with_bytes_changed_is_read_or_refused(data):
    message = bytearray(wire.pack({"image": ARRAYS[0], "state": ARRAYS[1], "prompt": "fold", "n": np.int32(4)}))
    for place in data.draw(st.lists(st.integers(0, len(message) - 1), min_size=1, max_size=4)):
        message[place] = data.draw(st.integers(0, 255))
    with suppress(DataError):
        wire.unpack(bytes(message))
