#!/usr/bin/env bash
# gpu-tests.sh JARS: the tests that need a GPU, with a Java 17 runtime and the jars of collect-jars.sh alone. Without a GPU
# they fail. Needs this folder and plugin/src/test/resources/models/tiny-mla-v2-lite beside it, as in the repository.
set -euo pipefail
examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
jars=$(cd "${1?"usage: gpu-tests.sh JARS"}" && pwd)

cd "$examples/../plugin" # the tests know their models from there
exec "${JAVA_HOME:+$JAVA_HOME/bin/}java" -Dorg.bytedeco.javacpp.maxbytes=0 -Dorg.bytedeco.javacpp.maxphysicalbytes=0 \
  -cp "$jars/*" \
  org.junit.platform.console.ConsoleLauncher execute --disable-banner --details=tree --fail-if-no-tests \
  --include-tag=gpu --select-package=io.github.sparkmla.engine --include-classname='.*\.Gpu[A-Za-z]*Test'
