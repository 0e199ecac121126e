"""A seal finds whatever was changed, and hashes find the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.system import sealed as module
from latentgym.system.sealed import (
    damaged,
    digest,
    digests,
    is_of,
    opened,
    parsed,
    read_sealed,
    sealed,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text().filter(lambda key: key != module.SEAL), JSON, max_size=4)


@given(OBJECTS, st.text(alphabet="abc"))
def test_what_is_sealed_opens_again(data: dict[str, Any], before: str) -> None:
    read = json.loads(json.dumps(sealed(data, before)))
    assert opened(read, before) and read == json.loads(json.dumps(data))
    assert not opened(read, before)  # it is off


@given(OBJECTS, OBJECTS)
def test_other_data_does_not_fit_a_seal(data: dict[str, Any], other: dict[str, Any]) -> None:
    seal = sealed(data)[module.SEAL]
    same = json.dumps(data, sort_keys=True) == json.dumps(other, sort_keys=True)
    try:
        assert opened({**other, module.SEAL: seal}) and same
    except ValueError:
        assert not same


@given(OBJECTS, st.data())
def test_no_flipped_bit_goes_unseen(data: dict[str, Any], draw: st.DataObject) -> None:
    text = bytearray(json.dumps(sealed(data)).encode())
    text[draw.draw(st.integers(0, len(text) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    try:
        found = parsed(bytes(text))
        verified = opened(found)
    except (ValueError, AttributeError):
        return
    # Only the seal's own name may have become another.
    assert found == json.loads(json.dumps(data)) if verified else len(found) == len(data) + 1


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("levels", [66, 900, 100_000])
def test_what_is_nested_deeply_is_refused(open_: str, close: str, levels: int) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parsed((open_ * levels + "1" + close * levels).encode())
    assert parsed((open_ * 60 + "1" + close * 60).encode())


def test_a_file_that_is_no_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("[]")
    with pytest.raises(ValueError, match="no JSON object"):
        read_sealed(path)


@pytest.mark.parametrize(
    ("value", "kind", "right"),
    [
        (1, float, True),
        (1.0, int, False),
        (True, float, False),
        (True, int, False),
        (True, bool, True),
        (None, str | None, True),
        ("x", str | None, True),
        (float("nan"), float, False),
        ([1, 2], list[int], True),
        ([1, "2"], list[int], False),
        ({"a": 1}, dict[str, float], True),
        ({"a": None}, dict[str, float], False),
        ({"a": [1]}, dict[str, list[float]], True),
        ({"a": object}, dict[str, Any], True),
        ([], dict[str, Any], False),
    ],
)
def test_types_of_json(value: Any, kind: Any, right: bool) -> None:
    assert is_of(value, kind) is right


def test_a_changed_or_missing_file_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("LATENTGYM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    for name in ("a", "inner/b"):
        (folder / name).write_text(name)
    files = digests(folder)
    assert files == {name: digest(folder / name) for name in ("a", "inner/b")}
    assert damaged(folder, files) is None
    (folder / "inner" / "b").write_text("x")
    assert damaged(folder, files) == "inner/b"
    (folder / "a").unlink()
    assert damaged(folder, files) == "a"


def test_what_was_right_is_not_read_again(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("LATENTGYM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("a")
    files, read = digests(folder), list[Path]()
    monkeypatch.setattr(module, "digest", lambda path: read.append(path) or digest(path))
    assert damaged(folder, files) is None and damaged(folder, files) is None
    assert len(read) == 1
    monkeypatch.setenv("LATENTGYM_CACHE", str(folder / "a" / "no folder"))
    assert damaged(folder, files) is None and len(read) == 2
