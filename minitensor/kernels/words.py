"""The tokens of words that were seen before, looked up in a table.

A text is cut before each space or line break that follows something else, where no tokenizer that
splits at white space puts two sides into one token; what lies between is a word here: " forty-two,"
or "\\n\\n    return". The table knows the tokens of words, as a dict would: a word is hashed, and
its bytes are compared. Threads share the text, as each looks up alone. Bound by reading the text's
bytes one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .jit import jit
from .parallel import ParallelKernel, address, array_at, integers_at, tasks_for, unpacked

MOST_BYTES = 1 << 23  # of a text; a longer one is not looked up
_ENTRIES = 1 << 19  # words that the table has room for
_ROOM = 4 * MOST_BYTES  # bytes of these words, and as many tokens
_SLOTS = 2 * _ENTRIES
_PARALLEL = 1 << 16  # bytes from which a second thread pays
_SPACE, _LINE_FEED = 0x20, 0x0A
_LENGTH_BITS = 24  # of a word's length in bytes, below its place
_LENGTH = (1 << _LENGTH_BITS) - 1
_SEED, _PRIME = np.int64(0x4BF29CE484222325), np.int64(0x100000001B3)  # of FNV-1a


@jit(fastmath=False)
def _begins(text, i):  # type: ignore[no-untyped-def]
    """Return True if a word begins at byte i > 0 of UTF-8 text.

    What comes before must not be white space: ASCII's, or C2 85, C2 A0, E1 9A 80, E2 80 80 to 8A,
    A8, A9, AF, E2 81 9F and E3 80 80. Of three bytes some others count as white space as well.
    """
    if text[i] != _SPACE and text[i] != _LINE_FEED:
        return False
    before = text[i - 1]
    if before < 0x80:
        return before > _SPACE
    second = text[i - 2]
    if second == 0xC2:
        return before != 0x85 and before != 0xA0
    if second == 0x80 or second == 0x81 or second == 0x9A:
        third = text[i - 3]
        return third < 0xE1 or third > 0xE3
    return True


@jit(fastmath=False)
def _find(slots, entries, letters, text, start, stop):  # type: ignore[no-untyped-def]
    """Return the slot of a word, which is empty, 0, if the table does not have it."""
    hashed = _SEED
    for i in range(start, stop):
        hashed = (hashed ^ np.int64(text[i])) * _PRIME
    slot = (hashed ^ (hashed >> np.int64(29))) & np.int64(slots.size - 1)
    while slots[slot] != 0:
        entry = slots[slot] - 1
        same = entries[entry, 1] == stop - start
        if same:
            place = entries[entry, 0] - start
            for i in range(start, stop):
                if letters[place + i] != text[i]:
                    same = False
                    break
        if same:
            break
        slot = (slot + 1) & np.int64(slots.size - 1)
    return slot


def _look_up(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Look up the words that begin in one task's part of the text.

    The entry of each, or where a word is missing -1 less its place, goes to `units`, from the first
    of these words' bytes on.
    """
    s = unpacked(arguments)
    text = array_at(np.uint8, s.text, (s.length,))
    slots, entries = integers_at(s.slots, _SLOTS), array_at(np.int64, s.entries, (_ENTRIES, 4))
    letters = array_at(np.uint8, s.letters, (_ROOM,))
    units, counts = integers_at(s.units, s.length), array_at(np.int64, s.counts, (tasks, 2))
    start, last = s.length * task // tasks, s.length * (task + 1) // tasks
    while 0 < start < last and not _begins(text, start):
        start += 1
    at = start
    counts[task, 0] = start
    while start < last:
        stop = start + 1
        while stop < s.length and not _begins(text, stop):
            stop += 1
        entry = slots[_find(slots, entries, letters, text, start, stop)] - 1
        if entry < 0:
            entry = -1 - ((start << _LENGTH_BITS) | (stop - start))
        units[at] = entry
        at += 1
        start = stop
    counts[task, 1] = at


def _insert(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Put words of the text into the table, whose tokens begin at `new` and end at `ends`."""
    s = unpacked(arguments)
    text = array_at(np.uint8, s.text, (s.length,))
    slots, entries = integers_at(s.slots, _SLOTS), array_at(np.int64, s.entries, (_ENTRIES, 4))
    letters, tokens = (
        array_at(np.uint8, s.letters, (_ROOM,)),
        array_at(np.uint32, s.tokens, (_ROOM,)),
    )
    words, ends = integers_at(s.words, s.count), integers_at(s.ends, s.count)
    new = array_at(np.uint32, s.new, (s.size,))
    entry, letter, token, begin = s.entry, s.letter, s.token, 0
    for number in range(s.count):
        start = words[number] >> _LENGTH_BITS
        stop, end = start + (words[number] & _LENGTH), ends[number]
        slots[_find(slots, entries, letters, text, start, stop)] = entry + 1
        entries[entry, 0], entries[entry, 1] = letter, stop - start
        entries[entry, 2], entries[entry, 3] = token, end - begin
        for i in range(start, stop):
            letters[letter] = text[i]
            letter += 1
        for i in range(begin, end):
            tokens[token] = new[i]
            token += 1
        entry, begin = entry + 1, end


_TABLE = "text length slots entries letters"
_LOOK_UP = ParallelKernel(_look_up, f"{_TABLE} units counts")
_INSERT = ParallelKernel(_insert, f"{_TABLE} tokens words ends new count size entry letter token")
_DTYPE = np.dtype(np.float32)  # kernels have one, this one computes with integers alone


class WordTable:
    """Tokens of texts by a table of words, which `encode` fills: returns (tokens,) uint32.

    - `encode`: returns the tokens of each word of a list. The tokens of a text must be those of its
      words, one after the other.

    A full table is emptied. A text of more than `MOST_BYTES` is given to `encode` whole.
    """

    def __init__(self, encode: Callable[[list[str]], Iterable[Sequence[int]]]) -> None:
        self.encode = encode
        self.slots = np.zeros(_SLOTS, np.int64)
        self.entries = np.empty((_ENTRIES, 4), np.int64)
        self.letters = np.empty(_ROOM, np.uint8)
        self.tokens = np.empty(_ROOM, np.uint32)
        self.used = np.zeros(3, np.int64)  # entries, letters, tokens

    def __call__(self, text: str) -> np.ndarray:
        """Return the tokens of a text."""
        if not text:
            return np.empty(0, np.uint32)
        data = np.frombuffer(text.encode(), np.uint8)
        if data.size > MOST_BYTES:
            return self._encoded(text)
        units, tasks = np.empty(data.size, np.int64), tasks_for(data.size, _PARALLEL)
        counts = np.empty((tasks, 2), np.int64)
        table: list[Any] = [data, data.size, self.slots, self.entries, self.letters]
        _LOOK_UP(_DTYPE, tasks, *_addresses(*table, units, counts))
        found = np.concatenate([units[first:end] for first, end in counts])
        missing = np.flatnonzero(found < 0)
        if missing.size and not self._learn(table, found, missing):
            if not self.used[0]:  # the text alone has more words than there is room for
                return self._encoded(text)
            self.slots.fill(0)
            self.used[:] = 0
            return self(text)
        start, size = self.entries[found, 2], self.entries[found, 3]
        before = np.cumsum(size) - size
        return self.tokens[np.repeat(start - before, size) + np.arange(size.sum())]

    def _encoded(self, text: str) -> np.ndarray:
        """Return the tokens of a text without the table."""
        return np.concatenate([np.array(ids, np.uint32) for ids in self.encode([text])])

    def _learn(self, table: list[Any], found: np.ndarray, missing: np.ndarray) -> bool:
        """Put the words that are missing into the table, and their entries into `found`.

        Returns False, and does nothing, if there is no room.
        """
        places, content = -1 - found[missing], table[0].tobytes()
        words: dict[bytes, int] = {}
        entries, firsts = [], []
        ends = ((places >> _LENGTH_BITS) + (places & _LENGTH)).tolist()
        for place, end in zip(places.tolist(), ends, strict=True):
            word = content[place >> _LENGTH_BITS : end]
            if word not in words:
                words[word] = len(words)
                firsts.append(place)
            entries.append(words[word])
        encoded = list(self.encode([word.decode() for word in words]))
        sizes = np.cumsum([len(ids) for ids in encoded], dtype=np.int64)
        new = np.array([token for ids in encoded for token in ids], np.uint32)
        more = (len(words), sum(map(len, words)), new.size)
        if (self.used + more > (_ENTRIES, _ROOM, _ROOM)).any():
            return False
        found[missing] = entries + self.used[0]
        arrays = (self.tokens, np.array(firsts), sizes, new)
        counts = (len(words), new.size, *self.used.tolist())
        _INSERT(_DTYPE, 1, *_addresses(*table, *arrays, *counts))
        self.used += more
        return True


def _addresses(*arguments: np.ndarray | int) -> list[int]:
    """Return the arguments with the addresses of arrays in their place."""
    return [address(x) if isinstance(x, np.ndarray) else x for x in arguments]
