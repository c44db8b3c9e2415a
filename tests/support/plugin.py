"""What tests share: a real ComfyUI in this process, real servers and their page. Absent ones fail, never skip.

A test that asks for one of these fixtures is marked `host`, `server` or `browser` by itself, so that `pytest -m "not
server and not browser"` is the quick part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pack.dev.comfyui.process import PackNodes, load_pack, open_comfyui
from pack.dev.setup.downloads import SetupError

# Hooks: no test starts where the browser or ComfyUI is missing.
from pack.tests.support.needs import (  # noqa: F401
    pytest_collection_finish,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)

ROOT = Path(__file__).resolve().parents[2]
MARKS = {
    "comfyui": "host",
    "server_factory": "server",
    "server": "server",
    "stocked_server": "server",
    "newest_page_server": "server",
    "browser": "browser",
}

# Files that take minutes come first: where several processes share the files, none is left with one of them. Those of
# the page wait and the others compute, so they alternate.
SLOW = (
    *("test_page.py", "test_newest_page.py", "test_film_nodes.py", "test_nano_checkpoints.py", "test_web_extension.py"),
    "test_extension_nodes.py",
    *("test_host_tools.py", "test_avatar_nodes.py", "test_extension_server.py", "test_kernels.py"),
    *("test_nano_measures.py", "test_avatar_server.py", "test_composition.py", "test_batch.py"),
    *("test_save_model.py", "test_server.py", "test_streaming_nodes.py", "test_workflows.py", "test_video_writer.py"),
    *("test_lora_server.py", "test_locales.py", "test_vae.py", "test_old_workflows.py", "test_fake_card.py"),
    *("test_workers.py", "test_farm.py", "test_dub_nodes.py", "test_dialogue_nodes.py", "test_foreign_patches.py"),
)

# Two threads wait for each other longer than a tiny model takes; set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Freed memory goes back to the system at once (glibc), here and in the servers that are started: processes that live as
# long as the tests would keep the largest that each of them ever had.
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "1000000")
os.environ.setdefault("MALLOC_ARENA_MAX", "2")
# Nothing that a test imports may reach for the network.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", DO_NOT_TRACK="1")


def pytest_xdist_auto_num_workers() -> int:
    """As many processes as cores, two at least and four at most: each has servers and a browser of its own."""
    return max(2, min(4, os.cpu_count() or 1))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture, mark in MARKS.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(mark)
    items.sort(key=lambda item: SLOW.index(item.path.name) if item.path.name in SLOW else len(SLOW))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Show the traceback inside the server beside the one of the test."""
    report = yield
    inside = getattr(call.excinfo.value, "traceback", None) if call.excinfo else None
    if isinstance(inside, str):
        report.sections.append(("Traceback in the server", inside))
    return report


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """ComfyUI imported into this process, without this pack's nodes: see dev/comfyui/process.py."""
    try:
        return open_comfyui(tmp_path_factory.mktemp("comfyui"))
    except SetupError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def pack_nodes(comfyui: SimpleNamespace) -> PackNodes:
    """The nodes of this pack, loaded into this process as ComfyUI loads them."""
    try:
        return load_pack(comfyui)
    except SetupError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def computes_in_float32(pack_nodes: PackNodes, monkeypatch) -> Iterator:
    """As on a processor that only stores 16-bit numbers: the test fails where any are computed with."""
    from pack.tests.support.half_computations import HalfComputations

    monkeypatch.setattr(pack_nodes.module("kernels.half_precision"), "_on_this_processor", lambda dtype: False)
    with HalfComputations() as half:
        yield half
    assert not half.found


@pytest.fixture(scope="session")
def reference_prompt(pack_nodes: PackNodes) -> list:
    """A conditioning of the reference job for latents of 8 x 12, always the same."""
    import torch

    condition = pack_nodes.module("nodes.network.condition")
    job = pack_nodes.module("skyreels_v3.recipes").Job.REFERENCE
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(1, 512, 4096, generator=generator)
    slots = torch.randn(1, 16, 4, 8, 12, generator=generator)
    return condition.attach([[text, {}]], condition.JobCondition(job, slots))


@pytest.fixture(scope="module")
def stocked_server(running_stocked_server) -> Iterator:
    """One running server with this pack and every model and input that the workflows ask for.

    All tests share it: leave no state in it that others could meet.
    It sends previews and has the packs small_encoders and tests/data/packs/odd_inputs besides.
    """
    yield running_stocked_server
    # It waits while other files compute: their memory is not to hold the models of this one.
    running_stocked_server.post("/free", {"unload_models": True, "free_memory": True})


@pytest.fixture(scope="session")
def stocked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI's folder with every model and input that the workflows ask for."""
    from pack.dev.samples import workflow_inputs

    base = tmp_path_factory.mktemp("stocked")
    workflow_inputs.prepare(base, workflow_inputs.workflow_files())
    return base


def stocked(folder: Path, *arguments: str | Path):
    from pack.dev.comfyui.server import Server
    from pack.dev.samples import workflow_inputs

    packs = [*workflow_inputs.TINY_PACKS, ROOT / "tests" / "data" / "packs" / "odd_inputs"]
    return Server(folder, packs=packs, arguments=arguments, environment=workflow_inputs.ENVIRONMENT)


@pytest.fixture(scope="session")
def running_stocked_server(stocked_folder: Path) -> Iterator:
    with stocked(stocked_folder, "--preview-method", "latent2rgb") as running:
        yield running


@pytest.fixture(scope="module")
def newest_page_server(stocked_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """A stocked server of its own with the newest release of ComfyUI's page instead of the one its ComfyUI brings.

    It shares models, input and output with the other; settings of the page are its own.
    """
    from pack.dev.setup.frontend import newest_frontend

    with stocked(
        stocked_folder, *newest_frontend().arguments, "--user-directory", tmp_path_factory.mktemp("newest_page")
    ) as running:
        yield running


@pytest.fixture
def server_factory() -> Iterator[Callable]:
    """A function that starts a server of the test's own: server_factory(**options of Server)."""
    from pack.dev.comfyui.server import Server

    started = []

    def start(**options) -> Server:
        started.append(Server(**options))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[None]:
    """Chromium, kept for all pages of a file: asyncio.run() is refused in this process as long as it is open."""
    from pack.dev.comfyui.page import kept_browser

    with kept_browser():
        yield


@pytest.fixture
def page_factory(browser) -> Iterator[Callable]:
    """A function that opens the page of a server: page_factory(server, **options of Page)."""
    from contextlib import ExitStack

    from pack.dev.comfyui.page import Page

    with ExitStack() as opened:
        yield lambda server, **options: opened.enter_context(Page(server, **options))
