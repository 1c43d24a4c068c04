"""Writes tokenizer-cases.json: random texts and ids of the tiny model's tokenizer by Hugging Face transformers.

Run: python regenerate_tokenizer.py
"""

import json
import random
import shutil
import tempfile
from pathlib import Path

import transformers

SEED = 20261121
HERE = Path(__file__).parent
MODEL = HERE.parents[4] / "examples/models/tiny-mla-v3"

PIECES = [
    " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "a", "The ", "king", "'s", "12", "3.14", "...", "!?", "_",
    "<", ">", "|", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<|User|>", "｜", "▁",
    "é", "e\u0301", "ß", "Ω", "шум", "שלום", "مرحبا", "日本", "한국", "ไทย", "👍", "👩‍👩‍👧", "🏳️‍🌈", "\u200b", "\ufeff",
    "\x00", "\x01", "\x7f", "\ufffd", "\U0010ffff", "\u2028", "{{", "{%", "\\n", "&amp;", "http://x.y/z?q=1#t",
]


def random_text(rng):
    if rng.random() < 0.2:
        points = [rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)]) for _ in range(rng.randrange(12))]
        return "".join(map(chr, points))
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(16)))


def text_cases(tokenizer):
    rng = random.Random(SEED)
    for _ in range(300):
        text = random_text(rng)
        ids = tokenizer.encode(text)
        yield dict(text=text, ids=ids, ids_no_special=tokenizer.encode(text, add_special_tokens=False),
                   decoded=tokenizer.decode(ids, skip_special_tokens=True), decoded_all=tokenizer.decode(ids))


def id_cases(tokenizer):
    rng = random.Random(SEED + 1)
    for _ in range(100):
        ids = [rng.randrange(len(tokenizer)) for _ in range(rng.randrange(20))]
        yield dict(ids=ids, decoded=tokenizer.decode(ids, skip_special_tokens=True), decoded_all=tokenizer.decode(ids))


VARIANT_TEXT = "Hello, king the queen.<｜User｜>  He said , 'no' ."


def variant(name, tokenizer_json=None, tokenizer_config=None, added_tokens=None):
    """The tiny tokenizer with some keys of its files replaced, and perhaps an added_tokens.json."""
    with tempfile.TemporaryDirectory() as folder:
        for file in ["config.json", "tokenizer.json", "tokenizer_config.json"]:
            shutil.copy(MODEL / file, folder)
        for file, changes in [("tokenizer.json", tokenizer_json), ("tokenizer_config.json", tokenizer_config)]:
            path = Path(folder, file)
            path.write_text(json.dumps({**json.loads(path.read_text()), **(changes or {})}))
        if added_tokens:
            Path(folder, "added_tokens.json").write_text(json.dumps(added_tokens))
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        ids = tokenizer.encode(VARIANT_TEXT)
        return dict(
            name=name, tokenizer_json=tokenizer_json or {}, tokenizer_config=tokenizer_config or {},
            added_tokens=added_tokens or {}, text=VARIANT_TEXT, ids=ids, ids_no_special=tokenizer.encode(VARIANT_TEXT, add_special_tokens=False),
            decoded=tokenizer.decode(ids, skip_special_tokens=True), special_tokens=tokenizer.special_tokens_map)


def token(content, **flags):
    return dict(dict(content=content, lstrip=False, rstrip=False, single_word=False, normalized=False, special=False),
                **flags)


def variants():
    yield variant("as it is")
    yield variant("add_bos_token is not looked at", tokenizer_config=dict(add_bos_token=False))
    yield variant("nor is add_eos_token", tokenizer_config=dict(add_eos_token=True))
    yield variant("LlamaTokenizerFast is not one", tokenizer_config=dict(tokenizer_class="LlamaTokenizerFast"))
    yield variant("no post-processor", tokenizer_json=dict(post_processor=None))
    yield variant("clean-up is ignored", tokenizer_config=dict(clean_up_tokenization_spaces=True))
    yield variant("truncation is off", tokenizer_json=dict(
        truncation=dict(direction="Right", max_length=4, strategy="LongestFirst", stride=0)))
    yield variant("padding is off", tokenizer_json=dict(padding=dict(
        strategy=dict(Fixed=64), direction="Right", pad_to_multiple_of=None, pad_id=2, pad_type_id=0,
        pad_token="<｜▁pad▁｜>")))
    yield variant("a word as end of sequence", tokenizer_config=dict(eos_token="the"))
    yield variant("a word with flags", tokenizer_config=dict(eos_token={
        "__type": "AddedToken", "content": "the", "lstrip": True, "rstrip": True, "single_word": False,
        "normalized": False}))
    yield variant("further special words", tokenizer_config=dict(additional_special_tokens=["He", "the"]))
    yield variant("a named special word", tokenizer_config=dict(image_token="the"))
    yield variant("added tokens listed", tokenizer_config=dict(added_tokens_decoder={
        "1602": dict(content="the", lstrip=False, rstrip=False, single_word=False, normalized=False, special=False)}))
    yield variant("new words", tokenizer_config=dict(
        extra_special_tokens=["no", token("said", lstrip=True, __type="AddedToken")], image_token="queen", mask_token="Hello"))
    yield variant("new words, listed", tokenizer_config=dict(mask_token="Hello", added_tokens_decoder={
        "3000": token("queen"), "2500": token("said", rstrip=True, special=True)}))
    yield variant("new words of an older file", added_tokens={"queen": 2049, "said": 2048, "no": 3})
    plain = [dict(t, special=False) for t in json.loads((MODEL / "tokenizer.json").read_text())["added_tokens"]]
    yield variant("named tokens are special", dict(added_tokens=plain), dict(sep_token="<｜User｜>"))
    yield variant("but not beside a list without them", dict(added_tokens=plain), dict(
        sep_token="<｜User｜>", added_tokens_decoder={}))
    yield variant("listed flags win", dict(added_tokens=plain), dict(added_tokens_decoder={
        "3": token("<｜User｜>", rstrip=True, special=True)}))


if __name__ == "__main__":
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    golden = dict(
        reference=f"transformers {transformers.__version__}, seed {SEED}",
        texts=list(text_cases(tokenizer)), ids=list(id_cases(tokenizer)), variants=list(variants()))
    HERE.joinpath("tokenizer-cases.json").write_text(json.dumps(golden) + "\n")
