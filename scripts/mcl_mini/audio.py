"""Audio: short recordings of drums, instruments, voices, animals and weapons."""

import io
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from scripts.mcl_mini.drums import hits
from scripts.mcl_mini.effects import effects
from scripts.mcl_mini.items import Item, Modality, without_copies
from scripts.mcl_mini.notes import FAMILIES, notes
from scripts.mcl_mini.sources import Packages
from scripts.mcl_mini.splits import assign

RATE = 16_000
SECONDS = 2.0
SILENCE = 0.1
LABELS = (
    "a hi-hat",
    "a cymbal",
    "a snare drum",
    "a kick drum",
    "a tom drum",
    "a hand drum",
    *FAMILIES,
    "a voice",
    "an animal",
    "a weapon",
)
Samples = Float[np.ndarray, " samples"]


def _prepared(samples: Samples, rate: int) -> Samples:
    """Mono at the common rate, from where the sound begins, at most two seconds, peak 0.9."""
    samples = soxr.resample(samples, rate, RATE) if rate != RATE else samples
    peak = np.abs(samples).max(initial=0)
    loud = np.flatnonzero(np.abs(samples) > 0.02 * peak)
    start = max(0, int(loud[0]) - RATE // 100) if len(loud) else 0
    samples = samples[start : start + int(RATE * SECONDS)]
    end = int(np.flatnonzero(np.abs(samples) > 0.003 * peak)[-1]) + 1 if len(loud) else len(samples)
    return 0.9 * samples[: max(end, RATE // 20)] / max(peak, 1e-9)


def _read(path: str) -> tuple[Samples, int]:
    """Mono samples of a file, with its rate."""
    samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
    return samples.mean(1), rate


def _ogg(samples: Samples) -> bytes:
    """Ogg Opus with a fixed serial number, so that the same sound gives the same bytes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="OGG", subtype="OPUS", compression_level=0.9)
    return _with_serial(buffer.getvalue(), 1)


def _crc_table() -> list[int]:
    """Table of the checksum of Ogg pages (polynomial 0x04c11db7, not reflected)."""
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
        table.append(value & 0xFFFFFFFF)
    return table


_CRC = _crc_table()


def _with_serial(data: bytes, serial: int) -> bytes:
    """The same Ogg stream with another serial number; the writer draws one at random."""
    result = bytearray()
    position = 0
    while position < len(data):
        count = data[position + 26]
        size = 27 + count + sum(data[position + 27 : position + 27 + count])
        page = bytearray(data[position : position + size])
        page[14:18] = serial.to_bytes(4, "little")
        page[22:26] = bytes(4)
        crc = 0
        for byte in page:
            crc = ((crc << 8) & 0xFFFFFFFF) ^ _CRC[(crc >> 24) ^ byte]
        page[22:26] = crc.to_bytes(4, "little")
        result += page
        position += size
    return bytes(result)


def _length(samples: Samples) -> str:
    """Short or long by the time in which nine tenths of the energy have passed."""
    energy = np.cumsum(samples**2)
    seconds = float(np.searchsorted(energy, 0.9 * energy[-1])) / RATE
    return "short" if seconds < 0.15 else "long" if seconds > 0.6 else "medium"


def _pitch(samples: Samples) -> str:
    """Low, middle or high by the centre of gravity of the spectrum."""
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    centre = float((spectrum * np.fft.rfftfreq(len(samples), 1 / RATE)).sum() / spectrum.sum())
    return "deep" if centre < 350 else "bright" if centre > 1500 else "warm"


def _captions(samples: Samples, label: str) -> list[str]:
    """Captions from the class and from how long and how bright the sound is."""
    noun = label.removeprefix("a ").removeprefix("an ")
    length, pitch = _length(samples), _pitch(samples)
    return [
        f"a {length} {pitch} sound of {label}",
        f"a {pitch} {noun} sound, {length}",
        f"{label}, {length} and {pitch}",
        f"the sound of {label}",
    ]


def _recordings(packages: Packages) -> Iterator[tuple[Item, Samples]]:
    """Items without bytes and captions, with their samples."""
    for hit in hits(packages):
        item = Item(hit.key, b"", hit.kit, hit.split, hit.credit, hit.label)
        yield item, _prepared(*_read(str(hit.path)))
    played = notes(packages)
    splits = assign({note.group: note.family for note in played})
    for note in played:
        item = Item(note.key, b"", note.group, splits[note.group], note.credit, note.family)
        yield item, _prepared(note.samples, note.rate)
    heard = list(effects(packages))
    splits = assign({effect.group: effect.label for effect in heard})
    for effect in heard:
        split = splits[effect.group]
        item = Item(effect.key, b"", effect.group, split, effect.credit, effect.label)
        yield item, _prepared(*_read(str(effect.path)))


def modality(packages: Packages) -> Modality:
    """All audio samples."""
    items = [
        Item(
            key=item.key,
            data=_ogg(samples),
            thing=item.thing,
            split=item.split,
            credit=item.credit,
            label=item.label,
            captions=_captions(samples, item.label),
        )
        for item, samples in _recordings(packages)
        if np.abs(samples).max(initial=0) > SILENCE
    ]
    return Modality(
        name="audio",
        questions=("What makes this sound?", "What is heard?", "Which sound is this?"),
        prompts=("Describe the sound.", "What does the recording sound like?"),
        items=without_copies(items),
        choices=LABELS,
    )
