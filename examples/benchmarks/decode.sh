#!/usr/bin/env bash
# decode.sh JARS [options]: DecodeBenchmark with a Java 17 runtime and the jars of collect-jars.sh alone; a relative --config
# starts here. Example: decode.sh JARS --config shapes/deepseek-v2-lite --batch 256,512,1024 --profile
set -euo pipefail
benchmarks=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
jars=$(cd "${1?"usage: decode.sh JARS [options]"}" && pwd)

cd "$benchmarks"
exec "${JAVA_HOME:+$JAVA_HOME/bin/}java" -Xmx2g -Dorg.bytedeco.javacpp.maxbytes=0 -Dorg.bytedeco.javacpp.maxphysicalbytes=0 \
  -cp "$jars/*" \
  io.github.sparkmla.examples.DecodeBenchmark "${@:2}"
