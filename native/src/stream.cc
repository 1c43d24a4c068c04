// Events and graphs: mla.h's second part.
#include "context.h"

namespace mla {
namespace {

void expect_event(const char *name, const mla_event *event) {
  if (event == nullptr) {
    fail(MLA_INVALID_ARGUMENT, "%s is NULL", name);
  }
}

void expect_recorded(const char *name, const mla_event *event) {
  expect_event(name, event);
  if (!event->recorded) {
    fail(MLA_INVALID_ARGUMENT, "%s was never recorded", name);
  }
}

}  // namespace
}  // namespace mla

using namespace mla;

mla_status mla_set_deterministic(mla_context *ctx, int32_t on) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    require_ok(backend, backend.set_deterministic(on != 0));
  });
}

mla_status mla_event_create(mla_context *ctx, mla_event **out) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect_out(out);
    auto event = std::make_unique<mla_event>(mla_event{&backend, nullptr, false});
    require_ok(backend, backend.create_event(&event->handle));
    *out = event.release();
  });
}

void mla_event_destroy(mla_event *event) {
  if (event != nullptr) {
    event->backend->destroy_event(event->handle);
    delete event;
  }
}

mla_status mla_event_record(mla_context *ctx, mla_event *event) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect_event("event", event);
    require_ok(backend, backend.record_event(event->handle));
    event->recorded = true;
  });
}

mla_status mla_event_synchronize(mla_context *ctx, mla_event *event) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect_recorded("event", event);
    require_ok(backend, backend.synchronize_event(event->handle));
  });
}

mla_status mla_event_elapsed(mla_context *ctx, mla_event *from, mla_event *to, float *milliseconds) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect_recorded("from", from);
    expect_recorded("to", to);
    expect_out(milliseconds);
    require_ok(backend, backend.synchronize_event(from->handle));
    require_ok(backend, backend.synchronize_event(to->handle));
    require_ok(backend, backend.elapsed(from->handle, to->handle, milliseconds));
  });
}

mla_status mla_graph_begin(mla_context *ctx) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    require_ok(backend, backend.begin_capture());
  });
}

mla_status mla_graph_end(mla_context *ctx, mla_graph **out) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect_out(out);
    auto graph = std::make_unique<mla_graph>(mla_graph{&backend, nullptr});
    require_ok(backend, backend.end_capture(&graph->handle));
    *out = graph.release();
  });
}

mla_status mla_graph_launch(mla_context *ctx, mla_graph *graph) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    if (graph == nullptr) {
      fail(MLA_INVALID_ARGUMENT, "graph is NULL");
    }
    require_ok(backend, backend.launch_graph(graph->handle));
  });
}

void mla_graph_destroy(mla_graph *graph) {
  if (graph != nullptr) {
    graph->backend->destroy_graph(graph->handle);
    delete graph;
  }
}
