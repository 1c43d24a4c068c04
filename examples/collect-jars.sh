#!/usr/bin/env bash
# collect-jars.sh FOLDER: copies what a host without Maven needs to run DecodeBenchmark and the GPU tests: the built jars
# (mvn -DskipTests package comes first) and the few libraries that the engine takes from Spark.
set -euo pipefail
examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$examples")
folder=${1?"usage: collect-jars.sh FOLDER"}

mkdir -p "$folder"
cp "$root"/plugin/target/spark-mla-plugin-*.jar "$examples"/target/spark-mla-examples-*.jar "$examples"/target/bare-host/*.jar \
  "$examples"/target/spark/jars/{jackson-{core,databind,annotations}-2*,slf4j-api-*}.jar "$folder"
