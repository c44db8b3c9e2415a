"""Train the three small encoders that the nano models see and hear with.

python training/encoders.py            all of them
python training/encoders.py text       the text encoder: nano/text_encoder.safetensors
python training/encoders.py speech     the speech encoder: nano/audio_encoder.safetensors
python training/encoders.py image      the image encoder: nano/clip_vision.safetensors
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))  # for `pack`
from pack.training.models import image_encoder, speech_encoder, text_encoder

ENCODERS = {"text": text_encoder, "speech": speech_encoder, "image": image_encoder}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=(*ENCODERS,), nargs="*", default=[*ENCODERS])
    for which in parser.parse_args().which:
        print(json.dumps({which: {kind: round(value, 4) for kind, value in ENCODERS[which].train().items()}}))


if __name__ == "__main__":
    main()
