// The opaque types of mla.h, and the way from an exception to a status code.
#ifndef MLA_CONTEXT_H
#define MLA_CONTEXT_H

#include "backend.h"
#include "error.h"

#include <memory>
#include <new>

struct mla_context {
  std::unique_ptr<mla::Backend> backend;
};

struct mla_buffer {
  mla::Backend *backend;
  void *data;
  int64_t bytes;
  void *mapping;         // of a mapped file on the host: what munmap wants, else nullptr
  int64_t mapping_bytes;
  bool on_host;          // of mla_host_buffer_create
};

struct mla_event {
  mla::Backend *backend;
  void *handle;
  bool recorded;
};

struct mla_graph {
  mla::Backend *backend;
  void *handle;
};

namespace mla {

void set_last_error(const char *where, const char *words);

template <class Body>
mla_status status_of(const char *where, Body body) {
  try {
    body();
    return MLA_OK;
  } catch (const Error &error) {
    set_last_error(where, error.words.c_str());
    return error.status;
  } catch (const std::bad_alloc &) {
    set_last_error(where, "out of host memory");
    return MLA_OUT_OF_MEMORY;
  } catch (const std::exception &error) {
    set_last_error(where, error.what());
    return MLA_INTERNAL;
  }
}

// Runs a call's body. Whatever it throws becomes a status, with words that begin with the function's name, and ends a
// capture. ctx may be nullptr.
template <class Body>
mla_status guarded(const char *where, mla_context *ctx, Body body) {
  const mla_status status = status_of(where, body);
  if (status != MLA_OK && ctx != nullptr) {
    ctx->backend->abandon_capture();
  }
  return status;
}

// A backend's status as an exception.
inline void require_ok(const Backend &backend, mla_status status) {
  if (status != MLA_OK) {
    throw Error{status, backend.last_error()};
  }
}

inline Backend &backend_of(mla_context *ctx) {
  if (ctx == nullptr) {
    fail(MLA_INVALID_ARGUMENT, "the context is NULL");
  }
  return *ctx->backend;
}

// Where a result goes; a handle is nullptr until it is there.
template <class T>
void expect_out(T *out) {
  if (out == nullptr) {
    fail(MLA_INVALID_ARGUMENT, "the place for the result is NULL");
  }
  *out = T{};
}

}  // namespace mla

#endif
