// Decode of few sequences under the deterministic plan: a cluster of thread blocks, a team, has a part of the plan together.
#pragma once

#include <cuda.h>

#include "decode_common.cuh"
#include "decode.h"

namespace mla::cuda {

// Of the queries, in boxes of 16 rows; of the cache, in steps of whole rows, and in cache blocks of a block's share of the columns.
struct TeamMaps {
  CUtensorMap queries, cache, values;
};

// For the calls of a plan: the thread blocks of a team, the query rows that it has, and how many teams run at once; none where they
// do not pay or the device cannot run them.
struct TeamShape {
  int blocks, rows, teams;
};
TeamShape team_shape(const DecodeShape &shape, int multiprocessors);

// The decode kernel; what is cut is still to be combined.
mla_status decode_by_teams(const mla_decode_args &args, const DecodeShape &shape, const DecodeParams &params,
                           cudaStream_t stream, std::string &error);

}  // namespace mla::cuda
