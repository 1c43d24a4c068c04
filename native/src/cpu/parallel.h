// The threads of one context.
#ifndef MLA_CPU_PARALLEL_H
#define MLA_CPU_PARALLEL_H

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace mla::cpu {

/*
 * Runs tasks 0 .. count - 1 on a fixed set of threads, the caller among them. Which thread runs a task is left open, so
 * tasks must not care. A worker that sleeps or was descheduled holds nobody up: the caller takes its tasks.
 *
 * A pool of our own instead of OpenMP's: a fresh machine has no libgomp, and the threads end with the context.
 */
class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // 0: as many as the process may use
  ~ThreadPool();
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // body(task, thread) with thread in [0, threads()). It must not throw.
  template <class Body>
  void run(int64_t count, const Body &body) {
    if (count <= 1 || workers_.empty()) {
      for (int64_t task = 0; task < count; task++) {
        body(task, 0);
      }
      return;
    }
    run_shared(count, [](const void *b, int64_t task, int thread) { (*static_cast<const Body *>(b))(task, thread); },
               &body);
  }

 private:
  using Call = void (*)(const void *body, int64_t task, int thread);

  void run_shared(int64_t count, Call call, const void *body);
  void work(int thread);
  void stop();
  bool run_one(uint32_t job, int thread);

  std::vector<std::thread> workers_;
  // The current job and how many of its tasks nobody has taken: job << 32 | left. One word, so that a late worker can
  // never take a task of a job that is not the one it saw.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int64_t> unfinished_{0};
  alignas(64) std::atomic<uint32_t> job_{0};  // what sleeping workers wait on
  std::atomic<bool> stopping_{false};
  // Of the current job; written while no task can be taken.
  int64_t count_ = 0;
  Call call_ = nullptr;
  const void *body_ = nullptr;
};

}  // namespace mla::cpu

#endif
