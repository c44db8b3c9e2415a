"""The list of nodes that ComfyUI gets."""

from comfy_api.latest import ComfyExtension, io

from .avatar import AvatarWindow
from .extend_video import ExtendVideo
from .extension import ExtensionWindow
from .join_videos import JoinVideos
from .load import LoadModel
from .lora import LoraNode
from .plan import PlanNode
from .prompt_list import PromptList
from .reference import ReferenceToVideo
from .sampling import Guider, Sigmas, UniPCSampler
from .save import SaveModel
from .speech import SpeechNode
from .talking_avatar import TalkingAvatar

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
]


class SkyReelsExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
