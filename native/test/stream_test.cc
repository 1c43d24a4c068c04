// Host buffers, copies on the stream, events, graphs.
#include "harness.h"

namespace mla::test {
namespace {

using Values = std::vector<double>;

void require_status(mla_status status, mla_status want) {
  if (status != want) {
    fail("status %d (%s) instead of %d", status, mla_last_error(), want);
  }
}

void async_copies(Lab &lab, Random &random) {
  constexpr int64_t kBytes = 100003;
  mla_buffer *there = nullptr;
  mla_buffer *device = nullptr;
  mla_buffer *back = nullptr;
  require_refused(mla_host_buffer_create(lab.context, 0, &there), "bytes is 0");
  require_refused(mla_host_buffer_create(lab.context, 5, nullptr), "NULL");
  require_ok(mla_host_buffer_create(lab.context, kBytes, &there));
  require_ok(mla_host_buffer_create(lab.context, kBytes, &back));
  require_ok(mla_buffer_create(lab.context, kBytes, &device));
  auto *from = static_cast<uint8_t *>(mla_buffer_data(there));
  auto *to = static_cast<uint8_t *>(mla_buffer_data(back));
  for (int64_t i = 0; i < kBytes; i++) {
    from[i] = static_cast<uint8_t>(random.bits());
    to[i] = 0;
  }
  require_ok(mla_copy_from_host_async(lab.context, mla_buffer_data(device), from, kBytes));
  require_ok(mla_copy_to_host_async(lab.context, to, mla_buffer_data(device), kBytes));
  require_ok(mla_synchronize(lab.context));
  for (int64_t i = 0; i < kBytes; i++) {
    if (from[i] != to[i]) {
      fail("byte %ld came back different", i);
    }
  }
  require_refused(mla_copy_from_host_async(lab.context, mla_buffer_data(device), nullptr, 1), "NULL");
  require_refused(mla_copy_to_host_async(lab.context, to, mla_buffer_data(device), -1), "bytes is -1");
  mla_buffer_destroy(there);
  mla_buffer_destroy(device);
  mla_buffer_destroy(back);
}

void events(Lab &lab, Random &random) {
  mla_event *from = nullptr;
  mla_event *to = nullptr;
  float milliseconds = -1;
  require_refused(mla_event_create(lab.context, nullptr), "NULL");
  require_ok(mla_event_create(lab.context, &from));
  require_ok(mla_event_create(lab.context, &to));
  require_refused(mla_event_synchronize(lab.context, from), "event was never recorded");
  require_ok(mla_event_record(lab.context, from));
  require_refused(mla_event_elapsed(lab.context, from, to, &milliseconds), "to was never recorded");
  Operand out(lab, MLA_BF16, {1 << 20});
  require_ok(mla_fill_normal(lab.context, &out.tensor, 1, static_cast<int64_t>(random.bits())));
  require_ok(mla_event_record(lab.context, to));
  require_ok(mla_event_synchronize(lab.context, to));
  require_ok(mla_event_elapsed(lab.context, from, to, &milliseconds));
  if (!(milliseconds > 0 && milliseconds < 10000)) {
    fail("filling a million elements took %g ms", static_cast<double>(milliseconds));
  }
  require_refused(mla_event_record(lab.context, nullptr), "event is NULL");
  mla_event_destroy(from);
  mla_event_destroy(to);
  mla_event_destroy(nullptr);
}

// out = silu_mul(x) in a graph: replays see what lies in x then.
void replays(Lab &lab, Random &random) {
  Operand x(lab, MLA_BF16, {3, 128});
  Operand out(lab, MLA_BF16, {3, 64});
  Operand want(lab, MLA_BF16, {3, 64});
  mla_graph *graph = nullptr;
  require_ok(mla_graph_begin(lab.context));
  require_ok(mla_silu_mul(lab.context, &x.tensor, &out.tensor));
  require_ok(mla_graph_end(lab.context, &graph));
  for (int round = 0; round < 3; round++) {
    x.set(random.uniforms(x.count(), -2, 2));
    require_ok(mla_graph_launch(lab.context, graph));
    require_ok(mla_silu_mul(lab.context, &x.tensor, &want.tensor));
    compare_bits("replay", out, want);
  }
  mla_graph_destroy(graph);
}

// Whatever fails between begin and end ends the capture; the context works on.
void failed_captures(Lab &lab, Random &random) {
  Operand x(lab, MLA_BF16, {3, 128});
  Operand out(lab, MLA_BF16, {3, 64});
  x.set(random.uniforms(x.count(), -2, 2));
  mla_graph *graph = nullptr;
  mla_buffer *buffer = nullptr;
  require_refused(mla_graph_end(lab.context, &graph), "begin");
  require_ok(mla_graph_begin(lab.context));
  require_refused(mla_graph_begin(lab.context), "begun");
  const std::vector<std::function<mla_status()>> failing = {
      [&] { return mla_silu_mul(lab.context, &x.tensor, &x.tensor); },
      [&] { return mla_buffer_create(lab.context, 64, &buffer); },
      [&] { return mla_synchronize(lab.context); },
      [&] { return mla_copy_to_host(lab.context, &graph, out.tensor.data, 8); },
  };
  for (const auto &call : failing) {
    require_ok(mla_graph_begin(lab.context));
    require_status(call(), MLA_INVALID_ARGUMENT);
    require_refused(mla_graph_end(lab.context, &graph), "begin");
    if (graph != nullptr) {
      fail("a graph that could not be captured is not NULL");
    }
    require_ok(mla_silu_mul(lab.context, &x.tensor, &out.tensor));
    require_ok(mla_synchronize(lab.context));
  }
}

void graphs(Lab &lab, Random &random) {
  mla_graph *graph = nullptr;
  require_refused(mla_graph_launch(lab.context, nullptr), "graph is NULL");
  mla_graph_destroy(nullptr);
  if (lab.cuda) {
    replays(lab, random);
    failed_captures(lab, random);
  } else {
    require_status(mla_graph_begin(lab.context), MLA_UNSUPPORTED);
    require_status(mla_graph_end(lab.context, &graph), MLA_UNSUPPORTED);
  }
}

void deterministic(Lab &lab, Random &) {
  require_ok(mla_set_deterministic(lab.context, 1));
  require_ok(mla_set_deterministic(lab.context, 0));
  require_refused(mla_set_deterministic(nullptr, 1), "context is NULL");
}

}  // namespace

std::vector<Case> stream_cases() {
  return {check_case("async copies", async_copies), check_case("events", events), check_case("graphs", graphs),
          check_case("deterministic", deterministic)};
}

}  // namespace mla::test
