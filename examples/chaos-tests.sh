#!/usr/bin/env bash
# chaos-tests.sh JARS [-Dchaos.runs=N]: ChaosIT on GPU 0, which nobody else may use meanwhile. Needs a Java 17 runtime, the
# jars of collect-jars.sh, a Spark 4.0 in SPARK_HOME (of which it takes the folder jars), and this folder and conf/ as in
# the repository. -Dchaos.device=cpu runs the same without a GPU. Logs of master, workers and executors: target/chaos.
set -euo pipefail
examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
jars=$(cd "${1?"usage: chaos-tests.sh JARS [-Dchaos.runs=N]"}" && pwd)
shift
: "${SPARK_HOME?"SPARK_HOME is not set: ChaosIT starts a standalone cluster of it"}"
export SPARK_HOME SPARK_SCALA_VERSION=2.13

plugin=$(ls "$jars"/spark-mla-plugin-*.jar | grep -v -- -tests.jar)
options=(-Xmx2g -Djdk.reflect.useDirectMethodHandle=false -Dplugin.jar="$plugin")
for package in java.{lang,lang.invoke,lang.reflect,io,net,nio,util,util.concurrent,util.concurrent.atomic} \
  sun.{nio.ch,nio.cs,security.action,util.calendar} jdk.internal.ref; do
  options+=("--add-opens=java.base/$package=ALL-UNNAMED")
done

mkdir -p "$examples/target"
cd "$examples" # the tests know the model from there
exec "${JAVA_HOME:+$JAVA_HOME/bin/}java" "${options[@]}" -Dchaos.device=cuda "$@" \
  -cp "$plugin:$(ls "$jars"/spark-mla-examples-*-tests.jar):$(ls "$jars"/junit-platform-console-*.jar):$SPARK_HOME/jars/*" \
  org.junit.platform.console.ConsoleLauncher execute --disable-banner --details=tree --fail-if-no-tests \
  --select-class=io.github.sparkmla.examples.ChaosIT
