"""Prompts: a plain English sentence for a scene, in several phrasings, and back again.

`write` says everything but the seed; `read` understands it in whatever order it is said, and refuses words that are
not in the vocabulary, so that whether a video follows its prompt can be measured.
"""

import re
from dataclasses import dataclass, field

from .looks import CHARACTERS
from .scenes import ACTIONS, CAMERAS, CUTS, SHOTS, Actor, Scene
from .things import OBJECTS

PHRASINGS = 4
PLACE_PHRASES = {
    "beach": "on the beach",
    "forest": "in the forest",
    "city": "in the city",
    "room": "in the room",
    "desert": "in the desert",
    "snow": "in the snow",
    "space": "in space",
    "stage": "on the stage",
}
TIME_PHRASES = {"day": "by day", "dusk": "at dusk", "night": "at night"}
_NAMES = (*CHARACTERS, *OBJECTS)
_SMALL = "a an the and is it of in on by at to there from between beside holds holding shot side scene cuts camera"
VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {
            *_NAMES,
            *_SMALL.split(),
            *(word for phrase in (*ACTIONS, *CAMERAS, *SHOTS) for word in phrase.split()),
            *(word for phrase in (*PLACE_PHRASES.values(), *TIME_PHRASES.values()) for word in phrase.split()),
        }
    )
) + tuple(f"[{tag}]" for tag in CUTS)
_WORDS = re.compile(r"\[\w+\]|\w+|[.,:;!?]")


class PromptError(ValueError):
    """A prompt that says nothing the world can show; one sentence."""


def write(scene: Scene, phrasing: int = 0, cut: str | None = None) -> str:
    """A scene in words. phrasing: 0 to PHRASINGS - 1.  cut: of CUTS, where the clip cuts to this scene."""
    place, time = PLACE_PHRASES[scene.place], TIME_PHRASES[scene.time]
    people = " and ".join(_person(actor, phrasing) for actor in scene.actors)
    if phrasing == 0:
        body = f"{people} {place} {time}."
    elif phrasing == 1:
        body = f"{place} {time}, {people}."
    elif phrasing == 2:
        body = f"{time}, {people} {place}."
    else:
        body = f"It is {scene.time} {place}. {_sentence(people)}."
    sentences = [*_framing(scene, cut), body]
    if scene.thing:
        names = [f"the {actor.character}" for actor in scene.actors]
        where = f"between {' and '.join(names)}" if names[1:] else f"beside {names[0]}"
        thing = _article(scene.thing)
        sentences.append((f"{thing} is {where}.", f"there is {thing} {where}.")[phrasing % 2])
    if scene.camera != "still" or phrasing == 3:
        sentences.append(f"the camera {'is still' if scene.camera == 'still' else scene.camera}.")
    text = " ".join(_sentence(part) for part in sentences)
    return f"[{cut}] {text}" if cut else text


def read(prompt: str) -> tuple[Scene, str | None]:
    """The scene (seed 0) that a prompt says, and its cut's tag or None. A time that is not said is day.

    Raises PromptError for unknown words, and where no character or no place is said.
    """
    words = [word if word.startswith("[") else word.lower() for word in _WORDS.findall(prompt)]
    unknown = [word for word in words if word not in VOCABULARY and word not in ".,:;!?"]
    if unknown:
        raise PromptError(f"The prompt has words that this world does not know: {', '.join(unknown)}.")
    heard = _Heard()
    for sentence in re.split(r"(?<= \.)", " ".join(words)):
        _read_sentence([word for word in sentence.split() if word not in ".,:;!?"], heard)
    if not heard.actors or heard.place is None:
        raise PromptError("The prompt needs a character and a place, such as `A fox waves on the beach.`.")
    actors = tuple(Actor(name, **said) for name, said in heard.actors.items())
    try:
        return Scene(actors=actors, place=heard.place, time=heard.time, **heard.said), heard.cut
    except ValueError as error:
        raise PromptError(str(error)) from error


@dataclass
class _Heard:
    """What was understood so far."""

    actors: dict[str, dict] = field(default_factory=dict)
    place: str | None = None
    time: str = "day"
    cut: str | None = None
    said: dict = field(default_factory=dict)


def _read_sentence(words: list[str], heard: _Heard) -> None:
    actor, holding = None, False
    phrases = {tuple(phrase.split()): phrase for phrase in (*ACTIONS, *CAMERAS)}
    of_camera = "camera" in words
    for i, word in enumerate(words):
        after, phrase = words[i + 1] if i + 1 < len(words) else "", phrases.get(tuple(words[i : i + 2]))
        new = i > 0 and words[i - 1] in ("a", "an")
        if word.startswith("["):
            heard.cut = word[1:-1]
        elif word in SHOTS and after == "shot":
            heard.said["shot"] = word
        elif word in ("left", "right") and after == "side":
            heard.said["side"] = word
        elif of_camera and phrase in CAMERAS:
            heard.said["camera"] = phrase
        elif word in CHARACTERS and new:
            actor = heard.actors.setdefault(word, {})
        elif word in _NAMES and "shot" in words:
            heard.said["subject"] = word
        elif word in ("holds", "holding"):
            holding = True
        elif word in OBJECTS and holding and actor is not None:
            actor["holds"], holding = word, False
        elif word in OBJECTS and new:
            heard.said["thing"] = word
        elif word in PLACE_PHRASES:
            heard.place = word
        elif word in TIME_PHRASES:
            heard.time = word
        elif actor is not None and (phrase in ACTIONS or word in ACTIONS):
            actor["action"] = phrase if phrase in ACTIONS else word


def _framing(scene: Scene, cut: str | None) -> list[str]:
    """The sentence that says how the picture is framed, if anything is to be said."""
    if scene.shot == "wide" and scene.side == "front" and scene.subject is None and not cut:
        return []
    shot = f"a {scene.shot} shot"
    if scene.subject:
        shot += f" of the {scene.subject}"
    if scene.side != "front":
        shot += f" from the {scene.side} side"
    return [f"the scene cuts to {shot}." if cut else f"{shot}."]


def _person(actor: Actor, phrasing: int) -> str:
    who = _article(actor.character)
    if actor.holds is None:
        return f"{who} {actor.action}"
    held = _article(actor.holds)
    if phrasing == 0:
        return f"{who} {actor.action}, holding {held},"
    if phrasing == 1:
        return f"{who} {actor.action} and holds {held}"
    return f"{who} holding {held} {actor.action}"


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].replace(",.", ".")
