"""The pictures of the workflows in the template browser: what goes in above, frames of what the nano models made of it
below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from pack.dev.drawing import EDGE, VOICES, Card, loudness_of, picture_of, spread
from pack.showcase.runs import Run

SIDE = 512  # pixels; the browser shows squares
GAP = 14
WIDE = SIDE - 2 * GAP


def middle(frames: Sequence[Image.Image]) -> Image.Image:
    return frames[len(frames) // 2]


def strip(card: Card, pictures: Sequence[Image.Image], top: float, height: float) -> None:
    """Pictures side by side."""
    width = (SIDE - (len(pictures) + 1) * GAP) / len(pictures)
    for index, picture in enumerate(pictures):
        card.picture(picture, GAP + index * (width + GAP), top, width, height)


def two_inputs(card: Card, run: Run, height: float) -> None:
    strip(card, [picture_of(path) for path in run.pictures], GAP, height)
    card.arrow(SIDE / 2, GAP + height + 6, 26)


def reference(card: Card, run: Run) -> None:
    two_inputs(card, run, 150)
    card.picture(middle(run.frames()), GAP, 198, WIDE, SIDE - 198 - GAP)


def extension(card: Card, run: Run) -> None:
    source, *new = run.parts()
    strip(card, spread(source, 3), GAP, 104)
    card.arrow(SIDE / 2, 124, 26)
    card.picture(new[0][-1], GAP, 156, WIDE, SIDE - 156 - GAP)


def storyboard(card: Card, run: Run) -> None:
    source, *new = run.parts()
    card.picture(source[-1], (SIDE - 200) / 2, GAP, 200, 134)
    card.arrow(SIDE / 2, 154, 26)
    card.picture(middle(new[1]), GAP, 186, WIDE, 200)
    strip(card, [middle(new[0]), middle(new[1]), middle(new[2])], 398, SIDE - 398 - GAP)


def avatar(card: Card, run: Run) -> None:
    card.picture(run.loudest(), GAP, GAP, WIDE, 350)
    card.sound(loudness_of(run.recordings[0], 48), 2 * GAP, 378, SIDE - 4 * GAP, SIDE - 378 - GAP, VOICES[0])


def two_people(card: Card, run: Run) -> None:
    card.picture(run.loudest(), GAP, GAP, WIDE, 310)
    half = (SIDE - 4 * GAP) / 2
    for side, colour in enumerate(VOICES[:2]):
        loudness = loudness_of(run.recordings[side], 24)
        card.sound(loudness, 2 * GAP + side * half, 332 + 82 * side, half, 84, colour)


def dub(card: Card, run: Run) -> None:
    before = run.parts()[0]
    card.picture(before[-1], GAP, GAP, WIDE, 150)
    card.picture(run.loudest(), GAP, 150 + 2 * GAP, WIDE, 240)
    card.sound(
        loudness_of(run.recordings[0], 48), 2 * GAP, 390 + 3 * GAP, SIDE - 4 * GAP, SIDE - 390 - 4 * GAP, VOICES[0]
    )


def table(card: Card, run: Run) -> None:
    card.picture(run.loudest(), GAP, GAP, WIDE, 310)
    third = (SIDE - 4 * GAP) / 3
    for person, colour in enumerate(VOICES):
        loudness = loudness_of(run.recordings[person], 16)
        card.sound(loudness, 2 * GAP + person * third, 332 + 56 * person, third, 56, colour)


def story(card: Card, run: Run) -> None:
    two_inputs(card, run, 150)
    first, on, cut, *_ = run.parts()
    card.picture(middle(cut), GAP, 198, WIDE, 186)
    strip(card, [middle(first), middle(on), middle(cut)], 398, SIDE - 398 - GAP)


def film(card: Card, run: Run) -> None:
    two_inputs(card, run, 130)
    first, _, cut, *_ = run.parts()
    strip(card, [middle(first), middle(cut), run.loudest()], 178, 130)
    card.picture(run.loudest(), GAP, 322, 252, SIDE - 322 - GAP)
    card.sound(loudness_of(run.recordings[0], 26), 3 * GAP + 246, 330, SIDE - 5 * GAP - 246, 160, VOICES[0])


def scripted(card: Card, run: Run) -> None:
    two_inputs(card, run, 110)
    source, first, on, cut, _ = run.parts()
    strip(card, [source[-1], middle(first), middle(on), middle(cut)], 158, 80)
    card.picture(middle(first), GAP, 252, (WIDE - GAP) / 2, 150)
    card.picture(run.loudest(), GAP + (WIDE + GAP) / 2, 252, (WIDE - GAP) / 2, 150)
    card.sound(loudness_of(run.recordings[0], 48), 2 * GAP, 412, SIDE - 4 * GAP, SIDE - 412 - GAP, VOICES[0])


def batch(card: Card, run: Run) -> None:
    two_inputs(card, run, 130)
    for number in range(len(run.videos)):
        top = 180 + number * 110
        card.words(str(number + 1), 3 * GAP, top + 48, 44, EDGE, "mm")
        for line, length in enumerate((190, 150, 110 + 30 * (number + 1) % 70)):
            card.plate(84, top + 24 + 22 * line, length, 10, EDGE)
        card.picture(middle(run.frames(number)), SIDE - 180 - GAP, top, 180, 100)


def low_vram(draw: Callable[[Card, Run], None]) -> Callable[[Card, Run], None]:
    def drawn(card: Card, run: Run) -> None:
        draw(card, run)
        card.badge("8 GB", SIDE - 18, 18, 34)

    return drawn


CARDS: dict[str, Callable[[Card, Run], None]] = {
    "reference_to_video": reference,
    "video_extension": extension,
    "storyboard_extension": storyboard,
    "talking_avatar": avatar,
    "talking_avatar_two_people": two_people,
    "dub_footage": dub,
    "dialogue": table,
    "reference_extend_cut": story,
    "short_film": film,
    "film": scripted,
    "prompt_batch": batch,
    "reference_to_video_low_vram": low_vram(reference),
    "talking_avatar_low_vram": low_vram(avatar),
}


def write_thumbnail(path: Path, run: Run) -> Path:
    """path: a .jpg, the only kind that the browser looks for."""
    card = Card(SIDE, SIDE)
    CARDS[run.name](card, run)
    return card.save(path)
