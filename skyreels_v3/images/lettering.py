"""Names on pictures, in any script for which the machine has letters."""

from functools import cache

from PIL import Image, ImageDraw, ImageFont

# What systems have for scripts that Pillow's own letters lack, by name: Windows, macOS, Linux.
SYSTEM_FONTS = ("msyh.ttc", "PingFang.ttc", "Hiragino Sans GB.ttc", "NotoSansCJK-Regular.ttc", "DejaVuSans.ttf")
MISSING = "\uffff"  # no font has this one

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def lettered(text: str, size: int, instead: str) -> tuple[str, Font]:
    """The text and a font of so many pixels that has all its letters; `instead` where no font has.

    instead: in ASCII.
    """
    for font in _fonts(size):
        if _has(font, text):
            return text, font
    return instead, _fonts(size)[0]


@cache
def _fonts(size: int) -> tuple[Font, ...]:
    """Pillow's own first."""
    found: list[Font] = [ImageFont.load_default(size)]
    for name in SYSTEM_FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:  # not on this machine, or Pillow was made without FreeType
            continue
    return tuple(found)


def _has(font: Font, text: str) -> bool:
    if not isinstance(font, ImageFont.FreeTypeFont):
        return text.isascii()  # letters of a Pillow without FreeType
    blank = _drawn(font, MISSING)
    return all(sign.isascii() or _drawn(font, sign) != blank for sign in text)


def _drawn(font: ImageFont.FreeTypeFont, sign: str) -> bytes:
    picture = Image.new("L", (2 * round(font.size), 2 * round(font.size)))
    ImageDraw.Draw(picture).text((0, 0), sign, fill=255, font=font)
    return picture.tobytes()
