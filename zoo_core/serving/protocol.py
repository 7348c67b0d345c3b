"""From OpenAI-style request bodies to model calls and back; no sockets here."""

from __future__ import annotations

import base64
import io
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from zoo_core.errors import InputError
from zoo_core.names import near_misses

IMAGE_FIELDS = {"model", "prompt", "n", "size", "seed", "steps", "guidance", "negative_prompt", "response_format", "user"}
TEXT_FIELDS = {"model", "prompt", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed", "stream", "user", "n"}


def images(model: Any, body: Mapping[str, Any]) -> dict[str, Any]:
    """``POST /v1/images/generations``: pictures as base64 PNG."""
    _fields(body, IMAGE_FIELDS)
    if model.task not in ("text-to-image", "class-to-image"):
        raise InputError(f"{model.name} makes no pictures (task {model.task})", fix="use /v1/chat/completions")
    prompt, options = body.get("prompt", ""), _taken(body, "seed", "steps", "guidance", "negative_prompt")
    if not isinstance(prompt, (str, list)):
        raise InputError("prompt must be text or a list of texts", fix='{"prompt": "a cat"}')
    count = _whole(body, "n", 1, 1, 16)
    if body.get("response_format", "b64_json") != "b64_json":
        raise InputError("only response_format b64_json is served", fix='{"response_format": "b64_json"}')
    if "size" in body:
        width, _, height = str(body["size"]).partition("x")
        if not (width.isdigit() and height.isdigit() and 0 < int(width) <= 16384 and 0 < int(height) <= 16384):
            raise InputError(f"size {body['size']!r} is not WIDTHxHEIGHT", fix='{"size": "512x512"}')
        options |= {"width": int(width), "height": int(height)}
    if model.task == "class-to-image":
        prompt = [int(part) for part in str(prompt).replace(",", " ").split()] * count
        options.pop("negative_prompt", None)
    elif count > 1:
        options["images_per_prompt"] = count
    result = model.generate(prompt, **options)
    return {"created": int(time.time()), "data": [{"b64_json": png(image)} for image in result.images], "seed": result.seed, "seconds": result.seconds}


def png(image: Any) -> str:
    """A picture as base64 PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def text(model: Any, body: Mapping[str, Any], *, chat: bool) -> dict[str, Any] | Callable[[], Iterator[dict[str, Any]]]:
    """``/v1/completions`` and ``/v1/chat/completions``: one answer, or (``stream``) a function that gives its chunks.

    Raises:
        InputError: The model writes no text, or the body is not usable.
    """
    _fields(body, TEXT_FIELDS)
    if model.task not in ("causal-lm", "vision-language"):
        raise InputError(f"{model.name} writes no text (task {model.task})", fix="use /v1/images/generations")
    options = _taken(body, "temperature", "top_p", "seed")
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if limit is not None:
        options["max_new_tokens"] = _whole({"max_tokens": limit}, "max_tokens", 128, 1, 1_000_000)
    if body.get("stop"):
        options["stop"] = [body["stop"]] if isinstance(body["stop"], str) else list(body["stop"])
    prompt, more = _chat(model, body) if chat else (_prompt(body), {})
    options |= more
    identity = {"id": f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model.name}
    if body.get("stream"):
        return lambda: chunks(model, prompt, options, identity, chat)
    result = model.generate(prompt, **options)
    answer = result.texts[0]
    used = len(result.token_ids[0]) if result.token_ids else 0
    finished = "length" if limit is not None and used >= options["max_new_tokens"] else "stop"
    piece: dict[str, Any] = {"message": {"role": "assistant", "content": answer}} if chat else {"text": answer}
    usage = {"completion_tokens": used, **{key: result.info[key] for key in ("prompt_tokens",) if key in result.info}}
    kind = "chat.completion" if chat else "text_completion"
    return {**identity, "object": kind, "choices": [{"index": 0, **piece, "finish_reason": finished}], "usage": usage}


def chunks(model: Any, prompt: Any, options: Mapping[str, Any], identity: Mapping[str, Any], chat: bool) -> Iterator[dict[str, Any]]:
    """Server-sent chunks of one answer."""
    kind = "chat.completion.chunk" if chat else "text_completion"

    def wrap(content: str | None, reason: str | None) -> dict[str, Any]:
        body: dict[str, Any] = {"delta": {} if content is None else {"content": content}} if chat else {"text": content or ""}
        return {**identity, "object": kind, "choices": [{"index": 0, **body, "finish_reason": reason}]}

    if hasattr(model, "stream"):
        for piece in model.stream(prompt, **options):
            yield wrap(piece, None)
    else:
        yield wrap(model.generate(prompt, **options).texts[0], None)
    yield wrap(None, "stop")


def _prompt(body: Mapping[str, Any]) -> str:
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise InputError("prompt must be a text that is not empty", fix='{"prompt": "Once upon a time"}')
    return prompt


def _chat(model: Any, body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Messages, and pictures given as data URLs (for models that see)."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) and m.get("role") in ("system", "user", "assistant") for m in messages):
        raise InputError("messages must be a list of {role, content}", fix='{"messages": [{"role": "user", "content": "hello"}]}')
    result, pictures = [], []
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            words = []
            for part in content:
                if isinstance(part, dict) and part.get("type") == "text":
                    words.append(str(part.get("text", "")))
                elif isinstance(part, dict) and part.get("type") == "image_url" and model.task == "vision-language":
                    pictures.append(_data_url(part.get("image_url")))
                else:
                    raise InputError(f"{model.name} cannot take this content part", fix="give text parts" if model.task == "causal-lm" else "text or image_url")
            content = "\n".join(words)
        if not isinstance(content, str):
            raise InputError("content must be text", fix='{"role": "user", "content": "hello"}')
        result.append({"role": message["role"], "content": content})
    return result, ({"images": pictures} if pictures else {})


def _data_url(value: Any) -> Any:
    """The picture in a ``data:`` URL; addresses on the network are refused (a server must not fetch what a request names)."""
    from zoo_core.usage import open_picture

    url = value.get("url") if isinstance(value, dict) else value
    if not isinstance(url, str) or not url.startswith("data:image/") or ";base64," not in url:
        raise InputError("pictures are taken as data URLs only", fix="data:image/png;base64,...")
    from PIL import Image, UnidentifiedImageError

    try:
        return open_picture(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2], validate=True))))
    except (ValueError, OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"the picture cannot be read: {error}", fix="data:image/png;base64,...") from None


def _fields(body: Mapping[str, Any], known: set[str]) -> None:
    for name in body:
        if name not in known:
            close = near_misses(name, known, 2)
            raise InputError(
                f"field {name!r} is unknown", tried=[f"did you mean: {', '.join(close)}"] if close else [], fix=f"known: {', '.join(sorted(known))}"
            )


def _taken(body: Mapping[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        if name != "negative_prompt" and body.get(name) is not None and (isinstance(body[name], bool) or not isinstance(body[name], (int, float))):
            raise InputError(f"{name} must be a number", fix=f'{{"{name}": 1}}')
    return {name: body[name] for name in names if body.get(name) is not None}


def _whole(body: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"{name} must be a whole number from {least} to {most}", fix=f'{{"{name}": {default}}}')
    return value
