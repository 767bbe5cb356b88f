"""Recorded drum hits by kit, with labels from the names of the instruments."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.mcl_mini.items import Credit
from scripts.mcl_mini.sources import Packages

KITS = "usr/share/hydrogen/data/drumkits"
SAMPLES = "usr/share/sonic-pi/samples"
GPL2, GPL2_LATER = "GPL-2.0-only", "GPL-2.0-or-later"
MILLO = "Emiliano Grilli"
GLEN = "Glen MacArthur"
ARTEMIO = "Artemiy Pavlov"

# Kit -> package, licence, author, split. The kits of one author that may share recordings are in
# one split; GMRockKit is left out because its recordings are those of The Black Pearl.
KIT_TABLE = {
    "Millo-Drums_v.1": ("hydrogen-drumkits", GPL2, MILLO, "train"),
    "Millo_MultiLayered2": ("hydrogen-drumkits", GPL2, MILLO, "train"),
    "Millo_MultiLayered3": ("hydrogen-drumkits", GPL2, MILLO, "train"),
    "ForzeeStereo": (
        "hydrogen-drumkits",
        GPL2,
        "Vladimir Sadovnikov, Alexander Belokurov",
        "train",
    ),
    "BJA_Pacific": ("hydrogen-drumkits", "CC-BY-SA-3.0-US", "Luc Tunguay", "train"),
    "circAfrique v4": ("hydrogen-drumkits", "CC-BY-SA-3.0", "Jim Harney", "train"),
    "ElectricEmpireKit": ("hydrogen-drumkits", GPL2_LATER, ARTEMIO, "train"),
    "VariBreaks": ("hydrogen-drumkits", GPL2_LATER, ARTEMIO, "validation"),
    "rumpf_kit_z01_h2": ("hydrogen-drumkits", "CC-BY-3.0", "Emanuel Rumpf", "validation"),
    "TR808EmulationKit": ("hydrogen-data", GPL2_LATER, "ArtemioLabs", "validation"),
    "The Black Pearl 1.0": ("hydrogen-drumkits", GPL2, GLEN, "test"),
    "Gimme A Hand 1.0": ("hydrogen-drumkits", GPL2, GLEN, "test"),
    "ColomboAcousticDrumkit": ("hydrogen-drumkits", GPL2_LATER, "Marcos Guglielmetti", "test"),
    "HardElectro1": ("hydrogen-drumkits", GPL2_LATER, ARTEMIO, "test"),
    "Audiophob": ("hydrogen-drumkits", "CC0-1.0", "audiophobdubstep", "test"),
}
# The first rule that fits counts. Rules without a label throw out what belongs to no class: rolls,
# muted hits, bells, sticks, and the small percussion that few kits have.
RULES = (
    (r"roll|mute|bell|agogo|stick|click|clave|wood|glass|snaps|clap|tamb|maraca|shaker", ""),
    (r"conga|bongo|djembe|dunun|sangban|kenkeni|cajon|tabla", "a hand drum"),
    (r"hi-?hat|hi hat|\bhat\b|\bo?hh\b", "a hi-hat"),
    (r"crash|ride|splash|china|cymbal", "a cymbal"),
    (r"snare", "a snare drum"),
    (r"kick|bass ?drum", "a kick drum"),
    (r"\btom|tomhi", "a tom drum"),
)
# Single files of a sample collection, by the beginning of their names.
SINGLE = {
    "bd_": "a kick drum",
    "drum_bass": "a kick drum",
    "drum_heavy_kick": "a kick drum",
    "drum_cymbal_closed": "a hi-hat",
    "drum_cymbal_open": "a hi-hat",
    "drum_cymbal_pedal": "a hi-hat",
    "drum_cymbal": "a cymbal",
    "drum_splash": "a cymbal",
    "drum_snare": "a snare drum",
    "elec_filt_snare": "a snare drum",
    "elec_hi_snare": "a snare drum",
    "elec_lo_snare": "a snare drum",
    "elec_mid_snare": "a snare drum",
    "elec_snare": "a snare drum",
    "sn_": "a snare drum",
    "drum_tom": "a tom drum",
    "tabla_": "a hand drum",
}


@dataclass(frozen=True)
class Hit:
    """One recorded hit."""

    key: str
    path: Path
    label: str
    kit: str
    split: str
    credit: Credit


def _label(name: str) -> str:
    """The class of an instrument by its name, empty if it has none."""
    lower = name.lower()
    return next((label for rule, label in RULES if re.search(rule, lower)), "")


def _kit_hits(packages: Packages, kit: str) -> Iterator[Hit]:
    """All labelled hits of one kit."""
    package, licence, author, split = KIT_TABLE[kit]
    folder = packages.root(package) / KITS / kit
    text = (folder / "drumkit.xml").read_text(encoding="utf-8", errors="replace")
    text = re.sub(r'\s(xmlns(:\w+)?|xsi:\w+)="[^"]*"', "", text)
    done = set()
    for instrument in ET.fromstring(text).iter("instrument"):
        name = instrument.findtext("name") or ""
        label = _label(name)
        files = sorted({node.text for node in instrument.iter("filename") if node.text})
        for file in files:
            if label and file not in done and (folder / file).exists():
                done.add(file)
                key = re.sub(r"\W+", "-", f"{kit}-{Path(file).stem}").lower()
                credit = Credit(f"{package} {kit}: {name}", licence, author)
                yield Hit(key, folder / file, label, f"kit {kit}", split, credit)


def _authors(packages: Packages) -> dict[str, str]:
    """File name -> recordist, from the copyright file of the sample collection."""
    root = packages.root("sonic-pi-samples")
    text = (root / "usr/share/doc/sonic-pi-samples/copyright").read_text(encoding="utf-8")
    pattern = r"Files: etc/samples/(\S+)\nCopyright: (?:\d{4} )?([^\n<]+?)\s*(?:<[^\n]*)?\n"
    return dict(re.findall(pattern, text))


def _single_hits(packages: Packages) -> Iterator[Hit]:
    """Labelled hits of the sample collection; all are for training."""
    authors = _authors(packages)
    for path in sorted((packages.root("sonic-pi-samples") / SAMPLES).glob("*.flac")):
        label = next((SINGLE[start] for start in SINGLE if path.name.startswith(start)), "")
        if label and path.name in authors:
            credit = Credit(f"sonic-pi-samples {path.name}", "CC0-1.0", authors[path.name])
            yield Hit(f"sonic-pi-{path.stem}", path, label, "sonic-pi-samples", "train", credit)


def hits(packages: Packages) -> Iterator[Hit]:
    """All drum hits; a kit is in one split."""
    for kit in KIT_TABLE:
        yield from _kit_hits(packages, kit)
    yield from _single_hits(packages)
