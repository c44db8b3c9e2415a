"""Test-only ComfyUI pack: what other packs hand to our nodes, odd inputs and lists, and an end for graphs."""

import torch
from comfy_api.latest import ComfyExtension, io

IMAGES = {
    "batch": lambda: torch.rand(3, 48, 64, 3),
    "one pixel": lambda: torch.full((1, 1, 1, 3), 0.5),
    "panorama": lambda: torch.rand(1, 32, 640, 3),
    "alpha": lambda: torch.rand(1, 48, 64, 4),
    "not a number": lambda: torch.full((1, 48, 64, 3), float("nan")),
    "empty": lambda: torch.zeros(0, 48, 64, 3),
}


class OddImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OddImage",
            category="test",
            inputs=[io.Combo.Input("kind", options=list(IMAGES))],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(cls, kind) -> io.NodeOutput:
        return io.NodeOutput(IMAGES[kind]())


class NarrowText(io.ComfyNode):
    """A prompt as CLIP-L encodes it: 77 tokens, 768 wide."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NarrowText",
            category="test",
            inputs=[],
            outputs=[io.Conditioning.Output(display_name="conditioning")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput([[torch.zeros(1, 77, 768), {}]])


class End(io.ComfyNode):
    """Makes whatever it is given run. `tag` makes two prompts differ, so that the second is not skipped."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="End",
            category="test",
            inputs=[io.AnyType.Input("anything"), io.Int.Input("tag", default=0)],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, anything, tag) -> io.NodeOutput:
        return io.NodeOutput(ui={"tag": [tag]})


class Listed(io.ComfyNode):
    """Two things as a list: what is behind it runs once for each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Listed",
            category="test",
            inputs=[io.AnyType.Input("first"), io.AnyType.Input("second")],
            outputs=[io.AnyType.Output(display_name="both", is_output_list=True)],
        )

    @classmethod
    def execute(cls, first, second) -> io.NodeOutput:
        return io.NodeOutput([first, second])


class OddInputs(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [OddImage, NarrowText, End, Listed]


async def comfy_entrypoint() -> OddInputs:
    return OddInputs()
