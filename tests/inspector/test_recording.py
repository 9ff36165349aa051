"""Files of recordings: what is no whole recording is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from inspector.recording import DamagedRecording, lines_of, record_from_file

LINES: Final = (
    '{"format":"agent-stream-recording","version":1,"conversation_id":"c","recorded_at":1,"keys":[]}',
    '{"run":"r","state":{"agent":"A","status":"running"}}',
    '{"id":"1-0","fields":{"text":"a","sequence":"0","run":"r"}}',
    '{"id":"2-0","base64":["dGV4dA==","/w=="]}',
    '{"end":true,"entries":2}',
)


def write(path: Path, lines: tuple[str, ...]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


async def test_what_is_read_is_written_again(tmp_path: Path) -> None:
    """A file that is read and written is the same, line by line."""
    recording = await record_from_file(write(tmp_path / "c.jsonl", LINES))
    assert tuple([line.rstrip("\n") async for line in lines_of(recording)]) == LINES


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (lambda lines: lines[:0], "is empty"),
        (lambda lines: lines[:-1], "not all there"),
        (lambda lines: lines[:2] + lines[3:], "not all there"),
        (lambda lines: ("{}", *lines[1:]), "is no recording"),
        (lambda lines: (lines[0].replace('"version":1', '"version":2'), *lines[1:]), "version 2"),
        (lambda lines: (lines[0].replace('"c"', '"@"'), *lines[1:]), "first line is damaged"),
        (lambda lines: (lines[0].replace("[]", "[1]"), *lines[1:]), "first line is damaged"),
        (lambda lines: (*lines[:2], "half a li", *lines[2:]), "line 3"),
        (lambda lines: (*lines[:2], '{"id":"x","fields":{}}', *lines[2:]), "line 3"),
        (lambda lines: (*lines[:2], '{"id":"1-0","fields":{"text":1}}', *lines[2:]), "line 3"),
        (lambda lines: (*lines[:2], '{"run":"r","state":"running"}', *lines[2:]), "line 3"),
        (lambda lines: (*lines[:2], '"text"', *lines[2:]), "line 3"),
        (lambda lines: (*lines[:2], "[" * 200_000, *lines[2:]), "line 3"),
    ],
)
async def test_a_damaged_file_is_refused(
    tmp_path: Path, broken: Callable[[tuple[str, ...]], tuple[str, ...]], complaint: str
) -> None:
    """A file that was cut, edited, or is something else is refused by a sentence that says what is wrong."""
    path = write(tmp_path / "c.jsonl", broken(LINES))
    with pytest.raises(DamagedRecording, match=complaint):
        await record_from_file(path)


async def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    """Bytes that are no text are refused, too, and so is a folder."""
    (tmp_path / "c.jsonl").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "c.jsonl", tmp_path):
        with pytest.raises(DamagedRecording, match="can't be read"):
            await record_from_file(path)
