#!/usr/bin/env bash
# Generates a continuation for each of 100 prompts with the tiny model of this repository, and shows the first ten.
set -euo pipefail
examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exec "$examples/generate.sh" \
  --model "$examples/models/tiny-mla-v3" \
  --input "$examples/data/prompts.jsonl" \
  --output "$examples/target/quickstart" \
  --overwrite \
  --show 10
