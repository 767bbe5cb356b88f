"""Recorded notes of instruments: the samples inside two General MIDI sound banks."""

import re
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from scripts.mcl_mini.items import Credit
from scripts.mcl_mini.sources import Packages
from scripts.mcl_mini.splits import Groups

FLUID = "fluid-soundfont-gm"
FREEPATS = "freepats"
BANK = "usr/share/sounds/sf2/FluidR3_GM.sf2"
PATCHES = "usr/share/midi/freepats/Tone_000"
SECONDS = 1.6

# General MIDI programs by family. Left out: free reeds, plucked and struck strings that are neither
# piano nor guitar, synthesised sounds, and effects.
FAMILIES = {
    "a piano": (0, 1, 2, 3, 4, 5, 6, 7),
    "a mallet instrument": (8, 9, 10, 11, 12, 13, 14),
    "an organ": (16, 17, 18, 19, 20),
    "a guitar": (24, 25, 26, 27, 28, 29, 30),
    "a bass guitar": (32, 33, 34, 35, 36, 37),
    "bowed strings": (40, 41, 42, 43, 44, 48, 49),
    "a brass instrument": (56, 57, 58, 59, 60, 61),
    "a woodwind": (64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75),
}
FAMILY_OF = {program: family for family, programs in FAMILIES.items() for program in programs}
NOT_A_NOTE = re.compile(r"\(R\)|[#b0-9]R$|Extension", re.IGNORECASE)


@dataclass(frozen=True)
class Note:
    """One recorded note, repeated along its loop up to a fixed length."""

    key: str
    family: str
    group: str
    samples: Float[np.ndarray, " samples"]
    rate: int
    credit: Credit


def _looped(
    samples: Float[np.ndarray, " samples"], start: int, end: int, rate: int
) -> Float[np.ndarray, " samples"]:
    """The note held for a while by repeating its loop, then faded out."""
    wanted = int(SECONDS * rate)
    if end - start > 32 and end <= len(samples):
        held = [samples[:end]]
        length = end
        while length < wanted:
            held.append(samples[start:end])
            length += end - start
        samples = np.concatenate(held)
    samples = samples[:wanted].copy()
    fade = min(len(samples), rate // 5)
    samples[len(samples) - fade :] *= np.linspace(1, 0, fade)
    return samples


class SoundFont:
    """The tables of a SoundFont 2 file that say which sample belongs to which program."""

    TABLES: ClassVar = {
        "phdr": "<20sHHHIII",
        "pbag": "<HH",
        "pgen": "<HH",
        "inst": "<20sH",
        "ibag": "<HH",
        "igen": "<HH",
        "shdr": "<20sIIIIIBbHH",
    }
    INSTRUMENT, SAMPLE = 41, 53

    def __init__(self, path: Path) -> None:
        self.blob = path.read_bytes()
        spans = dict(self._spans())
        self.tables = {
            name: list(struct.iter_unpack(form, self.blob[slice(*spans[name])]))
            for name, form in self.TABLES.items()
        }
        self.pcm = np.frombuffer(self.blob[slice(*spans["smpl"])], dtype="<i2")

    def _spans(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Name and byte range of every chunk inside the lists of the file."""
        position = 12
        while position < len(self.blob):
            name, size = struct.unpack_from("<4sI", self.blob, position)
            inner = position + 12
            while name == b"LIST" and inner < position + 8 + size:
                sub, length = struct.unpack_from("<4sI", self.blob, inner)
                yield sub.decode("latin-1"), (inner + 8, inner + 8 + length)
                inner += 8 + length + length % 2
            position += 8 + size + size % 2

    def _targets(self, bags: str, generators: str, kind: int, first: int, last: int) -> list[int]:
        """What the zones `first` to `last` of a table point to."""
        start, stop = self.tables[bags][first][0], self.tables[bags][last][0]
        return [value for code, value in self.tables[generators][start:stop] if code == kind]

    def samples_of(self) -> dict[int, list[int]]:
        """Program of the standard bank -> the samples it plays."""
        result: dict[int, list[int]] = {}
        headers, instruments = self.tables["phdr"], self.tables["inst"]
        for header, following in pairwise(headers):
            if header[2] != 0:
                continue
            played = self._targets("pbag", "pgen", self.INSTRUMENT, header[3], following[3])
            result[header[1]] = sorted(
                {
                    sample
                    for number in played
                    for sample in self._targets(
                        "ibag",
                        "igen",
                        self.SAMPLE,
                        instruments[number][1],
                        instruments[number + 1][1],
                    )
                }
            )
        return result


def _fluid(packages: Packages) -> Iterator[tuple[int, str, Note | None]]:
    """Program, sample id and note for the samples of the first bank (left channels only).

    A sample that several programs play comes with its note once and without it afterwards.
    """
    font = SoundFont(packages.root(FLUID) / BANK)
    done = set()
    for program, numbers in sorted(font.samples_of().items()):
        for number in numbers:
            header = font.tables["shdr"][number]
            name = header[0].split(b"\0")[0].decode("latin-1").strip()
            start, end, loop_start, loop_end, rate = header[1:6]
            if program not in FAMILY_OF or NOT_A_NOTE.search(name) or end - start < 0.1 * rate:
                continue
            note = None
            if number not in done:
                done.add(number)
                samples = font.pcm[start:end].astype(np.float64) / 2**15
                samples = _looped(samples, loop_start - start, loop_end - start, rate)
                key = f"fluid-{program:03d}-{number:04d}"
                credit = Credit(f"{FLUID} {name}", "MIT", "Frank Wen and contributors")
                note = Note(key, "", "", samples, rate, credit)
            yield program, f"fluid-{number}", note


def _freepats(packages: Packages) -> Iterator[tuple[int, str, Note | None]]:
    """Program, sample id and note for every sample of the patches of the second bank."""
    credit_to = "Freepats project"
    for path in sorted((packages.root(FREEPATS) / PATCHES).glob("*.pat")):
        program = int(path.name[:3])
        if program not in FAMILY_OF:
            continue
        blob = path.read_bytes()
        position = 129 + 63 + 47
        for number in range(blob[129 + 63 + 6]):
            size, start, end = struct.unpack_from("<III", blob, position + 8)
            (rate,) = struct.unpack_from("<H", blob, position + 20)
            mode = blob[position + 55]
            raw = blob[position + 96 : position + 96 + size]
            position += 96 + size
            samples = _decoded(raw, mode)
            width = 2 if mode & 1 else 1
            first, last = (start // width, end // width) if mode & 4 else (0, 0)
            key = f"freepats-{program:03d}-{number:02d}"
            credit = Credit(
                f"{FREEPATS} {path.stem} sample {number}", "GPL-2.0-or-later", credit_to
            )
            note = Note(key, "", "", _looped(samples, first, last, rate), rate, credit)
            yield program, key, note


def _decoded(raw: bytes, mode: int) -> Float[np.ndarray, " samples"]:
    """Samples of a patch: 8 or 16 bits (bit 0 of the mode), signed or not (bit 1)."""
    bits = 16 if mode & 1 else 8
    kind = f"{'u' if mode & 2 else 'i'}{bits // 8}"
    values = np.frombuffer(raw[: len(raw) // (bits // 8) * (bits // 8)], dtype=f"<{kind}")
    offset = 2 ** (bits - 1) if mode & 2 else 0
    return (values.astype(np.float64) - offset) / 2 ** (bits - 1)


def notes(packages: Packages) -> list[Note]:
    """All notes. Programs of both banks that play a common sample are one group."""
    found = [*_fluid(packages), *_freepats(packages)]
    groups = Groups(f"program-{program:03d}" for program, _, _ in found)
    players = defaultdict(list)
    for program, sample, _ in found:
        players[sample].append(f"program-{program:03d}")
    for first, *others in players.values():
        for other in others:
            groups.join(first, other)
    return [
        replace(note, family=FAMILY_OF[program], group=groups.find(f"program-{program:03d}"))
        for program, _, note in found
        if note
    ]
