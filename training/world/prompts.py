"""Prompts: a plain English sentence for a scene, in several phrasings, and back again.

`write` says everything but the seed; `read` understands it in whatever order it is said, and refuses words that are
not in the vocabulary, so that whether a video follows its prompt can be measured. Who and what is shown can be left to
pictures: `write` then says "a character" or "an object", which `roles` hears too, but `read` cannot draw.
"""

import re
from collections.abc import Collection
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
# What is said in place of names: of the first character, of the second, of any object.
UNNAMED = ("character", "second character", "object")
_SMALL = "a an the and is it of in on by at to there from between beside holds holding shot side scene cuts camera"
VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {
            *_NAMES,
            *_SMALL.split(),
            *(word for phrase in UNNAMED for word in phrase.split()),
            *(word for phrase in (*ACTIONS, *CAMERAS, *SHOTS) for word in phrase.split()),
            *(word for phrase in (*PLACE_PHRASES.values(), *TIME_PHRASES.values()) for word in phrase.split()),
        }
    )
) + tuple(f"[{tag}]" for tag in CUTS)
ROLES = (
    *(f"{which} {kind}" for which in ("first", "second") for kind in ("character", "action", "held")),
    *("thing", "place", "time", "camera", "shot", "side", "subject", "cut"),
)
_MARKS = ".,:;!?"
_WORDS = re.compile(r"\[\w+\]|\w+|[.,:;!?]")


class PromptError(ValueError):
    """A prompt that says nothing the world can show; one sentence."""


def write(scene: Scene, phrasing: int = 0, cut: str | None = None, unnamed: Collection[str] = ()) -> str:
    """A scene in words. phrasing: 0 to PHRASINGS - 1.  cut: of CUTS, where the clip cuts to this scene.

    unnamed: characters and objects that are only called so, as where a picture of them is given.
    """
    called = {name: name for name in _NAMES} | {name: "object" for name in unnamed}
    called |= {a.character: word for a, word in zip(scene.actors, UNNAMED, strict=False) if a.character in unnamed}
    place, time = PLACE_PHRASES[scene.place], TIME_PHRASES[scene.time]
    people = " and ".join(_person(actor, phrasing, called) for actor in scene.actors)
    if phrasing == 0:
        body = f"{people} {place} {time}."
    elif phrasing == 1:
        body = f"{place} {time}, {people}."
    elif phrasing == 2:
        body = f"{time}, {people} {place}."
    else:
        body = f"It is {scene.time} {place}. {_sentence(people)}."
    sentences = [*_framing(scene, cut, called), body]
    if scene.thing:
        names = [f"the {called[actor.character]}" for actor in scene.actors]
        where = f"between {' and '.join(names)}" if names[1:] else f"beside {names[0]}"
        thing = _article(called[scene.thing])
        sentences.append((f"{thing} is {where}.", f"there is {thing} {where}.")[phrasing % 2])
    if scene.camera != "still" or phrasing == 3:
        sentences.append(f"the camera {'is still' if scene.camera == 'still' else scene.camera}.")
    text = " ".join(_sentence(part) for part in sentences)
    return f"[{cut}] {text}" if cut else text


def read(prompt: str) -> tuple[Scene, str | None]:
    """The scene (seed 0) that a prompt says, and its cut's tag or None. A time that is not said is day.

    Raises PromptError for unknown words, where no character or no place is said, and where one is not named.
    """
    words = _words(prompt)
    unknown = [word for word in words if word not in VOCABULARY and word not in _MARKS]
    if unknown:
        raise PromptError(f"The prompt has words that this world does not know: {', '.join(unknown)}.")
    heard = _hear(words)
    if not heard.actors or heard.place is None:
        raise PromptError("The prompt needs a character and a place, such as `A fox waves on the beach.`.")
    if not set(UNNAMED).isdisjoint(
        {*heard.actors, *heard.said.values(), *(a.get("holds") for a in heard.actors.values())}
    ):
        raise PromptError("The prompt leaves open who or what is shown: name it, such as `fox` for `character`.")
    actors = tuple(Actor(name, **said) for name, said in heard.actors.items())
    try:
        return Scene(actors=actors, place=heard.place, time=heard.time, **heard.said), heard.cut
    except ValueError as error:
        raise PromptError(str(error)) from error


def roles(prompt: str) -> list[tuple[str, str]]:
    """Every word and mark of a prompt and what it says: one of ROLES, "" for those that say nothing of their own.

    Names may be left open, and words that this world does not know say nothing.
    """
    words = _words(prompt)
    return list(zip(words, _hear(words).roles, strict=True))


@dataclass
class _Heard:
    """What was understood so far. roles: of every word."""

    actors: dict[str, dict] = field(default_factory=dict)
    place: str | None = None
    time: str = "day"
    cut: str | None = None
    said: dict = field(default_factory=dict)
    roles: list[str] = field(default_factory=list)


def _words(prompt: str) -> list[str]:
    return [word if word.startswith("[") else word.lower() for word in _WORDS.findall(prompt)]


def _hear(words: list[str]) -> _Heard:
    heard = _Heard()
    for sentence in re.split(r"(?<= \.)", " ".join(words)):
        heard.roles += _hear_sentence(sentence.split(), heard)
    return heard


def _hear_sentence(words: list[str], heard: _Heard) -> list[str]:
    """Add what a sentence says to `heard`; the roles of its words."""
    found = [""] * len(words)
    actor, holding = None, False
    phrases = {tuple(phrase.split()): phrase for phrase in (*ACTIONS, *CAMERAS)}
    of_camera = "camera" in words
    for i, word in enumerate(words):
        after, phrase = words[i + 1] if i + 1 < len(words) else "", phrases.get(tuple(words[i : i + 2]))
        second = word == "character" and words[i - 1 : i] == ["second"]
        article, name = words[i - 1 - second] if i > second else "", "second character" if second else word
        new = article in ("a", "an")
        if word.startswith("["):
            heard.cut, found[i] = word[1:-1], "cut"
        elif word in SHOTS and after == "shot":
            heard.said["shot"], found[i] = word, "shot"
        elif word in ("left", "right") and after == "side":
            heard.said["side"], found[i] = word, "side"
        elif of_camera and (phrase in CAMERAS or word in CAMERAS):
            camera = phrase if phrase in CAMERAS else word
            heard.said["camera"] = camera
            for j in range(i, i + len(camera.split())):
                found[j] = "camera"
        elif word in (*CHARACTERS, "character") and new:
            actor, found[i] = heard.actors.setdefault(name, {}), _role("character", heard)
        elif word in (*_NAMES, *UNNAMED) and "shot" in words:
            heard.said["subject"], found[i] = name, "subject"
        elif word in ("holds", "holding"):
            holding = True
        elif word in (*OBJECTS, "object") and holding and actor is not None:
            actor["holds"], holding, found[i] = word, False, _role("held", heard)
        elif word in (*OBJECTS, "object") and new:
            heard.said["thing"], found[i] = word, "thing"
        elif word in PLACE_PHRASES:
            heard.place, found[i] = word, "place"
        elif word in TIME_PHRASES:
            heard.time, found[i] = word, "time"
        elif actor is not None and (phrase in ACTIONS or word in ACTIONS):
            actor["action"] = phrase if phrase in ACTIONS else word
            for j in range(i, i + len(actor["action"].split())):
                found[j] = _role("action", heard)
        if second:
            found[i - 1] = found[i]
    return found


def _role(kind: str, heard: _Heard) -> str:
    """Of the first or of any further character: an actor speaks of itself until the next one is met."""
    return f"{'first' if len(heard.actors) == 1 else 'second'} {kind}"


def _framing(scene: Scene, cut: str | None, called: dict[str, str]) -> list[str]:
    """The sentence that says how the picture is framed, if anything is to be said."""
    if scene.shot == "wide" and scene.side == "front" and scene.subject is None and not cut:
        return []
    shot = f"a {scene.shot} shot"
    if scene.subject:
        shot += f" of the {called[scene.subject]}"
    if scene.side != "front":
        shot += f" from the {scene.side} side"
    return [f"the scene cuts to {shot}." if cut else f"{shot}."]


def _person(actor: Actor, phrasing: int, called: dict[str, str]) -> str:
    who = _article(called[actor.character])
    if actor.holds is None:
        return f"{who} {actor.action}"
    held = _article(called[actor.holds])
    if phrasing == 0:
        return f"{who} {actor.action}, holding {held},"
    if phrasing == 1:
        return f"{who} {actor.action} and holds {held}"
    return f"{who} holding {held} {actor.action}"


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].replace(",.", ".")
