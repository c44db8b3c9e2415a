"""The list of nodes that ComfyUI gets."""

from comfy_api.latest import ComfyExtension, io

from .jobs.avatar_window import AvatarWindow
from .jobs.cast import Cast
from .jobs.dialogue import DialogueNode
from .jobs.dub_video import DubVideo
from .jobs.extend_video import ExtendVideo
from .jobs.extension_window import ExtensionWindow
from .jobs.film import Film
from .jobs.join_videos import JoinVideos
from .jobs.plan import PlanNode
from .jobs.prompt_brief import PromptBrief
from .jobs.prompts import PromptList
from .jobs.reference_to_video import ReferenceToVideo
from .jobs.script_from_text import ScriptFromText
from .jobs.speech import SpeechNode
from .jobs.talking_avatar import TalkingAvatar
from .models.load import LoadModel
from .models.lora import LoraNode
from .models.save import SaveModel
from .sampling.nodes import Guider, Sigmas, UniPCSampler

NODES: list[type[io.ComfyNode]] = [
    LoadModel,
    LoraNode,
    ReferenceToVideo,
    ExtensionWindow,
    ExtendVideo,
    SpeechNode,
    AvatarWindow,
    TalkingAvatar,
    UniPCSampler,
    Sigmas,
    Guider,
    SaveModel,
    PlanNode,
    JoinVideos,
    PromptList,
    Film,
    Cast,
    DubVideo,
    PromptBrief,
    ScriptFromText,
    DialogueNode,
]


class SkyReelsExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
