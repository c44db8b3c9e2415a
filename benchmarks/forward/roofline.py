"""What a step of the 14B network would take on cards that are not there: modelled, not measured.

Every operation of a step is counted by dev/fake_card, in a real ComfyUI, and takes the longer of its arithmetic at the
card's rate and its traffic at the rate of its memory; no operation hides behind another. Rates are those of data sheets
and, for attention, published ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure

SCRIPT = measure.ROOT / "dev" / "fake_card" / "forward.py"
SIZES = {"480p81": "480p, 81 frames", "720p121": "720p, 121 frames"}
FEWEST = "480p41"  # where launches would bind first
ROUNDED = "int8, attention in 8 bits"
HOST = {True: 50e-6, False: 10e-6}  # seconds of the host for a launch, by Triton at the most and by PyTorch
PARTS = ("attention", "products", "between", "quantising", "unpacking", "launches", "waits")
PLAIN = "16 bits"
HOW = "Modelled"  # what the page says instead of measured


# A card -> those that run the same operations; a precision that one of them has not is left out there.
ALIKE = {
    "4090": ["3060", "3090", "4060", "5090", "A100", "H200"],
    "4090 on Windows": ["4060 on Windows", "5090 on Windows"],
    "2080Ti": [],
    "7900XTX": [],
}


def cases(card) -> dict[str, dict]:
    """Name -> a case of dev/fake_card/forward.py."""
    precisions = {PLAIN: "bf16" if card.has_bfloat16 else "fp16", "int8": "int8", "nf4": "nf4"}
    if card.rates.fp8:
        precisions["fp8"] = "fp8"
    found = {}
    for size in SIZES:
        found |= {f"{size} {name}": {"size": size, "precision": kind} for name, kind in precisions.items()}
        if card.rates.attention8:
            found[f"{size} {ROUNDED}"] = {"size": size, "precision": "int8", "attention": "int8"}
    if card.has_triton and card.rates.fp8:
        found[f"{FEWEST} int8"] = {"size": FEWEST, "precision": "int8"}
    return found


def measured(quick: bool) -> dict:
    """Card -> case -> what a step takes."""
    from pack.dev.fake_card.profiles import CARDS

    def counted(name: str) -> dict[str, dict]:
        wanted, like = cases(CARDS[name]), ALIKE[name]
        if quick:
            wanted = dict(list(wanted.items())[:1])
        command = [sys.executable, str(SCRIPT), name, *(json.dumps(case) for case in wanted.values())]
        command += [word for other in like for word in ("--like", other)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        print(name, file=sys.stderr, flush=True)
        found: dict[str, dict] = {one: {} for one in (name, *like)}
        for case, line in zip(wanted, lines, strict=True):
            for one, seconds in {name: line["seconds"], **line["like"]}.items():
                if "fp8" not in case or CARDS[one].rates.fp8:
                    found[one][case] = {"seconds": seconds, "launches": line["launches"], "tokens": line["tokens"]}
        return found

    found: dict[str, dict] = {}
    with ThreadPoolExecutor(os.cpu_count()) as processes:
        for some in processes.map(counted, ["4090"] if quick else ALIKE):
            found |= some
    return {"cards": {name: found[name] for name in CARDS if name in found}}


def total(case: dict) -> float:
    return sum(case["seconds"].values())


def tables(results: dict) -> str:
    cards = results["cards"]
    parts = []
    for size, title in SIZES.items():
        kinds = (PLAIN, "int8", "fp8", "nf4", ROUNDED)
        rows = [
            [card, *(f"{total(of[name]):.1f}" if (name := f"{size} {kind}") in of else "" for kind in kinds)]
            for card, of in cards.items()
        ]
        parts.append(measure.table([f"seconds of a step, {title}", *kinds], rows))
    for size, title in SIZES.items():
        rows = []
        for card, of in cards.items():
            for kind in ("int8", PLAIN):
                if case := of.get(f"{size} {kind}"):
                    shares = [case["seconds"].get(part, 0.0) / total(case) for part in PARTS]
                    rows.append([f"{card}, {kind}", *(f"{share:.1%}" if share >= 0.0005 else "" for share in shares)])
        parts.append(measure.table([f"where it goes, {title}", *PARTS], rows))
    return "\n\n".join(parts) + "\n\n" + host(cards)


def host(cards: dict) -> str:
    """What launching costs, in a sentence: what a CUDA graph would take away."""
    from pack.dev.fake_card.profiles import CARDS

    shares = {
        f"{card}, {name}": HOST[CARDS[card].has_triton] * case["launches"] / total(case)
        for card, of in cards.items()
        for name, case in of.items()
    }
    most = max(shares, key=shares.__getitem__)
    return (
        f"Launching takes the host at most {shares[most]:.0%} of the time in which the card computes ({most}), while "
        "the card goes on: a CUDA graph would save nothing."
    )


if __name__ == "__main__":
    measure.main(measured)
