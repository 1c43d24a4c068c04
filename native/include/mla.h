/*
 * Spark MLA: the native contract, for every backend.
 *
 * Plain C. Every call returns a status; mla_last_error() tells what was wrong in words, for the calling thread.
 * Arguments are checked once, in api.cc, for all backends: kernels may rely on what is promised here.
 *
 * Tensors are views. A shape is written [outer, ..., inner]; strides count elements, so a transposed or sliced operand
 * is only another view of the same memory. Unless a declaration says otherwise the innermost dimension is contiguous
 * (stride 1), strides are not negative, data is aligned to its elements, and inputs and outputs do not overlap. Where a
 * dimension is 0 nothing is read or written and data may be NULL.
 *
 * dtypes: "act" is the activation type, F32 or BF16, the same for all act operands of one call; "wide" is that type or
 * F32, for what is summed up or normalised. "weight" is BF16 or F32, and for the weight matrix of a product (w, weights)
 * also what mla_pack made of either. Every reduction is accumulated in float32. The CPU backend takes any of these; the
 * CUDA backend says MLA_UNSUPPORTED for what it has no kernel for.
 *
 * Index values (ids, positions, slots, block tables, lengths, offsets) lie in the context's memory: the CPU backend refuses
 * wild ones with MLA_INVALID_ARGUMENT, the CUDA backend trusts them, but for the ids of mla_embedding: those outside of the
 * table read row 0, so that mla_sample's -1 may be fed back before the host has seen it.
 *
 * CUDA (compute capability 9.0): activations BF16, wide operands F32 (a product's also BF16), logits and router logits F32,
 * weights BF16 (a norm's also F32), latent 512 + rope 64. Expert weights of mla_moe_gemm lie at equal distances from each
 * other (one allocation [E, N, K]).
 *
 * Invariance (CPU always, CUDA after mla_set_deterministic): a row of an output depends on that row's inputs alone, bit
 * for bit, never on how many other rows are in the call. For attention this means: the result of a query depends on
 * the query, its position and the keys up to it, and on the CPU is the same from mla_decode and mla_prefill. On CUDA the
 * two agree to rounding where the deterministic plan splits a sequence; mla_prefill alone is invariant of its chunks.
 *
 * Threads: a context and its buffers belong to one thread at a time. Calls on CUDA are ordered on the context's
 * stream and may return before the work is done; copies to the host and mla_synchronize wait.
 */
#ifndef MLA_H
#define MLA_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define MLA_BLOCK_TOKENS 64 /* tokens in one KV cache block */

typedef enum mla_status {
  MLA_OK = 0,
  MLA_INVALID_ARGUMENT = 1, /* the caller broke the contract: nothing was done */
  MLA_UNSUPPORTED = 2,      /* this backend has no kernel for these operands: nothing was done */
  MLA_OUT_OF_MEMORY = 3,    /* host or device memory; the context stays usable */
  MLA_NO_DEVICE = 4,        /* the backend or its device is not there */
  MLA_IO_ERROR = 5,         /* a file could not be opened, read or mapped */
  MLA_DEVICE_ERROR = 6,     /* a sticky device error: the context, and with it the process, is lost */
  MLA_INTERNAL = 7
} mla_status;

typedef enum mla_dtype {
  MLA_F32 = 0,
  MLA_BF16 = 1,
  MLA_F16 = 2,     /* only as the source of mla_convert */
  MLA_F8_E4M3 = 3, /* only as the source of mla_convert */
  MLA_I32 = 4,
  MLA_I64 = 5,
  MLA_BF16_PANELS = 6, /* BF16 weights as mla_pack has laid them out */
  MLA_F32_PANELS = 7
} mla_dtype;

typedef struct mla_tensor {
  void *data;        /* address in the context's memory (host memory on CPU, device memory on CUDA) */
  int32_t dtype;     /* mla_dtype */
  int32_t rank;      /* 1 to 4 */
  int64_t shape[4];  /* outermost first; entries past rank are ignored */
  int64_t stride[4]; /* in elements */
} mla_tensor;

typedef struct mla_context mla_context; /* a device, its stream, its scratch memory */
typedef struct mla_buffer mla_buffer;   /* owned memory, or a mapped file */
typedef struct mla_event mla_event;     /* a point on the stream */
typedef struct mla_graph mla_graph;     /* captured work, to be run again and again */

/* ---- context, memory ---------------------------------------------------------------------------------------------- */

/* What went wrong in the last call of this thread that did not return MLA_OK; never NULL. Valid until the next call. */
const char *mla_last_error(void);

/*
 * device: "cpu" or "cuda". ordinal: the CUDA device, 0 for cpu. threads: CPU threads of this context, 0 for all that
 * the process may use. library: path of the CUDA backend's shared library, NULL for cpu.
 * A request for cuda never becomes cpu: MLA_NO_DEVICE says why there is none.
 * The CPU backend computes with the best of avx512, avx2 and baseline that the machine has, or with the one that the
 * environment variable MLA_CPU_ISA names: results differ in their last bits between them, so a mixed cluster that wants
 * equal bits names one.
 */
mla_status mla_context_create(const char *device, int32_t ordinal, int32_t threads, const char *library,
                              mla_context **out);
void mla_context_destroy(mla_context *ctx); /* after all of its buffers; NULL is allowed */

/* Free and total bytes of the device (of the host for cpu), and a printable name, at most name_bytes with the NUL. */
mla_status mla_device_info(mla_context *ctx, int64_t *free_bytes, int64_t *total_bytes, char *name,
                           int32_t name_bytes);

/* bytes > 0; 256-byte aligned; contents undefined. */
mla_status mla_buffer_create(mla_context *ctx, int64_t bytes, mla_buffer **out);
/* Read-only map of [offset, offset + bytes) of a file; checked against the file's size. CPU: zero-copy. Any offset. */
mla_status mla_buffer_map(mla_context *ctx, const char *path, int64_t offset, int64_t bytes, mla_buffer **out);
/* Host memory that the device copies from and to directly (page-locked on CUDA, plain on CPU); bytes > 0. */
mla_status mla_host_buffer_create(mla_context *ctx, int64_t bytes, mla_buffer **out);
void *mla_buffer_data(const mla_buffer *buffer);
int64_t mla_buffer_bytes(const mla_buffer *buffer);
void mla_buffer_destroy(mla_buffer *buffer); /* NULL is allowed */

/* dst in the context's memory, src on the host. The source may be reused on return. */
mla_status mla_copy_from_host(mla_context *ctx, void *dst, const void *src, int64_t bytes);
/* dst on the host, src in the context's memory. Waits for the work before it. */
mla_status mla_copy_to_host(mla_context *ctx, void *dst, const void *src, int64_t bytes);
/*
 * As the two copies above, but ordered on the stream and returning at once (on CPU: done on return). The host memory lies
 * in a host buffer and stays as it is until the work is done. May be captured in a graph.
 */
mla_status mla_copy_from_host_async(mla_context *ctx, void *dst, const void *src, int64_t bytes);
mla_status mla_copy_to_host_async(mla_context *ctx, void *dst, const void *src, int64_t bytes);
mla_status mla_synchronize(mla_context *ctx);

/*
 * Whether a row's result must not depend on the other rows of a call, bit for bit. CPU: always so; on is accepted, off
 * ignored. CUDA: off at first; graphs keep what they were captured with.
 */
mla_status mla_set_deterministic(mla_context *ctx, int32_t on);

/* ---- events, graphs ----------------------------------------------------------------------------------------------- */

/*
 * An event marks the end of the work before its record. synchronize waits for that; elapsed gives the time between two
 * recorded events, in milliseconds, after waiting for both.
 */
mla_status mla_event_create(mla_context *ctx, mla_event **out);
void mla_event_destroy(mla_event *event); /* before its context; NULL is allowed */
mla_status mla_event_record(mla_context *ctx, mla_event *event);
mla_status mla_event_synchronize(mla_context *ctx, mla_event *event);
mla_status mla_event_elapsed(mla_context *ctx, mla_event *from, mla_event *to, float *milliseconds);

/*
 * Captures the operations and async copies between begin and end into a graph instead of running them (CUDA; the CPU says
 * MLA_UNSUPPORTED). Addresses, shapes and scalars are frozen, the values in memory are not. A call that fails in between
 * ends the capture, and nothing is left of it; calls that wait or allocate fail. An operation that needs more scratch
 * memory than any call before fails, too: run it once before.
 */
mla_status mla_graph_begin(mla_context *ctx);
mla_status mla_graph_end(mla_context *ctx, mla_graph **out);
mla_status mla_graph_launch(mla_context *ctx, mla_graph *graph);
void mla_graph_destroy(mla_graph *graph); /* before its context, and after its work is done; NULL is allowed */

/* ---- dense operations --------------------------------------------------------------------------------------------- */

/*
 * out[i] = x[i] * scale[row / block][col / block], elementwise over x [N, K] of any float dtype into out [N, K] (F32 or
 * BF16). scale: F32 [ceil(N / block), ceil(K / block)] as in DeepSeek-V3's weight_scale_inv (block 128), or NULL for 1.
 */
mla_status mla_convert(mla_context *ctx, const mla_tensor *x, const mla_tensor *scale, int32_t block, mla_tensor *out);

/*
 * out[i] = std * a standard normal number, from (seed, i) alone, i counting elements in row-major order: dummy weights.
 * out act of any rank, packed. By Box and Muller (1958): elements 2j and 2j + 1 are sqrt(-2 ln(1 - u)) times the cosine
 * and the sine of 2 pi v, u and v the upper and lower 24 bits of the top 48 of SplitMix64 at (seed, j) as in mla_uniform.
 */
mla_status mla_fill_normal(mla_context *ctx, mla_tensor *out, float std, int64_t seed);

/* out[t] = table[ids[t]]. table weight or act [V, H]; ids I32 [T], each in [0, V); out act [T, H]. Also gathers rows. */
mla_status mla_embedding(mla_context *ctx, const mla_tensor *table, const mla_tensor *ids, mla_tensor *out);

/*
 * Root mean square norm (Zhang & Sennrich 2019): out = x / sqrt(mean(x^2) + eps) * weight over rows of x wide [T, H].
 * With residual (wide [T, H], may be NULL): residual += x first, and the norm is of the sum. weight [H]; out act [T, H];
 * out may be x.
 */
mla_status mla_rms_norm(mla_context *ctx, const mla_tensor *x, mla_tensor *residual, const mla_tensor *weight, float eps,
                        mla_tensor *out);

/*
 * Weights laid out once in the order in which this context's products read them, instead of at every call: out has w's
 * shape, packed strides, the panel dtype of w's, and memory of as many bytes as mla_packed_bytes says, which is 0 where
 * nothing is to be gained (CUDA: mla_pack says MLA_UNSUPPORTED). A product's result is the same, bit for bit.
 *   w weight [N, K] or [B, N, K], of which N or K is contiguous
 */
mla_status mla_packed_bytes(mla_context *ctx, const mla_tensor *w, int64_t *bytes);
mla_status mla_pack(mla_context *ctx, const mla_tensor *w, mla_tensor *out);

/* out = x w^T + bias. x act [M, K]; w weight [N, K]; bias weight [N] or NULL; out wide [M, N]. M may be 0. */
mla_status mla_gemm(mla_context *ctx, const mla_tensor *x, const mla_tensor *w, const mla_tensor *bias, mla_tensor *out);

/*
 * out[b] = x[b] w[b]^T for b in B: the absorbed projections. x act [B, M, K]; w weight [B, N, K], of which N or K is
 * contiguous; out act [B, M, N].
 */
mla_status mla_batched_gemm(mla_context *ctx, const mla_tensor *x, const mla_tensor *w, mla_tensor *out);

/* out = silu(gate) * up, silu(v) = v / (1 + exp(-v)). gate_up act [T, 2 I]: gate in the first I columns; out act [T, I]. */
mla_status mla_silu_mul(mla_context *ctx, const mla_tensor *gate_up, mla_tensor *out);

/* ---- attention ---------------------------------------------------------------------------------------------------- */

/*
 * Rotates the rope part of the queries and writes this step's keys into the paged cache.
 *   q_rope      act [T, heads, R]
 *   q_out       act [T, heads, R]    the rotated queries; may be q_rope itself
 *   latent      act [T, L]           normalised latent KV
 *   k_rope      wide [T, R]          not yet rotated
 *   cos_sin     F32 [positions, R]   R/2 cosines, then R/2 sines, a row a position (yarn's factor included)
 *   positions   I32 [T]
 *   slots       I64 [T]              block * 64 + offset in the block
 *   cache       act [blocks, 64, L + R]  latent first, then the rotated key
 * Pair i of a row is (2i, 2i + 1) when interleaved (DeepSeek), (i, i + R/2) when not: (a, b) -> (a cos - b sin, a sin +
 * b cos), each written where it was read.
 */
typedef struct mla_rope_args {
  mla_tensor q_rope, q_out, latent, k_rope, cos_sin, positions, slots, cache;
  int32_t interleaved;
} mla_rope_args;
mla_status mla_rope_and_append_kv(mla_context *ctx, const mla_rope_args *args);

enum { MLA_PLAN_DETERMINISTIC = 1 }; /* the split of a sequence depends on its own length alone; always so on CPU */

/*
 * How a decode call is cut into tiles, as FlashMLA's get_mla_metadata: computed from the lengths on the device, so that
 * lengths may change between replays of a graph. The caller owns all memory. The CPU needs no plan: one part, no workspace.
 *   tiles      I32 [parts, 8]     what each worker does, as the backend has it; read by its mla_decode alone. A backend may ask
 *                                 for more rows than it has workers
 *   splits     I32 [batch + 1]    prefix sum of the splits of the sequences
 *   workspace  partial outputs and log-sum-exps
 */
typedef struct mla_plan_args {
  int32_t batch, s_q, heads;
  int32_t max_len; /* no sequence is longer; sizes the workspace */
  int32_t flags;
} mla_plan_args;
mla_status mla_plan_size(mla_context *ctx, const mla_plan_args *args, int64_t *parts, int64_t *workspace_bytes);
mla_status mla_plan(mla_context *ctx, const mla_plan_args *args, const mla_tensor *seq_lens, mla_tensor *tiles,
                    mla_tensor *splits);

/*
 * MLA attention in absorbed form (DeepSeek-V2, section 2.1.2): every head reads the same keys, of which the first L
 * values are the latent that also serves as the value.
 *   q            act [batch, s_q, heads, D]     D = L + R (512 + 64 on CUDA)
 *   cache        act [blocks, 64, D]
 *   block_table  I32 [batch, max_blocks]        entries past a sequence's last block are never read
 *   seq_lens     I32 [batch]                    tokens in the cache, this step's included; 0 gives out 0, lse +inf
 *   tiles, splits, workspace                    from mla_plan with the same arguments; workspace 1-D F32
 *   out          act [batch, s_q, heads, L]
 *   lse          F32 [batch, heads, s_q]        natural log of the sum of exp(scale * q.k)
 * Query i of s_q sees keys [0, len - s_q + i]: causal. One that sees none gives out 0, lse +inf.
 * The call just before this one may append the s_q newest tokens of a sequence, and no older ones: a device may read those
 * while that call still runs.
 */
typedef struct mla_decode_args {
  mla_tensor q, cache, block_table, seq_lens, tiles, splits, workspace, out, lse;
  mla_plan_args plan;
  float softmax_scale;
} mla_decode_args;
mla_status mla_decode(mla_context *ctx, const mla_decode_args *args);

/*
 * The same over sequences with any number of queries each, for (chunked) prefill with a cached prefix.
 *   q            act [tokens, heads, D]
 *   query_start  I32 [batch + 1]                queries of sequence b: [query_start[b], query_start[b + 1]); from 0 to
 *                                               tokens, never more queries than the sequence is long
 *   out          act [tokens, heads, L]
 * Query i of the n of sequence b sits at position seq_lens[b] - n + i and sees keys up to itself.
 */
typedef struct mla_prefill_args {
  mla_tensor q, query_start, cache, block_table, seq_lens, out;
  float softmax_scale;
} mla_prefill_args;
mla_status mla_prefill(mla_context *ctx, const mla_prefill_args *args);

/* ---- mixture of experts ------------------------------------------------------------------------------------------- */

typedef enum mla_scoring { MLA_SOFTMAX = 0, MLA_SIGMOID = 1 } mla_scoring;
typedef enum mla_group_score { MLA_GROUP_MAX = 0, MLA_GROUP_TOP2_SUM = 1 } mla_group_score;

/*
 * The router of DeepSeek-V2 and V3, in float32, as in Hugging Face transformers. scores = scoring(logits). With groups > 1
 * only the top_groups best of the equal groups take part, ranked by group_score over scores + bias; experts of the other
 * groups count as -inf and are never chosen (V3 does the same; V2 sets them to 0, the least a softmax gives, so that one
 * could only be chosen with weight 0, beside experts that underflowed). The top_k experts by scores + bias are chosen;
 * their weights are the scores without bias, divided by (their sum + 1e-20) when normalize, times scale. Ties: the
 * lower index. Without groups: groups = top_groups = 1. V2 never normalizes, whatever norm_topk_prob says.
 *   logits F32 [T, E]; bias F32 [E] or NULL; weights F32 [T, top_k]; experts I32 [T, top_k], best first
 */
typedef struct mla_route_args {
  mla_tensor logits, weights, experts;
  const mla_tensor *bias;
  int32_t scoring, groups, top_groups, group_score, normalize;
  float scale;
} mla_route_args;
mla_status mla_moe_route(mla_context *ctx, const mla_route_args *args);

/*
 * Orders the T * top_k (token, choice) pairs by expert, stably.
 *   experts   I32 [T, top_k]
 *   rows      I32 [T * top_k]   rows[i] = token of the i-th pair in expert order
 *   places    I32 [T, top_k]    where the pair went: rows[places[t, j]] = t
 *   offsets   I32 [E + 1]       pairs of expert e: [offsets[e], offsets[e + 1])
 */
mla_status mla_moe_sort(mla_context *ctx, const mla_tensor *experts, mla_tensor *rows, mla_tensor *places,
                        mla_tensor *offsets);

typedef enum mla_activation { MLA_IDENTITY = 0, MLA_SILU_MUL = 1 } mla_activation;

/*
 * Grouped GEMM: out[i] = f(x[rows ? rows[i] : i] w[e]^T) for i in [offsets[e], offsets[e + 1]).
 *   x act [T, K] with rows, [P, K] without; weights: an array of num_experts tensors, weight [N, K]; out act [P, N]
 * With MLA_SILU_MUL out is [P, N / 2], N even: what mla_silu_mul makes of the products, bit for bit.
 */
mla_status mla_moe_gemm(mla_context *ctx, const mla_tensor *x, const mla_tensor *rows, const mla_tensor *offsets,
                        const mla_tensor *weights, int32_t num_experts, mla_activation activation, mla_tensor *out);

/*
 * out[t] = base[t] + sum over j, ascending, of weights[t, j] * y[places[t, j]].
 * y act [P, H]; weights F32, places I32 [T, top_k]; base, of out's type [T, H], may be out itself (the shared experts'
 * output), or NULL for 0; out wide [T, H]
 */
mla_status mla_moe_combine(mla_context *ctx, const mla_tensor *y, const mla_tensor *places, const mla_tensor *weights,
                           const mla_tensor *base, mla_tensor *out);

/* ---- from logits to tokens ---------------------------------------------------------------------------------------- */

/*
 * One token a row. temperature 0: the first largest logit. Otherwise, as Hugging Face's warpers in this order: logits /
 * temperature; keep the top_k largest (0: all; ties with the k-th are kept); softmax; keep the smallest set of most
 * likely tokens whose probability reaches top_p (1: all; at least one; of equals the lower ids); draw from what is kept:
 * the first id at which the sum of probabilities, in id order, exceeds u times the sum of all kept, with
 * u = mla_uniform(seed, position), so that a draw depends on nothing else.
 * A row that holds a NaN or +inf, or nothing above -inf, has no token: ids -1.
 *   logits F32 [B, V]; temperature F32 [B]; top_k I32 [B]; top_p F32 [B]; seed I64 [B]; positions I32 [B]; ids I32 [B]
 */
typedef struct mla_sample_args {
  mla_tensor logits, temperature, top_k, top_p, seed, positions, ids;
} mla_sample_args;
mla_status mla_sample(mla_context *ctx, const mla_sample_args *args);

/*
 * The uniform number in [0, 1) of a draw: the top 24 bits of the SplitMix64 generator (Steele et al. 2014) that starts at
 * seed, after position + 1 steps.
 */
float mla_uniform(int64_t seed, int32_t position);

/*
 * Log-probabilities of the raw logits (log_softmax, float32).
 *   logits F32 [B, V]; ids I32 [B]; chosen F32 [B] = log p(ids[b]), NaN for id -1; top_ids I32 [B, n], top F32 [B, n]:
 *   the n largest, descending, ties to the lower id. n may be 0: pass NULL for both.
 */
mla_status mla_log_softmax_top_k(mla_context *ctx, const mla_tensor *logits, const mla_tensor *ids, mla_tensor *chosen,
                                 mla_tensor *top_ids, mla_tensor *top);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif /* MLA_H */
