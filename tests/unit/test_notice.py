"""NOTICE names every installed package whose license is not permissive, or unknown."""

import re
from importlib.metadata import Distribution, distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PERMISSIVE = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|Zlib|0BSD|Unlicense|Public Domain|HPND|CC0|CNRI|BlueOak", re.I
)
RESTRICTED = re.compile(r"GPL|General Public|MPL|Mozilla|Proprietary|NVIDIA|EPL|EUPL|CDDL|SSPL|BUSL", re.I)


def license_of(package: Distribution) -> str:
    """What its metadata say, in short."""
    metadata = package.metadata
    classifiers = [each for each in metadata.get_all("Classifier", []) if each.startswith("License ::")]
    text = metadata.get("License", "").strip().split("\n")[0]  # some packages have the whole text here
    return "; ".join(filter(None, (metadata.get("License-Expression"), *classifiers, text)))


def test_notice_names_the_packages_with_licenses_to_know() -> None:
    installed = {each.name.lower(): license_of(each) for each in distributions()}
    del installed["f2llm-ray"]

    notable = {name for name, text in installed.items() if RESTRICTED.search(text) or not PERMISSIVE.search(text)}

    named = set(re.findall(r"^  (\S+)", (ROOT / "NOTICE").read_text(encoding="utf-8"), re.M))
    assert {name: installed[name] for name in sorted(notable)} == {name: installed.get(name) for name in sorted(named)}
