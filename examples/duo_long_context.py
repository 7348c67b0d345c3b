"""DuoAttention as a user would use it: a long text, the same question through three caches, answers and cache bytes side by side.

python examples/duo_long_context.py                       # SmolLM2-135M from a package-registry wheel
python examples/duo_long_context.py --random              # a tiny random model: only shows that everything runs
"""

from __future__ import annotations

import argparse
from typing import Any

TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 4096,
}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--words", type=int, default=700, help="length of the text")
    parser.add_argument("--tokens", type=int, default=12, help="tokens of the answer")
    parser.add_argument("--random", action="store_true", help="tiny random weights and a random choice of heads")
    return parser.parse_args(argv)


def prompt(words: int) -> str:
    """Prose with a number in its first third, and a question at the end."""
    sentences = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
    filler = sentences.split(" ")
    text = (filler * (words // len(filler) + 1))[:words]
    text.insert(words // 3, "The pass key is 58213. Remember it. 58213 is the pass key.")
    return " ".join(text) + " What is the pass key? The pass key is"


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    import zoo

    args = arguments(argv)
    options: dict[str, Any] = {"weights": "random", "overrides": TINY, "dtype": "float32"} if args.random else {}
    heads: dict[str, Any] = {"pattern": "random", "sink": 4, "recent": 16} if args.random else {}
    rows = []
    for cache in ("full", "duo", "duo-kv4"):
        chosen = cache if cache == "full" else {"name": cache, **heads}
        model = zoo.load(args.model, device="cpu", cache=chosen, **options)
        result = model.generate(prompt(args.words), max_new_tokens=args.tokens)
        rows.append({"cache": cache, "answer": result.texts[0], "bytes": result.info["cache_bytes"], "tokens": result.info["prompt_tokens"]})
        print(f"{cache:8} {rows[-1]['bytes'] / 1e6:8.2f} MB for {rows[-1]['tokens']} prompt tokens: {rows[-1]['answer']!r}")
    return rows


if __name__ == "__main__":
    main()
