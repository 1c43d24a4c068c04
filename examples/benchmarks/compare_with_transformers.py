#!/usr/bin/env python3
"""Output tokens a second on this machine's CPU, side by side: Hugging Face transformers' generate() and Spark MLA's engine.

Both get the same prompts and generate the same number of tokens greedily, with the same number of threads. The engine
computes in float32; transformers is run as it comes (float32, its own choice of attention and of expert kernels), with
eager attention, and in the checkpoint's bfloat16. With --neighbours busy processes run beside both, as on an executor
whose cores others use, too: PyTorch's threads wait for each other by spinning, and then wait for who has no core.
Needs: torch, transformers (pip install torch transformers), and this project built (mvn -DskipTests package).

usage: compare_with_transformers.py [--model DIR] [--prompts N] [--tokens N] [--rounds N]
           [--neighbours N]
"""
import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

here = pathlib.Path(__file__).resolve().parent
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", type=pathlib.Path, default=here.parent / "models/tiny-mla-v3")
parser.add_argument("--prompts", type=int, default=64)
parser.add_argument("--tokens", type=int, default=64)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--neighbours", type=int, default=0)
args = parser.parse_args()
threads = len(os.sched_getaffinity(0))


def prompt_ids(tokenizer):
    rows = [json.loads(line)["prompt"] for line in open(here.parent / "data/prompts.jsonl", encoding="utf-8")]
    return [tokenizer(rows[i % len(rows)])["input_ids"] for i in range(args.prompts)]


CONFIGURATIONS = {
    "transformers, as it comes": dict(dtype="float32"),
    "transformers, eager attention": dict(dtype="float32", attn_implementation="eager"),
    "transformers, bfloat16": dict(dtype="bfloat16"),
}


@contextlib.contextmanager
def neighbours():
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(args.neighbours)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def transformers_rounds(prompts, configuration):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(args.model, **configuration).eval()
    width = max(map(len, prompts))  # generate() wants a rectangle, padded on the left
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    options = dict(do_sample=False, min_new_tokens=args.tokens, max_new_tokens=args.tokens, pad_token_id=0)
    options.update(temperature=None, top_p=None)
    seconds = []
    for _ in range(1 + args.rounds):  # the first is the warm-up
        start = time.perf_counter()
        with torch.no_grad():
            out = model.generate(ids, attention_mask=mask, **options)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds[1:])[args.rounds // 2], out[:, width:].tolist()


def engine_rounds(prompts):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(prompts, file)
        file.flush()
        root = here.parent.parent
        jars = [root / "examples/target/spark/jars/*", *root.glob("*/target/spark-mla-[pe]*.jar")]
        command = ["java", "-Dorg.bytedeco.javacpp.maxbytes=0", "-cp", ":".join(map(str, jars))]
        command += ["io.github.sparkmla.examples.Throughput", args.model, file.name, args.tokens, args.rounds]
        out = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout
    result = json.loads(out.splitlines()[-1])
    return result["seconds"], result["outputs"]


from transformers import AutoTokenizer

prompts = prompt_ids(AutoTokenizer.from_pretrained(args.model))
print(f"{args.model.name}: {args.prompts} prompts x {args.tokens} tokens, greedy, {threads} threads,", end=" ")
print(f"{args.neighbours} busy neighbours")
with neighbours():
    theirs = {name: transformers_rounds(prompts, how) for name, how in CONFIGURATIONS.items()}
    ours, our_out = engine_rounds(prompts)
total = args.prompts * args.tokens
print(f"{'':32}{'seconds':>10}{'tokens/s':>12}{'engine is':>14}{'same rows':>12}")
for name, (seconds, out) in theirs.items():
    same = sum(a == b for a, b in zip(out, our_out))
    print(f"{name:32}{seconds:10.2f}{total / seconds:12.0f}{seconds / ours:8.1f} times{same:9} of {len(prompts)}")
print(f"{'Spark MLA engine, float32':32}{ours:10.2f}{total / ours:12.0f}")
print("(generate() pads prompts, which may flip a near-tie; bfloat16 rounds, and its tokens differ)")
