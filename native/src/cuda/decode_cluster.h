// mla_decode for few and short sequences: a cluster of thread blocks each, no plan and no combine kernel.
#pragma once

#include "decode.h"

namespace mla::cuda {

// How a call is laid out for decode_cluster_kernel.cuh; `clusters` 0: that is not the kernel for it.
struct ClusterShape {
  int rows;        // query rows of a cluster
  int ring;        // 64-key cache blocks that a thread block holds at a time
  int blocks;      // thread blocks of a cluster
  int most_alone;  // cache blocks that a thread block takes rather than that a sequence gets a second cluster
  int tiles;       // of `rows` query rows, of a sequence
  int clusters;    // for each tile, shared out among the sequences by their lengths
};
ClusterShape cluster_shape(const mla_plan_args &args);

// Instead of the plan.
cudaError_t clear_plan(const mla_tensor &tiles, const mla_tensor &splits, cudaStream_t stream);

// The arguments are known to be supported. As `decode` of decode.h.
mla_status decode_by_clusters(const mla_decode_args &args, const ClusterShape &cluster, const DecodeShape &shape,
                              cudaStream_t stream, std::string &error);

}  // namespace mla::cuda
