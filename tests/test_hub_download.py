"""Faults 9 to 17 of the weights list: downloads, caches, locks.  A local hub, the real huggingface_hub client, real processes and signals."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import multiprocessing
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from zoo_core.errors import CacheAccessError, ChecksumError, DownloadError, NoSpaceError, OfflineError
from zoo_core.hub import resolve_weights
from zoo_core.hub.cache import RepoCache, locked
from zoo_core.interfaces.weights import LoadReport
from zoo_core.specs import ModelSpec
from zoo_core.testing.fake_hub import FakeHub, Fault
from zoo_core.testing.faults import full_disk, kill_when, no_links, no_network, read_only
from zoo_core.testing.weight_fixtures import fake_hub, network_forbidden, zoo_cache  # noqa: F401

CONFIG = b'{"width": 3}'
SIZE = 600_000


def weights_bytes(size: int = SIZE, fill: int = 7) -> bytes:
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + bytes((i * fill) % 251 for i in range(1000)) * (size // 1000)


DATA = weights_bytes()
SHA = hashlib.sha256(DATA).hexdigest()


def model_spec(revision: str | None = None, *, pinned: bool = False, **more: object) -> ModelSpec:
    files = [{"path": "config.json"}, {"path": "model.safetensors", "size": len(DATA) if pinned else None, "sha256": SHA if pinned else None}]
    weights = [{"layout": "plain", "source": "hf://org/model", "revision": revision, "files": files}]
    return ModelSpec(name="toy", task="text-to-image", build="math:sqrt", card={"weights": weights, **more})


@pytest.fixture(autouse=True)
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits are recorded instead of waited."""
    from zoo_core.hub.fetch import Patience

    waits: list[float] = []
    monkeypatch.setattr(Patience.__init__, "__defaults__", (5, 40, 0.5, 60.0, 5.0, waits.append))
    monkeypatch.setattr("zoo_core.hub.remote._sleep", waits.append)
    return waits


@pytest.fixture
def hub(fake_hub: FakeHub) -> FakeHub:  # noqa: F811
    fake_hub.add("org/model", {"config.json": CONFIG, "model.safetensors": DATA, "README.md": b"x"}, licence="mit")
    return fake_hub


def litter(home: Path) -> list[str]:
    return [str(path) for path in home.rglob("*") if path.name.endswith((".tmp", ".partial"))]


def test_download_verifies_reports_and_reads_config(hub: FakeHub, zoo_cache: Path) -> None:  # noqa: F811
    report = LoadReport()
    found = resolve_weights(model_spec(), report=report)
    assert found.files["model.safetensors"].read_bytes() == DATA
    assert found.root is not None and (found.root / "config.json").read_bytes() == CONFIG
    assert found.config == {"width": 3} and found.layout == "plain" and found.source == "hf://"
    assert {record.verified for record in report.files} == {"downloaded"}
    assert next(record for record in report.files if record.path.endswith("model.safetensors")).sha256 == SHA
    assert report.bytes["downloaded"] == len(DATA) + len(CONFIG) and report.seconds["weights"] > 0
    assert not litter(zoo_cache)


def test_cache_layout_serves_the_real_hub_client(hub: FakeHub, zoo_cache: Path) -> None:  # noqa: F811
    from huggingface_hub import hf_hub_download

    found = resolve_weights(model_spec())
    before = len(hub.requests)
    path = hf_hub_download("org/model", "model.safetensors", cache_dir=str(zoo_cache / "hub"), endpoint=hub.url, local_files_only=True)
    assert Path(path).resolve() == found.files["model.safetensors"].resolve() and len(hub.requests) == before


def test_files_of_the_real_hub_client_are_reused(hub: FakeHub, zoo_cache: Path) -> None:  # noqa: F811
    from huggingface_hub import hf_hub_download

    for name in ("config.json", "model.safetensors"):
        hf_hub_download("org/model", name, cache_dir=str(Path(os.environ["HF_HOME"]) / "hub"), endpoint=hub.url)
    before = len(hub.requests)
    found = resolve_weights(model_spec(), offline=True)
    assert found.files["model.safetensors"].read_bytes() == DATA and len(hub.requests) == before
    assert str(found.root).startswith(os.environ["HF_HOME"])


def test_a_damaged_file_of_the_hub_clients_cache_is_passed_over_not_touched(hub: FakeHub, zoo_cache: Path) -> None:  # noqa: F811
    from huggingface_hub import hf_hub_download

    commit = hub.repos["org/model"].refs["main"]
    foreign = Path(hf_hub_download("org/model", "model.safetensors", cache_dir=str(Path(os.environ["HF_HOME"]) / "hub"), endpoint=hub.url))
    foreign.resolve().write_bytes(DATA[:-1] + b"!")
    report = LoadReport()
    found = resolve_weights(model_spec(commit, pinned=True), report=report)
    assert found.files["model.safetensors"].read_bytes() == DATA and foreign.read_bytes() != DATA
    assert any("damaged" in line for line in report.warnings)


@pytest.mark.parametrize("pinned", [True, False])
def test_fault_09_offline_and_cached_uses_no_socket(hub: FakeHub, pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.repos["org/model"].refs["main"]
    spec = model_spec(commit if pinned else None, pinned=pinned)
    resolve_weights(spec)
    with no_network() as attempts:
        for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE"):
            monkeypatch.setenv(name, "1")
            assert resolve_weights(spec).files["model.safetensors"].read_bytes() == DATA
            monkeypatch.delenv(name)
        assert resolve_weights(spec, offline=True).config == {"width": 3}
        report = LoadReport()
        resolve_weights(spec, report=report)  # online, but pinned or locked and present: still no call
    assert attempts == [] and {record.verified for record in report.files} == {"remembered"}


def test_fault_10_offline_and_missing_lists_files_sizes_and_ways(zoo_cache: Path, network_forbidden: list[str]) -> None:  # noqa: F811
    with pytest.raises(OfflineError) as caught:
        resolve_weights(model_spec("a" * 40, pinned=True), offline=True)
    text = str(caught.value)
    assert "model.safetensors" in text and f"{len(DATA) / 1e6:.1f} MB" in text and "config.json" in text
    assert "zoo pull toy --to" in text and "zoo pack" in text
    assert not list(zoo_cache.rglob("*"))


def test_fault_10_partly_cached_offline_names_only_what_is_missing(hub: FakeHub) -> None:
    spec = model_spec()
    found = resolve_weights(spec)
    found.files["model.safetensors"].unlink()
    with pytest.raises(OfflineError) as caught:
        resolve_weights(spec, offline=True)
    assert "model.safetensors" in str(caught.value) and "missing: config.json" not in str(caught.value)


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(drop_at=int(SIZE * 0.3))],
        [Fault(drop_at=int(SIZE * 0.99))],
        [Fault(drop_at=at) for at in range(100_000, 600_000, 100_000)],
        [Fault(drop_at=0), Fault(drop_at=0)],
        [Fault(drop_at=300_000), Fault(no_range=True)],
        [Fault(drop_at=300_000), Fault(status=416)],
        [Fault(status=429, retry_after="7"), Fault(status=503, retry_after="3")],
        [Fault(status=500), Fault(status=502)],
        [Fault(drip=60_000)],
    ],
    ids=["30%", "99%", "repeatedly", "at-once", "range-ignored", "416", "429-503", "5xx", "drip"],
)
def test_fault_11_dropped_connections_resume_to_identical_bytes(hub: FakeHub, zoo_cache: Path, faults: list[Fault], fast_retries: list[float]) -> None:  # noqa: F811
    hub.misbehave("model.safetensors", *faults)
    found = resolve_weights(model_spec())
    assert hashlib.sha256(found.files["model.safetensors"].read_bytes()).hexdigest() == SHA
    requests = hub.downloads("model.safetensors")
    if faults[0].drop_at:
        assert requests[1].range is not None, "the second request must resume"
    if faults[0].retry_after:
        assert fast_retries == [7.0, 3.0]
    assert not litter(zoo_cache)


def test_fault_11_bounded_retries_then_a_clear_error_and_the_partial_stays(hub: FakeHub, zoo_cache: Path, fast_retries: list[float]) -> None:  # noqa: F811
    hub.misbehave("model.safetensors", Fault(drop_at=200_000), times=None)
    with pytest.raises(DownloadError) as caught:
        resolve_weights(model_spec())
    assert "200000 of" in str(caught.value) and "goes on where it stopped" in str(caught.value)
    assert len(hub.downloads("model.safetensors")) <= 7 and max(fast_retries) <= 60
    hub.behave()
    resolve_weights(model_spec())
    assert hub.downloads("model.safetensors")[-1].range == "bytes=200000-"
    assert not litter(zoo_cache)


def test_fault_11_refusals_redirect_loops_and_absent_files_are_told(hub: FakeHub) -> None:
    hub.misbehave("model.safetensors", Fault(redirect_loop=True), times=None)
    with pytest.raises(DownloadError, match="redirect"):
        resolve_weights(model_spec())
    hub.behave()
    hub.misbehave("model.safetensors", Fault(status=403))
    with pytest.raises(DownloadError, match="gated"):
        resolve_weights(model_spec())
    hub.misbehave("api", Fault(status=429, retry_after="2"), Fault(status=503))
    assert resolve_weights(model_spec()).config == {"width": 3}
    with pytest.raises(DownloadError, match="404"):
        resolve_weights(model_spec(), weights="hf://org/nothing")
    with pytest.raises(DownloadError, match="does not give out"):
        resolve_weights(model_spec(), revision="no-such-branch")


CHILD = """
import sys
sys.path.insert(0, {folder!r})
from test_hub_download import model_spec
from zoo_core.hub import resolve_weights
print(resolve_weights(model_spec()).files["model.safetensors"])
"""


def child_command() -> list[str]:
    return [sys.executable, "-c", CHILD.format(folder=str(Path(__file__).parent))]


def test_fault_12_killed_download_resumes(hub: FakeHub, zoo_cache: Path) -> None:  # noqa: F811
    hub.misbehave("model.safetensors", Fault(hang_at=400_000))
    partials = lambda: [path for path in zoo_cache.rglob("*.partial") if path.stat().st_size >= 390_000]  # noqa: E731
    status = kill_when(child_command(), lambda: hub.reached.is_set() and bool(partials()))
    assert status == -9
    assert not list(zoo_cache.rglob("model.safetensors")), "nothing may stand under the final name"
    (partial,) = partials()
    kept = partial.stat().st_size
    found = resolve_weights(model_spec())
    assert found.files["model.safetensors"].read_bytes() == DATA
    assert hub.downloads("model.safetensors")[-1].range == f"bytes={kept}-"
    assert not litter(zoo_cache)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(body=DATA[:-1] + b"!"), "sha256 expected"),
        (Fault(body=DATA[: SIZE // 2]), "sha256 expected"),
        (Fault(body=DATA + b"more"), "sha256 expected"),
        (Fault(body=b"<html>log in</html>" * 100, content_type="text/html"), "web page"),
        (Fault(body=b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n"), "LFS pointer"),
    ],
    ids=["same-size", "truncated", "appended", "html", "lfs-pointer"],
)
def test_fault_13_wrong_content_is_quarantined_retried_once_then_refused(hub: FakeHub, zoo_cache: Path, fault: Fault, says: str) -> None:  # noqa: F811
    hub.misbehave("model.safetensors", fault, times=1)
    resolve_weights(model_spec())
    quarantined = [path for path in (zoo_cache / "quarantine").glob("*") if not path.name.endswith(".why.txt")]
    assert len(quarantined) == 1
    hub.add("org/other", {"config.json": CONFIG, "model.safetensors": DATA})
    hub.misbehave("model.safetensors", fault, times=None)
    with pytest.raises(ChecksumError) as caught:
        resolve_weights(model_spec(), weights="hf://org/other")
    actual = hashlib.sha256(fault.body[: len(DATA) + 70_000] if fault.body else b"").hexdigest()
    assert says in str(caught.value) and SHA in str(caught.value) and "proxy" in str(caught.value)
    assert caught.value.fields["expected"] == SHA and (len(fault.body or b"") > len(DATA) or actual in str(caught.value))
    assert not list((zoo_cache / "hub" / "models--org--other").rglob("snapshots/*/model.safetensors"))


def test_fault_13_small_files_are_checked_by_their_git_digest(hub: FakeHub) -> None:
    hub.misbehave("config.json", Fault(body=b'{"width": 4}'), times=None)
    with pytest.raises(ChecksumError, match="git blob expected"):
        resolve_weights(model_spec())


def test_fault_13_card_digest_rules_over_the_hub(hub: FakeHub) -> None:
    commit = hub.add("org/model", {"config.json": CONFIG, "model.safetensors": weights_bytes(fill=9)})
    with pytest.raises(ChecksumError, match=SHA):
        resolve_weights(model_spec(commit, pinned=True))


def test_fault_13_a_file_damaged_in_the_cache_is_set_aside_and_fetched_again(hub: FakeHub, zoo_cache: Path) -> None:  # noqa: F811
    spec = model_spec()
    path = resolve_weights(spec).files["model.safetensors"].resolve()
    path.write_bytes(DATA[:-1] + b"!")
    report = LoadReport()
    assert resolve_weights(spec, report=report).files["model.safetensors"].read_bytes() == DATA
    assert "first" in report.warnings[0] and len(list((zoo_cache / "quarantine").glob("*.why.txt"))) == 1
    resolve_weights(spec).files["model.safetensors"].resolve().write_bytes(b"!" + DATA[1:])
    with pytest.raises(ChecksumError, match="offline"):
        resolve_weights(spec, offline=True)


def test_trust_on_first_use_holds_an_unpinned_revision_until_update(hub: FakeHub) -> None:
    first = resolve_weights(model_spec())
    hub.add("org/model", {"config.json": CONFIG, "model.safetensors": weights_bytes(fill=9)})
    assert resolve_weights(model_spec()).files["model.safetensors"].read_bytes() == DATA
    renewed = resolve_weights(model_spec(), update=True)
    assert renewed.files["model.safetensors"].read_bytes() == weights_bytes(fill=9) and renewed.root != first.root


def test_fault_14_too_little_space_is_told_before_the_download(hub: FakeHub, zoo_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("zoo_core.hub.repository.free_bytes", lambda path: 1000)
    with pytest.raises(NoSpaceError) as caught:
        resolve_weights(model_spec())
    assert caught.value.fields["needed"] == len(DATA) + len(CONFIG) and "MB needed" in str(caught.value) and "MB free" in str(caught.value)
    assert not hub.downloads("model.safetensors") and isinstance(caught.value, OSError)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_fault_14_disk_full_while_writing_keeps_the_partial_and_no_litter(hub: FakeHub, zoo_cache: Path, code: int) -> None:  # noqa: F811
    with full_disk(zoo_cache / "hub", after=250_000, code=code), pytest.raises(NoSpaceError, match="kept and will be resumed"):
        resolve_weights(model_spec())
    partials = [path.name for path in zoo_cache.rglob("*.partial")]
    assert partials == [f"{SHA}.partial"] and not [name for name in litter(zoo_cache) if name.endswith(".tmp")]
    assert resolve_weights(model_spec()).files["model.safetensors"].read_bytes() == DATA
    last = hub.downloads("model.safetensors")[-1].range
    assert last is not None and int(last.removeprefix("bytes=").rstrip("-")) > 100_000
    assert not litter(zoo_cache)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_fault_15_read_only_cache_works_when_files_are_there(hub: FakeHub, zoo_cache: Path, code: int) -> None:  # noqa: F811
    spec = model_spec()
    with read_only(zoo_cache, code=code), pytest.raises(CacheAccessError, match="ZOO_HOME"):
        resolve_weights(spec)
    resolve_weights(spec)
    (zoo_cache / "verdicts").exists()
    with read_only(zoo_cache, code=code):
        assert resolve_weights(spec).files["model.safetensors"].read_bytes() == DATA


def test_fault_15_no_right_to_link_gives_files_instead(hub: FakeHub) -> None:
    with no_links():
        found = resolve_weights(model_spec())
    assert not found.files["model.safetensors"].is_symlink() and found.files["model.safetensors"].read_bytes() == DATA
    assert resolve_weights(model_spec(), offline=True).files["model.safetensors"].read_bytes() == DATA


def test_fault_15_odd_and_over_long_cache_paths(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "Größe 模型 'x'" / "c"))
    assert resolve_weights(model_spec()).files["model.safetensors"].read_bytes() == DATA
    deep = tmp_path.joinpath(*["d" * 200] * 2)
    monkeypatch.setenv("ZOO_HOME", str(deep))
    assert len(str(deep)) > 400 and resolve_weights(model_spec()).files["model.safetensors"].read_bytes() == DATA
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / ("e" * 300)))
    with pytest.raises(CacheAccessError, match="short path"):
        resolve_weights(model_spec())


def _load_in_child(queue: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    queue.put(hashlib.sha256(resolve_weights(model_spec()).files["model.safetensors"].read_bytes()).hexdigest())


def test_fault_16_two_processes_share_one_download(hub: FakeHub, zoo_cache: Path) -> None:  # noqa: F811
    hub.misbehave("model.safetensors", Fault(drip=60_000, delay=0.08))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_load_in_child, args=(queue,)) for _ in range(2)]
    for child in children:
        child.start()
    results = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join(30)
    assert results == [SHA, SHA] and len(hub.downloads("model.safetensors")) == 1
    assert not litter(zoo_cache)


def test_fault_16_two_threads_share_one_download(hub: FakeHub) -> None:
    hub.misbehave("model.safetensors", Fault(drip=60_000, delay=0.02))
    results: list[str] = []
    events: list[dict] = []  # type: ignore[type-arg]
    threads = [
        threading.Thread(
            target=lambda: results.append(
                hashlib.sha256(resolve_weights(model_spec(), progress=events.append).files["model.safetensors"].read_bytes()).hexdigest()
            )
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [SHA] * 3 and len(hub.downloads("model.safetensors")) == 1


def test_fault_16_lock_says_who_holds_it_and_survives_a_dead_holder(zoo_cache: Path, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "x.lock"
    said: list[str] = []
    with locked(path):
        thread = threading.Thread(target=lambda: locked(path, waiting=said.append).__enter__(), daemon=True)
        thread.start()
        time.sleep(0.6)
    assert said and f"pid {os.getpid()}" in said[0]
    code = f"import pathlib, time\nfrom zoo_core.hub.cache import locked\nwith locked(pathlib.Path({str(tmp_path / 'y.lock')!r})): time.sleep(60)"
    assert kill_when([sys.executable, "-c", code], (tmp_path / "y.lock.owner").exists) == -9
    assert (tmp_path / "y.lock.owner").exists(), "the dead holder's note is left"
    begin = time.monotonic()
    with locked(tmp_path / "y.lock"):
        assert time.monotonic() - begin < 5


def test_fault_16_file_system_without_locks(hub: FakeHub, zoo_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="flock"):
        assert resolve_weights(model_spec()).files["model.safetensors"].read_bytes() == DATA


def test_fault_16_locks_that_do_not_lock_cost_bandwidth_only(hub: FakeHub, zoo_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("zoo_core.hub.repository.locked", lambda *_, **__: contextlib.nullcontext())
    hub.misbehave("model.safetensors", *[Fault(drip=30_000, delay=0.01 + 0.005 * index) for index in range(4)])
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda: results.append(hashlib.sha256(resolve_weights(model_spec()).files["model.safetensors"].read_bytes()).hexdigest()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [SHA] * 4 and 1 <= len(hub.downloads("model.safetensors")) <= 12
    assert resolve_weights(model_spec(), offline=True).files["model.safetensors"].read_bytes() == DATA and not litter(zoo_cache)


def test_fault_17_replacing_a_file_leaves_a_mapped_one_whole(hub: FakeHub, zoo_cache: Path) -> None:  # noqa: F811
    from zoo_core.checkpoint import open_checkpoint
    from zoo_core.hub.cache import quarantine

    found = resolve_weights(model_spec())
    source = open_checkpoint(found.files["model.safetensors"])
    tensor = source.get("a")
    inode = found.files["model.safetensors"].stat().st_ino
    quarantine(found.files["model.safetensors"], "test")
    again = resolve_weights(model_spec())
    assert again.files["model.safetensors"].stat().st_ino != inode, "a new file, never the old one rewritten"
    assert int(tensor.long().sum()) == sum(DATA[-SIZE:])


def test_fault_28_interrupt_leaves_no_wrong_file_and_resumes(hub: FakeHub, zoo_cache: Path) -> None:  # noqa: F811
    hub.misbehave("model.safetensors", Fault(hang_at=300_000))
    status = kill_when(child_command(), lambda: hub.reached.is_set() and bool(list(zoo_cache.rglob("*.partial"))), kill=2)
    assert status != 0 and not list(zoo_cache.rglob("model.safetensors"))
    assert [name for name in litter(zoo_cache) if name.endswith(".tmp")] == []
    assert resolve_weights(model_spec()).files["model.safetensors"].read_bytes() == DATA


@pytest.mark.parametrize("years", [-30, 30])
def test_fault_29_a_clock_that_jumps_changes_nothing(hub: FakeHub, zoo_cache: Path, years: int, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The wall clock is only shown, never compared: what was fetched stays trusted, and files dated in the future are read."""
    resolve_weights(model_spec())
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + years * 365 * 86400.0)
    found = resolve_weights(model_spec(), offline=True)
    assert found.files["model.safetensors"].read_bytes() == DATA
    stamp = real() + years * 365 * 86400
    os.utime(found.files["model.safetensors"].resolve(), (stamp, stamp))
    assert resolve_weights(model_spec(pinned=True), offline=True).files["model.safetensors"].read_bytes() == DATA


def test_progress_lines_are_json(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.misbehave("model.safetensors", Fault(drop_at=100_000))
    resolve_weights(model_spec(), progress="json")
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {event["event"] for event in events} >= {"start", "retry", "done"} and events[-1]["bytes"] == len(DATA)
    resolve_weights(model_spec(), progress="bar")


def test_pin_gives_commit_and_digests(hub: FakeHub) -> None:
    from zoo_core.hub import pin

    commit, files = pin("hf://org/model")
    assert commit == hub.repos["org/model"].refs["main"]
    assert files == [
        {"path": "config.json", "size": len(CONFIG), "sha256": hashlib.sha256(CONFIG).hexdigest()},
        {"path": "model.safetensors", "size": len(DATA), "sha256": SHA},
    ]
    with pytest.raises(DownloadError, match="no file"):
        pin("hf://org/model", ["absent.bin"])


def test_a_stalled_connection_times_out_and_resumes(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo_core.hub.fetch import Patience

    defaults = Patience.__init__.__defaults__
    assert defaults is not None
    monkeypatch.setattr(Patience.__init__, "__defaults__", (*defaults[:4], 0.3, defaults[5]))
    hub.misbehave("model.safetensors", Fault(hang_at=200_000))
    assert resolve_weights(model_spec()).files["model.safetensors"].read_bytes() == DATA
    assert hub.downloads("model.safetensors")[1].range == "bytes=200000-"


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    resolve_weights(model_spec())
    sent = {request.path.split("/")[1]: request.authorization for request in hub.requests}
    assert sent == {"api": "Bearer hf_secret", "org": "Bearer hf_secret", "cdn": None}


def test_subfolder_of_a_repository(hub: FakeHub) -> None:
    hub.add("org/parts", {"vae/config.json": CONFIG, "vae/model.safetensors": DATA, "vae/model.bin": b"y" * 2000, "unet/model.safetensors": DATA})
    found = resolve_weights(model_spec(), weights="hf://org/parts/vae")
    assert set(found.files) == {"config.json", "model.safetensors"} and found.root is not None and found.root.name == "vae"
    assert RepoCache(Path(os.environ["ZOO_HOME"]) / "hub", "org/parts").ref("main") == hub.repos["org/parts"].refs["main"]
