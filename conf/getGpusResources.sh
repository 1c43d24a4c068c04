#!/usr/bin/env bash
# Spark's GPU discovery script: the Hopper GPUs of this machine (compute capability 9.0), and no others. Use with
# spark.worker.resource.gpu.discoveryScript (standalone) or spark.executor.resource.gpu.discoveryScript.
#
# The addresses are the numbers that nvidia-smi gives, in the order of the bus. CUDA counts the fastest first unless
# CUDA_DEVICE_ORDER=PCI_BUS_ID, which the defaults beside this file set: on a machine with different cards it matters.
set -euo pipefail

nvidia-smi --query-gpu=index,compute_cap --format=csv,noheader | awk -F', *' '
  $2 == "9.0" { addresses = addresses (addresses == "" ? "" : ",") "\"" $1 "\"" }
  END { printf "{\"name\": \"gpu\", \"addresses\": [%s]}\n", addresses }'
