"""What a long job keeps on disk: through kill -9, full disks, other processes and broken files."""

import errno
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.resume import folder as job_folder
from pack.skyreels_v3.resume import lock as job_lock
from pack.skyreels_v3.resume.folder import RunFolder, prune
from pack.tests.support.golden import normal

PARTS = 60
KILLS = 10


def tensors(index):
    return {"latents": normal(f"job/{index}", (1, 4, 1 + index % 5, 8, 8)), "count": torch.tensor([index])}


def frames(index):
    return np.random.RandomState(index).bytes(20_000 + 1000 * index)


def work(root, parts=PARTS):
    """A job of many parts that goes on where it was."""
    with RunFolder(root, "job") as folder:
        for index in range(parts):
            part = f"part-{index}"
            if folder.done(part):
                continue
            folder.put_tensors(f"{part}.safetensors", tensors(index))
            with folder.path(f"{part}.bin").open("wb") as file:
                data = frames(index)
                for start in range(0, len(data), 4096):
                    file.write(data[start : start + 4096])
                    file.flush()
            folder.commit(part, [f"{part}.safetensors", f"{part}.bin"], {"index": index})
        folder.finish()


def check(folder):
    """Every finished part is whole; how many there are."""
    for index, part in enumerate(folder.parts):
        assert folder.info(part) == {"index": index}
        got = folder.get_tensors(f"{part}.safetensors")
        assert got.keys() == tensors(index).keys()
        assert all(torch.equal(got[name], wanted) for name, wanted in tensors(index).items())
        assert folder.path(f"{part}.bin").read_bytes() == frames(index)
    return len(folder.parts)


def in_child(function, *arguments):
    """A forked process that runs the function; its id."""
    child = os.fork()
    if child == 0:
        try:
            function(*arguments)
            os._exit(0)
        finally:
            os._exit(1)
    return child


def one_part(root, name="a", key="job"):
    with RunFolder(root, key) as folder:
        folder.put_tensors(f"{name}.safetensors", {"x": torch.ones(3)})
        folder.commit(name, [f"{name}.safetensors"])


def test_kill_at_any_moment_loses_no_finished_part(tmp_path):
    root = tmp_path / "jobs"
    done, interrupted = 0, 0
    chance = random.Random(7)
    for _ in range(KILLS):
        child = in_child(work, root)
        manifest = root / "job" / "manifest.json"
        before = manifest.stat().st_mtime_ns if manifest.exists() else 0
        until = time.monotonic() + 10
        while time.monotonic() < until:  # first until it is at work, so that every kill meets a running job
            if manifest.exists() and manifest.stat().st_mtime_ns != before:
                break
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        interrupted += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        with RunFolder(root, "job") as folder:
            now = check(folder)
            left = {path.name for path in folder.folder.iterdir()}
            assert left == {"lock", "manifest.json"} | {
                f"{part}.{end}" for part in folder.parts for end in ("bin", "safetensors")
            }
        assert now >= done
        done = now
    assert interrupted >= KILLS // 2 and 0 < done
    work(root)
    work(tmp_path / "undisturbed")
    with RunFolder(root, "job") as folder:
        assert folder.finished and check(folder) == PARTS
        for path in folder.folder.glob("part-*"):
            assert path.read_bytes() == (tmp_path / "undisturbed" / "job" / path.name).read_bytes()


def test_only_what_is_committed_counts(tmp_path):
    with RunFolder(tmp_path, "job") as folder:
        folder.put_tensors("a.safetensors", {"x": torch.ones(2, 3)})
        assert not folder.done("a")
        folder.commit("a", ["a.safetensors"], {"frames": 120, "prompt": "她 \ud800"})
        folder.put_tensors("b.safetensors", {"x": torch.ones(2)})
        (folder.folder / "manifest.json.new").write_text("{")
        (folder.folder / "mine").mkdir()
    with RunFolder(tmp_path, "job") as folder:
        assert folder.done("a") and folder.info("a") == {"frames": 120, "prompt": "她 \ud800"}
        assert not folder.done("b") and not folder.path("b.safetensors").exists()
        assert sorted(os.listdir(folder.folder)) == ["a.safetensors", "lock", "manifest.json", "mine"]
        with pytest.raises(KeyError):
            folder.info("b")


def test_a_part_is_not_overwritten_by_another(tmp_path):
    one_part(tmp_path)
    with RunFolder(tmp_path, "job") as folder:
        with pytest.raises(ValueError, match="belongs to the finished part a"):
            folder.put_tensors("a.safetensors", {"x": torch.ones(1)})
        with pytest.raises(ValueError, match="belongs to part a"):
            folder.commit("b", ["a.safetensors"])
        with pytest.raises(FileNotFoundError):
            folder.commit("b", ["never-written.bin"])
        with pytest.raises(TypeError):
            folder.commit("b", [], {"x": object()})
        folder.commit("a", ["a.safetensors"], {"again": True})
        assert folder.parts == ("a",) and folder.info("a") == {"again": True}


def test_parts_of_lines_that_are_gone_are_forgotten(tmp_path):
    for name in ("a", "b", "c"):
        one_part(tmp_path, name)
    with RunFolder(tmp_path, "job") as folder:
        folder.finish()
        folder.keep_only(["a", "c", "d"])
        assert folder.parts == ("a", "c") and not folder.path("b.safetensors").exists() and folder.finished
        folder.commit("d", [])
        assert not folder.finished  # there is more to come
    with RunFolder(tmp_path, "job") as folder:
        assert folder.parts == ("a", "c", "d") and set(folder.get_tensors("c.safetensors")) == {"x"}


@pytest.mark.parametrize(
    "kept",
    [
        torch.arange(6).view(2, 3).T,
        torch.arange(10)[2:4],
        torch.ones(1).expand(5),
        torch.zeros(2, 0),
        torch.ones(3, dtype=torch.bfloat16),
        torch.ones(2, requires_grad=True),
        torch.tensor(3.0),
    ],
)
def test_tensors_come_back(tmp_path, kept):
    with RunFolder(tmp_path, "job") as folder:
        path = folder.put_tensors(
            "a.safetensors", {"a": kept, "same": kept, "part": kept[..., :1] if kept.ndim else kept}
        )
        got = folder.get_tensors("a.safetensors")
        assert torch.equal(got["a"], kept) and torch.equal(got["same"], kept) and got["a"].dtype == kept.dtype
        assert path.stat().st_size < 2000


def test_unicode_and_spaces(tmp_path):
    root = tmp_path / "Ünï cødé 映画 (1)" / "deeper"
    one_part(root)
    with RunFolder(str(root), "job") as folder:
        assert folder.done("a")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "../a", "é", "lock", "manifest.json", "a b", "x" * 200])
def test_names_stay_inside_the_folder(tmp_path, name):
    with RunFolder(tmp_path, "job") as folder, pytest.raises(ValueError, match="file name"):
        folder.path(name)
    with pytest.raises(ValueError, match="key"):
        RunFolder(tmp_path, name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "\0" * 100,
        "[]",
        "null",
        "{}",
        '{"kind": "skyreels-v3-job", "version": 1}',
        "\ud83d broken",
        "[" * 100_000,
    ],
)
def test_a_broken_manifest_starts_anew(tmp_path, caplog, text):
    one_part(tmp_path)
    (tmp_path / "job" / "manifest.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    with caplog.at_level(logging.WARNING), RunFolder(tmp_path, "job") as folder:
        assert folder.parts == () and not folder.path("a.safetensors").exists()
    assert "starts anew" in caplog.text
    one_part(tmp_path)
    assert RunFolder(tmp_path, "job").parts == ("a",)


@pytest.mark.parametrize(
    "change", [{"version": 99}, {"kind": "x"}, {"key": "other"}, {"parts": {"a": 3}}, {"finished": 1}]
)
def test_a_manifest_of_something_else_starts_anew(tmp_path, caplog, change):
    one_part(tmp_path)
    path = tmp_path / "job" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with caplog.at_level(logging.WARNING), RunFolder(tmp_path, "job") as folder:
        assert folder.parts == ()
    assert "starts anew" in caplog.text


def test_an_unreadable_manifest_deletes_nothing(tmp_path):
    one_part(tmp_path)
    manifest = tmp_path / "job" / "manifest.json"
    saved = manifest.rename(tmp_path / "saved")
    manifest.mkdir()  # cannot be read, even by root
    with pytest.raises(InputError, match="cannot be written"):
        RunFolder(tmp_path, "job")
    manifest.rmdir()
    saved.rename(manifest)
    with RunFolder(tmp_path, "job") as folder:
        assert folder.done("a")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"short")])
def test_a_part_without_its_files_is_made_again(tmp_path, caplog, damage):
    one_part(tmp_path, "a")
    one_part(tmp_path, "b")
    damage(tmp_path / "job" / "a.safetensors")
    with caplog.at_level(logging.WARNING), RunFolder(tmp_path, "job") as folder:
        assert folder.parts == ("b",)
    assert "a.safetensors" in caplog.text and "made again" in caplog.text


def test_broken_tensors_are_told(tmp_path):
    with RunFolder(tmp_path, "job") as folder:
        folder.path("a.safetensors").write_bytes(b"nothing of the kind")
        for name in ("a.safetensors", "missing.safetensors"):
            with pytest.raises(InputError, match=r"cannot be read.*delete it and queue again"):
                folder.get_tensors(name)


def test_another_process_in_the_folder_is_told(tmp_path):
    with RunFolder(tmp_path, "job"):
        with pytest.raises(InputError, match=f"in use by process {os.getpid()} on {socket.gethostname()}"):
            RunFolder(tmp_path, "job")
        with RunFolder(tmp_path, "another"):
            pass
        code = "import sys; sys.path.insert(0, 'tools'); from pack.skyreels_v3.resume.lock import lock_folder as f; "
        code += "from pathlib import Path; f(Path(sys.argv[1]))"
        command = [sys.executable, "-c", code, str(tmp_path / "job")]
        root = Path(__file__).resolve().parents[2]
        other = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        assert other.returncode == 1 and f"in use by process {os.getpid()}" in other.stderr
    assert subprocess.run(command, cwd=root, check=False).returncode == 0


def test_a_lock_of_a_dead_process_is_taken_over(tmp_path):
    ready = tmp_path / "ready"

    def hold():
        with RunFolder(tmp_path / "jobs", "job"):
            ready.touch()
            time.sleep(60)

    child = in_child(hold)
    while not ready.exists():
        time.sleep(0.001)
    with pytest.raises(InputError, match=f"in use by process {child} "):
        RunFolder(tmp_path / "jobs", "job")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with RunFolder(tmp_path / "jobs", "job") as folder:
        assert json.loads((folder.folder / "lock").read_text())["pid"] == os.getpid()


def test_a_job_that_was_given_up_frees_its_folder(tmp_path):
    folder = RunFolder(tmp_path, "job")
    del folder
    RunFolder(tmp_path, "job").close()


@pytest.mark.parametrize(
    "pid, host, used", [(1, None, True), (2**22 + 1, None, False), (1, "elsewhere", False), ("x", None, False)]
)
def test_drives_without_locks(tmp_path, monkeypatch, caplog, pid, host, used):
    def no_locks(handle):
        raise OSError(errno.ENOLCK, "no locks available")

    one_part(tmp_path)
    monkeypatch.setattr(job_lock, "_take", no_locks)
    (tmp_path / "job" / "lock").write_text(json.dumps({"pid": pid, "host": host or socket.gethostname()}))
    with caplog.at_level(logging.WARNING):
        if used:
            with pytest.raises(InputError, match=f"in use by process {pid} "):
                RunFolder(tmp_path, "job")
        else:
            assert RunFolder(tmp_path, "job").done("a")
            assert "without locks" in caplog.text


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "holiday.jpg").touch()
    with pytest.raises(InputError, match="holds other files"):
        RunFolder(tmp_path, "job")
    assert os.listdir(tmp_path / "job") == ["holiday.jpg"]


def test_a_lock_that_was_deleted_as_a_leftover_loses_nothing(tmp_path):
    one_part(tmp_path)
    (tmp_path / "job" / "lock").unlink()
    assert RunFolder(tmp_path, "job").done("a")


def test_a_full_disk_keeps_what_is_done(tmp_path, monkeypatch):
    def no_room(tensors, path):
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    one_part(tmp_path)
    with RunFolder(tmp_path, "job") as folder:
        with monkeypatch.context() as full:
            full.setattr("safetensors.torch.save_file", no_room)
            with pytest.raises(InputError, match=r"disk of .* is full: free some space\. 1 finished part is kept"):
                folder.put_tensors("b.safetensors", {"x": torch.ones(1)})
        assert not folder.path("b.safetensors").exists()

        # /dev/full is a disk without room.
        video = folder.path("b.bin")
        video.symlink_to("/dev/full")
        with pytest.raises(InputError, match="is full"), folder.writing(video), video.open("wb") as file:
            file.write(bytes(1000))

        folder.put_tensors("b.safetensors", {"x": torch.ones(1)})
        (folder.folder / "manifest.json.new").symlink_to("/dev/full")
        with pytest.raises(InputError, match="is full"):
            folder.commit("b", ["b.safetensors"])
        assert not folder.done("b")
        folder.commit("b", ["b.safetensors"])  # there is room again
    with RunFolder(tmp_path, "job") as folder:
        assert folder.parts == ("a", "b")


def test_folders_that_cannot_be_written_are_told(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    for root in (file, file / "deeper", "/proc/skyreels"):
        with pytest.raises(InputError, match=r"cannot be written .*: make it writable"):
            RunFolder(root, "job")

    def read_only(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied {0}")

    monkeypatch.setattr(job_folder.os, "replace", read_only)
    with RunFolder(tmp_path, "job") as folder, pytest.raises(InputError, match="cannot be written"):
        folder.finish()


def test_other_errors_pass(tmp_path):
    with RunFolder(tmp_path, "job") as folder:
        path = folder.path("half.bin")
        path.touch()
        with pytest.raises(ZeroDivisionError), folder.writing(path):
            raise ZeroDivisionError
        assert not path.exists()


def finished_job(root, key, days):
    one_part(root, key=key)
    with RunFolder(root, key) as folder:
        folder.finish()
    when = time.time() - days * 86400
    os.utime(root / key / "manifest.json", (when, when))


def test_prune_removes_old_finished_jobs_only(tmp_path):
    for key, days in (("new", 0), ("young", 5), ("old", 10), ("older", 20), ("used", 30), ("broken", 40)):
        finished_job(tmp_path, key, days)
    one_part(tmp_path, key="unfinished")
    os.utime(tmp_path / "unfinished" / "manifest.json", (0, 0))
    (tmp_path / "broken" / "manifest.json").write_text("{")
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday.jpg").touch()
    (tmp_path / ".removed-x-1").mkdir()
    with RunFolder(tmp_path, "used"):
        assert prune(tmp_path, keep=5, days=7) == ()
        assert prune(tmp_path, keep=1, days=7) == ("old", "older")
    assert sorted(os.listdir(tmp_path)) == sorted(
        ["new", "young", "used", "broken", "unfinished", "holiday", "holiday.jpg"]
    )
    assert prune(tmp_path, keep=0, days=0) == ("new", "young", "used")
    assert prune(tmp_path / "missing") == ()


def test_prune_and_a_job_that_starts_do_not_meet(tmp_path, monkeypatch):
    finished_job(tmp_path, "job", 10)
    real = job_folder.lock_folder

    def another_goes_on_first(folder):
        monkeypatch.setattr(job_folder, "lock_folder", real)
        one_part(tmp_path, "b")
        return real(folder)

    monkeypatch.setattr(job_folder, "lock_folder", another_goes_on_first)
    assert prune(tmp_path, keep=0, days=1) == ()
    assert RunFolder(tmp_path, "job").parts == ("a", "b")

    # The other way round: the folder is taken away between opening and locking the lock file.
    finished_job(tmp_path, "other", 10)
    take = job_lock._take

    def pruned_first(handle):
        monkeypatch.setattr(job_lock, "_take", take)
        assert prune(tmp_path, keep=0, days=1) == ("other",)
        return take(handle)

    monkeypatch.setattr(job_lock, "_take", pruned_first)
    with RunFolder(tmp_path, "other") as folder:
        assert folder.parts == ()
        folder.commit("a", [])
    assert RunFolder(tmp_path, "other").done("a")
