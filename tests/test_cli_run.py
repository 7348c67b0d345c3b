# ruff: noqa: E501 - sources of made-up plugins stand on one line
"""``zoo run`` for every task, and the HTTP server, on made-up models."""

from __future__ import annotations

import base64
import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoo_core.cli import main
from zoo_core.cli.run import split
from zoo_core.errors import InputError
from zoo_core.usage import open_picture, overlay

TASKS = """
import numpy as np, torch
from PIL import Image
from zoo_core.interfaces import ImageResult, Model, MotionResult, SegmentationResult, TextResult


class Draw(Model):
    def generate(self, prompt, *, steps=4, guidance=1.0, height=8, width=8, seed=None, images_per_prompt=1, negative_prompt=None, progress=False):
        count = images_per_prompt * (len(prompt) if isinstance(prompt, list) else 1)
        return ImageResult([Image.new("RGB", (width, height), (steps, i, 7)) for i in range(count)], seed=seed, seconds={"denoise": 0.5}, info={"prompt": prompt})


class Coder(Model):
    def reconstruct(self, images, **options):
        if options:
            raise ValueError(f"unknown options {sorted(options)}")
        return ImageResult([images])


class Write(Model):
    def generate(self, prompt, *, max_new_tokens=8, temperature=0.0, top_p=1.0, stop=(), seed=None, images=()):
        text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        return TextResult([f"{text}!{len(images) or ''}"], token_ids=[list(range(max_new_tokens))])

    def stream(self, prompt, **options):
        yield from ("a", "b", str(options.get("max_new_tokens", "")))


class See(Write):
    stream = property()


class Segment(Model):
    classes = ("sky", "road")
    palette = ((0, 0, 255), (90, 90, 90))

    def segment(self, images, *, scale=1.0):
        labels = np.zeros((images.height, images.width), np.uint8)
        labels[images.height // 2:] = 1
        labels[0, 0] = 255
        return SegmentationResult([labels])


class Move(Model):
    def predict(self, scene, *, modes=6, seed=None):
        return MotionResult(np.zeros((1, modes, 2, 2)), np.full((1, modes), 1 / modes), [3])


def build(r):
    kinds = {"text-to-image": Draw, "class-to-image": Draw, "image-autoencoder": Coder, "causal-lm": Write, "vision-language": See, "semantic-segmentation": Segment, "motion-prediction": Move}
    return kinds[r.spec.task](r.spec, r.config, {"net": torch.nn.Linear(1, 1)}, r.report)
"""
NAMES = {"draw": "text-to-image", "classes": "class-to-image", "coder": "image-autoencoder", "write": "causal-lm", "see": "vision-language", "segment": "semantic-segmentation",
         "move": "motion-prediction", "own": "vendor/own"}  # fmt: skip


@pytest.fixture
def here(plugin, registry, tmp_path: Path, monkeypatch) -> Path:
    """A working folder with a picture, and one toy model per task."""
    plugin("tasks", fragment={"models": {name: {"task": task, "build": "x_tasks.tasks:build"} for name, task in NAMES.items()}}, files={"tasks.py": TASKS})
    registry()
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    Image.new("RGB", (6, 4), (200, 100, 50)).save("in.png")
    return work


def run(*arguments: str) -> int:
    return main(["run", *arguments, "--weights", "random", "--device", "cpu"])


def test_text_to_image_writes_a_png_that_says_how_it_was_made(here: Path) -> None:
    assert run("draw", "a", "red", "cat", "steps=9", "--seed", "5", "-o", "out/cat.png") == 0
    with Image.open("out/cat.png") as image:
        assert image.getpixel((0, 0)) == (9, 0, 7)
        record = json.loads(image.text["zoo"])
    assert record["prompt"] == "a red cat" and record["options"] == {"steps": 9, "seed": 5} and record["versions"]["torch"]
    assert run("draw", "x") == 0 and run("draw", "x") == 0
    assert Path("draw.png").is_file() and Path("draw-2.png").is_file()  # never overwrites on its own


def test_json_record(here: Path, capsys) -> None:
    assert run("draw", "cat", "images_per_prompt=2", "--json", "-o", "x.png") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["outputs"] == ["x-0.png", "x-1.png"] and record["model"] == "draw" and record["seconds"]["denoise"] == 0.5 and record["seconds"]["total"] > 0
    assert run("write", "hello", "--json") == 0
    assert json.loads(capsys.readouterr().out)["texts"] == ["hello!"]


def test_classes(here: Path, capsys) -> None:
    assert run("classes", "207,360", "-o", "c.png") == 0
    assert Path("c-0.png").is_file() and Path("c-1.png").is_file()
    assert run("classes", "a cat") == 2 and "give class numbers" in capsys.readouterr().err


def test_autoencoder_takes_a_picture(here: Path, capsys) -> None:
    assert run("coder", "in.png", "-o", "r.png") == 0
    assert Image.open("r.png").size == (6, 4)
    assert run("coder", "none.png") == 2 and "does not exist" in capsys.readouterr().err
    assert run("coder") == 2 and "needs a picture" in capsys.readouterr().err


def test_language_model_streams_or_writes_a_file(here: Path, capsys) -> None:
    assert run("write", "hello", "max_new_tokens=3") == 0
    assert capsys.readouterr().out == "ab3\n"
    assert run("write", "hello", "-o", "t.txt") == 0
    assert Path("t.txt").read_text() == "hello!\n"
    assert run("write") == 2 and "needs a prompt" in capsys.readouterr().err


def test_vision_language_gets_pictures(here: Path, capsys) -> None:
    assert run("see", "what is it", "images=in.png,in.png") == 0
    assert capsys.readouterr().out == "what is it!2\n"


def test_segmentation_writes_overlay_and_class_map(here: Path) -> None:
    assert run("segment", "in.png", "-o", "s.png") == 0
    with Image.open("s.png") as image:
        assert image.getpixel((0, 0)) == (200, 100, 50)  # void stays clear
        assert image.getpixel((1, 0)) == (80, 40, 173) and image.getpixel((1, 3)) == (134, 94, 74)
    with Image.open("s-classes.png") as classes:
        assert classes.mode == "P" and np.asarray(classes)[3, 1] == 1 and np.asarray(classes)[0, 0] == 255


def test_motion_writes_json(here: Path) -> None:
    assert run("move", "scene.json", "modes=2", "-o", "m.json") == 0
    data = json.loads(Path("m.json").read_text())
    assert np.shape(data["trajectories"]) == (1, 2, 2, 2) and data["agent_ids"] == [3]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("draw", "x", "stepz=3"), "did you mean: steps"),
        (("segment", "in.png", "zzz=3"), "its options: scale"),
        (("draw", "x", "-o", "noext"), "has no suffix"),
        (("draw", "x", "-o", "x.docx"), "cannot be written as '.docx'"),
        (("draw", "x", "--config", "none.yaml"), "cannot be read"),
        (("draw", "x", "--set", "a=1"), "unknown key 'a'"),
    ],
)
def test_mistakes_are_user_errors(here: Path, capsys, arguments: tuple[str, ...], text: str) -> None:
    assert run(*arguments) == 2
    assert text in capsys.readouterr().err
    assert sorted(p.name for p in here.iterdir()) == ["in.png"]


def test_words_are_split_into_prompt_and_options() -> None:
    assert split(["a=b", "c", "1=2", "x y=3", "load.dtype=bfloat16", "neg-prompt=blur"]) == (
        "c 1=2 x y=3",
        {"a": "b", "neg_prompt": "blur"},
        {"dtype": "bfloat16"},
    )
    assert split([]) == (None, {}, {})


def exif_rotated() -> Image.Image:
    image = Image.new("RGB", (2, 4), (9, 9, 9))
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    image.save(buffer, "JPEG", exif=exif)
    return Image.open(io.BytesIO(buffer.getvalue()))


@pytest.mark.parametrize(
    ("image", "size", "pixel"),
    [
        (Image.new("L", (2, 4), 100), (2, 4), (100, 100, 100)),
        (Image.new("LA", (2, 4), (100, 0)), (2, 4), (255, 255, 255)),
        (Image.new("RGBA", (2, 4), (0, 0, 0, 0)), (2, 4), (255, 255, 255)),
        (Image.new("CMYK", (2, 4), (0, 0, 0, 0)), (2, 4), (255, 255, 255)),
        (Image.new("1", (2, 4), 1), (2, 4), (255, 255, 255)),
        (Image.new("I;16", (2, 4), 65535), (2, 4), (255, 255, 255)),
        (Image.fromarray(np.full((4, 2), 32896, np.int32)), (2, 4), (128, 128, 128)),
        (exif_rotated(), (4, 2), (9, 9, 9)),
    ],
)
def test_fault_24_picture_modes_and_rotation(image: Image.Image, size: tuple[int, int], pixel: tuple[int, int, int]) -> None:
    found = open_picture(image)
    assert found.mode == "RGB" and found.size == size and found.getpixel((0, 0)) == pixel


def test_fault_24_damaged_foreign_and_huge_pictures(tmp_path: Path, monkeypatch) -> None:
    good = tmp_path / "good.png"
    Image.effect_noise((64, 64), 50).save(good)
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:500])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "folder.png").mkdir()
    for name in ("cut.png", "text.png", "folder.png", "none.png"):
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            open_picture(tmp_path / name)
    monkeypatch.setattr("zoo_core.usage.MAX_PIXELS", 100)
    with pytest.raises(InputError, match="64x64 pixels"):
        open_picture(good)


def test_overlay_resizes_the_picture_to_the_map() -> None:
    assert overlay(Image.new("RGB", (2, 2)), np.zeros((4, 6), int), [(255, 255, 255)]).size == (6, 4)


# -- server ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def serve(here: Path) -> Iterator[Any]:
    """``ask = serve("write")``; ``ask(path, body)`` gives (status, content)."""
    from zoo_core.loading import load
    from zoo_core.serving.server import Server

    servers = []

    def start(name: str, api_key: str | None = None) -> Any:
        server = Server(load(name, weights="random", device="cpu"), port=0, api_key=api_key)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def ask(path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
            data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}{path}", data=data, headers=headers or {})
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    content = answer.read()
                    return answer.status, content if "event-stream" in answer.headers["Content-Type"] else json.loads(content)
            except urllib.error.HTTPError as error:
                return error.code, json.loads(error.read())

        return ask

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_server_draws(serve) -> None:
    ask = serve("draw")
    assert ask("/health")[0] == 200 and ask("/v1/models")[1]["data"][0]["id"] == "draw"
    status, answer = ask("/v1/images/generations", {"prompt": "cat", "n": 2, "size": "16x8", "steps": 3, "seed": 1})
    assert status == 200 and len(answer["data"]) == 2
    image = Image.open(io.BytesIO(base64.b64decode(answer["data"][1]["b64_json"])))
    assert image.size == (16, 8) and image.getpixel((0, 0)) == (3, 1, 7)


def test_server_writes_and_streams(serve) -> None:
    ask = serve("write")
    status, answer = ask("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "model": "write"})
    assert status == 200 and answer["choices"][0] == {"index": 0, "message": {"role": "assistant", "content": "hi!"}, "finish_reason": "length"}
    assert ask("/v1/completions", {"prompt": "hi"})[1]["choices"][0]["text"] == "hi!"
    status, events = ask("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "stream": True})
    chunks = [line.removeprefix("data: ") for line in events.decode().split("\n\n") if line]
    assert chunks[-1] == "[DONE]" and "".join(json.loads(c)["choices"][0]["delta"].get("content", "") for c in chunks[:-1]) == "ab"
    assert json.loads(chunks[-2])["choices"][0]["finish_reason"] == "stop"


def test_server_takes_pictures_as_data_only(serve) -> None:
    ask = serve("see")
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")

    def message(url: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": [{"type": "text", "text": "what"}, {"type": "image_url", "image_url": {"url": url}}]}]}

    status, answer = ask("/v1/chat/completions", message("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()))
    assert status == 200 and answer["choices"][0]["message"]["content"] == "what!1"
    for url in ("http://127.0.0.1/x.png", "file:///etc/passwd", "data:image/png;base64,AAAA", "data:image/png;base64,***"):
        assert ask("/v1/chat/completions", message(url))[0] == 400


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/v1/completions", {"prompt": ""}, 400, "not empty"),
        ("/v1/completions", {"prompt": "x", "temprature": 1}, 400, "did you mean: temperature"),
        ("/v1/completions", {"prompt": "x", "max_tokens": -1}, 400, "whole number"),
        ("/v1/completions", {"prompt": "x", "temperature": "hot"}, 400, "must be a number"),
        ("/v1/completions", {"prompt": "x", "model": "other"}, 404, "this server has 'write'"),
        ("/v1/chat/completions", {"messages": []}, 400, "list of"),
        ("/v1/images/generations", {"prompt": "x"}, 400, "makes no pictures"),
        ("/v1/nothing", {}, 404, "no such path"),
        ("/v1/completions", b"{", 400, "not a JSON object"),
        ("/v1/completions", b"[" * 100_000, 400, "not a JSON object"),
    ],
)
def test_server_answers_mistakes(serve, path: str, body: Any, status: int, text: str) -> None:
    found, answer = serve("write")(path, body)
    assert found == status and text in answer["error"]["message"]


def test_server_asks_for_the_key(serve) -> None:
    ask = serve("write", api_key="s3cret")
    assert ask("/health")[0] == 200 and ask("/v1/models")[0] == 401
    assert ask("/v1/completions", {"prompt": "x"}, {"Authorization": "Bearer wrong"})[0] == 401
    assert ask("/v1/completions", {"prompt": "x"}, {"Authorization": "Bearer s3cret"})[0] == 200
