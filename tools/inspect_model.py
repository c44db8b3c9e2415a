"""Says what model files are: which model, for which job, in which precision, what is wrong with them and where they go.

    python tools/inspect_model.py FILE...
    python tools/inspect_model.py https://huggingface.co/OWNER/NAME

Needs neither ComfyUI nor torch, any Python from 3.10 on, and reads only the headers of files, also of those on the web.
"""

import argparse
import dataclasses
import io
import json
import os
import sys
from pathlib import Path

# The Python that comes with ComfyUI for Windows does not look beside a script for its modules.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from pack.model_loaders.checkpoints.inspection import Source, inspect
from pack.tools.inspecting.addresses import is_address
from pack.tools.inspecting.far import inspect_far
from pack.tools.inspecting.here import gigabytes, plan_here

DESCRIPTION = """\
Says what model files are: which model, for which job, in which precision, what is wrong with them and where they go.
Nothing is loaded or changed, and neither ComfyUI nor a graphics card is needed; only what is said of this machine needs
ComfyUI's Python.

For every file or model folder there is one line of JSON. In a folder with several models there is one for each.
A web address tells what a file is before it is downloaded: of a repository or a file at Hugging Face or ModelScope, or
of a .safetensors, .gguf or .index.json anywhere. For what not everybody may read, the variable HF_TOKEN is sent to
Hugging Face, or to the host that HF_ENDPOINT names, and to no other.

  file        the path or the address
  dialect     how it is written: "wan", "diffusers, 3 shards", "wan, gguf", "lora, kohya", "companion, VAE of Wan 2.1"
  job         reference, extension, shot or avatar; unknown where it is none of these
  why         what tells the job
  precision   such as "bf16", "fp8 scaled + bf16" or "Q4_K + Q6_K"
  parameters  how many numbers the model has; 0 where that is unknown
  problems    why SkyReels-V3 Load Model does not take it; empty where it does
  advice      where to put it, which node loads it, what else it needs
  here        what Load Model does with it on this machine: precision, RAM, VRAM, what is streamed
"""
AFTER = """\
Ends with 0 if Load Model takes every file, with 1 if it does not take one of them.
A file that is complete may still hold bad numbers: that shows only when it is loaded.
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=AFTER, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="a model file, a folder with a model or several, or a web address"
    )
    parser.add_argument("--vram", type=gigabytes, metavar="GB", help="answer for a card with so much memory")
    parser.add_argument("--ram", type=gigabytes, metavar="GB", help="answer for a machine with so much memory")
    given = parser.parse_args(arguments)
    source = Source(plan=plan_here(given.vram, given.ram))
    # People see every letter of a name; what reads the lines gets ASCII, whichever encoding it expects.
    as_ascii = not sys.stdout.isatty()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    has_problems = False
    for file in given.files:
        for found in (inspect_far if is_address(file) else inspect)(file, source):
            has_problems |= bool(found.problems)
            print(json.dumps(dataclasses.asdict(found), ensure_ascii=as_ascii), flush=True)
    return int(has_problems)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # as behind `| head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
