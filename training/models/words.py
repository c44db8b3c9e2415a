"""A sentencepiece model whose pieces are the whole words of the prompts of this world; all else falls back to bytes.

Capitals do not matter. The trainer of sentencepiece makes the rules; the pieces are then put in place of its own, for
it would cut words where that is shorter.
"""

import io
import string
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

PAD, END, BEGIN, UNKNOWN = range(4)  # as of umt5
NORMAL, UNKNOWN_KIND, CONTROL, BYTE = 1, 2, 3, 6  # kinds of pieces in sentencepiece's format
SPACE = "▁"  # how sentencepiece writes one
MARKS = ".,:;!?"


def sentencepiece_model(words: Sequence[str]) -> bytes:
    """The serialized model: control pieces, bytes, a lone space, marks, and every word with the space before it."""
    pieces = [("<pad>", CONTROL), ("</s>", CONTROL), ("<s>", CONTROL), ("<unk>", UNKNOWN_KIND)]
    pieces += [(f"<0x{byte:02X}>", BYTE) for byte in range(256)]
    pieces += [(piece, NORMAL) for piece in (SPACE, *MARKS, *(SPACE + word.lower() for word in words))]
    # What is written is the most likely cut: one piece where there is one, as each costs the same.
    written = b"".join(_field(1, _piece(text, kind)) for text, kind in pieces)
    rules = b"".join(_field(number, content) for number, content in _fields(_trained()) if number != 1)
    return written + rules


def _trained() -> bytes:
    """A model with any pieces and the right rules: capitals and line breaks are folded away, padding is as in umt5."""
    import sentencepiece  # ComfyUI needs it too, but only here

    folded = {capital: capital.lower() for capital in string.ascii_uppercase} | dict.fromkeys("\n\r\t", " ")
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "rules.tsv"
        rules.write_text("".join(f"{ord(a):X}\t{ord(b):X}\n" for a, b in folded.items()), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(string.ascii_lowercase),
            model_writer=model,
            vocab_size=4 + 256 + 27,
            hard_vocab_limit=False,
            byte_fallback=True,
            normalization_rule_tsv=str(rules),
            pad_id=PAD,
            eos_id=END,
            bos_id=BEGIN,
            unk_id=UNKNOWN,
            num_threads=1,
            minloglevel=2,
        )
    return model.getvalue()


def _piece(text: str, kind: int) -> bytes:
    score = -1.0 if kind == NORMAL else 0.0
    return _field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind])


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes in protobuf's wire format."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low = value & 0x7F
    return bytes([low]) if value < 0x80 else bytes([low | 0x80]) + _varint(value >> 7)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message of which all are bytes, as those of a whole sentencepiece model are."""
    at = 0
    while at < len(message):
        number, at = message[at] >> 3, at + 1
        size = shift = 0
        while True:
            byte, at = message[at], at + 1
            size, shift = size | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                break
        yield number, message[at : at + size]
        at += size
