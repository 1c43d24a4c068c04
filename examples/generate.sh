#!/usr/bin/env bash
# Generates text for prompts in files. "generate.sh --help" lists the options; --master and --conf go to Spark.
# Runs on the Spark of SPARK_HOME, else on one that Maven fetches. Builds the plugin first if sources are newer.
set -euo pipefail
examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$examples")

plugin_jar() {
  find "$root/plugin/target" -maxdepth 1 -name 'spark-mla-plugin-*.jar' ! -name '*-tests.jar' 2>/dev/null | head -n 1
}

is_built() {
  local jar
  jar=$(plugin_jar)
  [ -n "$jar" ] && [ -d "$examples/target/spark/jars" ] && [ -z "$(find "$root" -name target -prune -o -type f \
    \( -path "$root/native/*" -o -path "$root/plugin/src/main/*" -o -name pom.xml \) -newer "$jar" -print -quit)" ]
}

if ! is_built; then
  echo "Building Spark MLA ..." >&2
  (cd "$root" && mvn -q -B -DskipTests package) >&2
fi

spark_args=()
job_args=()
while [ $# -gt 0 ]; do
  case $1 in
    --master | --conf)
      spark_args+=("$1" "${2?$1 needs a value}")
      shift 2
      ;;
    *)
      job_args+=("$1")
      shift
      ;;
  esac
done
case " ${spark_args[*]-} " in
  *" --master "*) ;;
  *)
    spark_args+=(--master 'local[*]')
    export SPARK_LOCAL_IP=${SPARK_LOCAL_IP:-127.0.0.1}
    ;;
esac

submit=(
  --properties-file "$root/conf/spark-defaults-cpu.conf"
  --conf "spark.driver.defaultJavaOptions=-Dlog4j2.configurationFile=file:$root/conf/log4j2.properties"
  "${spark_args[@]}"
  --class io.github.sparkmla.spark.GenerateJob
  "$(plugin_jar)"
  "${job_args[@]}"
)

if [ -n "${SPARK_HOME:-}" ]; then
  exec "$SPARK_HOME/bin/spark-submit" "${submit[@]}"
fi

# What bin/spark-submit does: the launcher prints the command, its parts ended by NUL, after an empty one.
export SPARK_HOME=$examples/target/spark SPARK_SCALA_VERSION=2.13
mapfile -d '' -t command < <(java -cp "$SPARK_HOME/jars/*" org.apache.spark.launcher.Main \
  org.apache.spark.deploy.SparkSubmit "${submit[@]}")
exec "${command[1]#$'\n'}" "${command[@]:2}"
