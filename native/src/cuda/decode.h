// mla_plan and mla_decode on Hopper: the entry points behind mla.h's. Arguments have been checked by api.cc; what is
// checked here is what only this backend cannot do.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "decode_plan.cuh"
#include "mla.h"

namespace mla::cuda {

constexpr int kMostOrdered = 512;  // sequences that the plan by load puts in order: a thread each
constexpr int kMaxPlanBatch = 32 * 1024;  // sequences of one plan: four bytes each in shared memory

// How a call is laid out on the device.
struct DecodeShape {
  int batch, s_q, heads;
  int rows;               // query rows of a sequence: s_q * heads, query-major
  int tiles;              // 64-row tiles of them, a thread block or a team each
  int cluster;            // thread blocks that share what they read from the cache: 1 or 2
  int team;               // thread blocks that share a tile of a part, by the deterministic plan (decode_team.h): 1, 4 or 8
  int team_rows;          // query rows of a tile, then
  int parts;              // workers; the grid is team x tiles x parts
  int sequence_overhead;  // cost of the queries of a sequence, in steps of 32 keys
  int split_overhead;     // and of the outputs of a split of it
  int least_steps;        // no part is cut smaller: a partial result costs, too
  int least_piece;        // of a sequence, in steps: a cut closer to its begin or end moves there
  SplitRule rule;         // of the deterministic plan, or where that is faster anyway; else all zero
  int most_splits;        // of a sequence, by the rule
  int64_t slots;          // of partial results in the workspace
  bool joins;             // the decode kernel itself joins the splits of a sequence, else a kernel after it
  bool ordered;           // by load: the sequences are put in an order in which few are cut
  // Of what lies in `tiles`. Splits of full size of a sequence make a run, and one more where a part ends; each other split is one.
  int runs() const { return batch * (1 + rule.short_splits) + parts; }
  int jobs() const { return rule.fixed() ? batch : parts; }
  int flags() const { return parts * tiles; }
  int plan_rows() const {  // of 32 bytes
    return parts + (rule.fixed() ? (2 * runs() + jobs() + 3) / 4 : (2 * (batch + jobs()) + flags() + 7) / 8);
  }
  PlanTables tables(void *memory) const {
    PlanTables t = {};
    t.parts = static_cast<PlanPart *>(memory);
    t.sequences = reinterpret_cast<PlanSequence *>(t.parts + parts);
    t.runs = reinterpret_cast<PlanRun *>(t.parts + parts);
    t.jobs = rule.fixed() ? reinterpret_cast<PlanJob *>(t.runs + runs()) : reinterpret_cast<PlanJob *>(t.sequences + batch);
    t.flags = reinterpret_cast<uint32_t *>(t.jobs + jobs());
    return t;
  }
};
DecodeShape decode_shape(const mla_plan_args &args, int multiprocessors);
int64_t workspace_floats(const DecodeShape &shape);

// By load, and by the split rule; and the order of the sequences by load.
cudaError_t launch_plan(const DecodeShape &shape, const int32_t *seq_lens, int32_t *tiles, int32_t *splits,
                        cudaStream_t stream);
cudaError_t launch_rule_plan(const DecodeShape &shape, const int32_t *seq_lens, int32_t *tiles, int32_t *splits,
                             cudaStream_t stream);
cudaError_t launch_order(const DecodeShape &shape, const int32_t *seq_lens, PlanSequence *sequences, cudaStream_t stream);

// Both return MLA_OK, MLA_UNSUPPORTED (nothing was done) or MLA_DEVICE_ERROR, with the reason in `error`.
mla_status plan(const mla_plan_args &args, const mla_tensor &seq_lens, mla_tensor &tiles, mla_tensor &splits,
                int multiprocessors, cudaStream_t stream, std::string &error);
mla_status decode(const mla_decode_args &args, int multiprocessors, cudaStream_t stream, std::string &error);

}  // namespace mla::cuda
