#include "parallel.h"

#include <algorithm>
#include <immintrin.h>
#include <sched.h>

namespace mla::cpu {
namespace {

// How long a thread looks for work before it sleeps: some hundred microseconds, so that it is awake for every operation
// of a step and for the next step. Waking takes longer than many operations do.
constexpr int kSpins = 10000;

int allowed_threads() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                     : std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  const int wanted = threads > 0 ? threads : allowed_threads();
  try {
    for (int thread = 1; thread < wanted; thread++) {
      workers_.emplace_back([this, thread] { work(thread); });
    }
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  stopping_ = true;
  job_.fetch_add(1);
  job_.notify_all();
  for (std::thread &worker : workers_) {
    worker.join();
  }
}

void ThreadPool::run_shared(int64_t count, Call call, const void *body) {
  constexpr int64_t kMost = UINT32_MAX;
  for (int64_t done = 0; done < count;) {
    const int64_t now = std::min(count - done, kMost);
    // No task of the last job is left, so nobody reads these.
    count_ = done + now;
    call_ = call;
    body_ = body;
    unfinished_.store(now, std::memory_order_relaxed);
    const uint32_t job = job_.load(std::memory_order_relaxed) + 1;
    ticket_.store(static_cast<uint64_t>(job) << 32 | static_cast<uint64_t>(now), std::memory_order_release);
    job_.store(job, std::memory_order_release);
    job_.notify_all();
    while (run_one(job, 0)) {
    }
    for (int spin = 0; unfinished_.load(std::memory_order_acquire) != 0; spin++) {
      if (spin < kSpins) {
        _mm_pause();
      } else {
        sched_yield();
      }
    }
    done += now;
  }
}

bool ThreadPool::run_one(uint32_t job, int thread) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  do {
    if (ticket >> 32 != job || (ticket & UINT32_MAX) == 0) {
      return false;
    }
  } while (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acquire));
  call_(body_, count_ - static_cast<int64_t>(ticket & UINT32_MAX), thread);
  unfinished_.fetch_sub(1, std::memory_order_release);
  return true;
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  while (true) {
    for (int spin = 0; spin < kSpins && job_.load(std::memory_order_acquire) == seen; spin++) {
      _mm_pause();
    }
    job_.wait(seen, std::memory_order_acquire);
    seen = job_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) {
      return;
    }
    while (run_one(seen, thread)) {
    }
  }
}

}  // namespace mla::cpu
