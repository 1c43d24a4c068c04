// Runs the table of cases: mla_test [--bench] [--device cpu|cuda] [--library PATH] [--threads N] [--only WORD] [--list]
// On the CPU every case runs once for each instruction set that this machine has; those with a model's shapes only once.
#include "harness.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

using namespace mla::test;

namespace {

struct Options {
  bool bench = false;
  bool list = false;
  std::string device = "cpu";
  std::string library;
  std::string only;
  int threads = 2;
};

Options parse(int argc, char **argv) {
  Options options;
  for (int i = 1; i < argc; i++) {
    const std::string flag = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 == argc) {
        fprintf(stderr, "%s wants a value\n", flag.c_str());
        exit(2);
      }
      return argv[++i];
    };
    if (flag == "--bench") {
      options.bench = true;
    } else if (flag == "--list") {
      options.list = true;
    } else if (flag == "--device") {
      options.device = value();
    } else if (flag == "--library") {
      options.library = value();
    } else if (flag == "--only") {
      options.only = value();
    } else if (flag == "--threads") {
      options.threads = atoi(value().c_str());
    } else {
      fprintf(stderr, "unknown option %s\n", flag.c_str());
      exit(2);
    }
  }
  return options;
}

std::vector<Case> all_cases(const Options &options) {
  std::vector<Case> cases;
  for (auto part : {dense_cases, attention_cases, moe_cases, token_cases, invariance_cases, argument_cases,
                    memory_cases, stream_cases, pack_cases, model_cases, cuda_benchmarks}) {
    if (part == cuda_benchmarks && !(options.bench && options.device == "cuda")) {
      continue;
    }
    for (Case &one : part()) {
      const bool wanted = options.only.empty() || one.name.find(options.only) != std::string::npos;
      if (wanted && (!options.bench || one.timed)) {
        cases.push_back(std::move(one));
      }
    }
  }
  return cases;
}

struct Score {
  int passed = 0;
  int failed = 0;
  struct Reason {
    int cases = 0;
    std::string example;
  };
  std::map<std::string, Reason> unsupported;  // by operation

  void skip(const Lab &lab, const Case &one, const std::string &words) {
    if (lab.cuda && !one.model) {
      Reason &reason = unsupported[words.substr(0, words.find(':'))];
      reason.cases++;
      reason.example = words;
    } else {
      failed++;
      printf("FAILED %s (%s): not supported: %s\n", one.name.c_str(), lab.name.c_str(), words.c_str());
    }
  }
};

// models: also the cases with a model's shapes, which take longer.
void test(Lab &lab, const std::vector<Case> &cases, bool models, Score &score) {
  for (const Case &one : cases) {
    if (one.model && !models) {
      continue;
    }
    try {
      Random random(one.name);
      const Problem problem = one.prepare(lab, random);
      require_ok(problem.call());
      problem.check();
      score.passed++;
    } catch (const Unsupported &unsupported) {
      score.skip(lab, one, unsupported.words);
    } catch (const Failure &failure) {
      score.failed++;
      printf("FAILED %s (%s): %s\n", one.name.c_str(), lab.name.c_str(), failure.words.c_str());
      if (mla_synchronize(lab.context) == MLA_DEVICE_ERROR) {
        printf("the device is lost: %s\n", mla_last_error());
        return;
      }
    }
  }
}

struct Timing {
  double best, median;  // seconds
};

// Of enough calls to fill a fifth of a second. On a busy machine the best tells more than the median.
Timing time_of_calls(Lab &lab, const Problem &problem) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> seconds;
  double total = 0;
  for (int call = 0; total < 0.2 || seconds.size() < 5; call++) {
    const auto start = Clock::now();
    require_ok(problem.call());
    require_ok(mla_synchronize(lab.context));
    const double taken = std::chrono::duration<double>(Clock::now() - start).count();
    if (call > 0) {  // the first warms up
      seconds.push_back(taken);
      total += taken;
    }
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds[0], seconds[seconds.size() / 2]};
}

// Of a call among ten in a graph, by the device's clock: launches from the host do not count.
Timing time_in_graph(Lab &lab, const Problem &problem) {
  constexpr int kCalls = 10;
  constexpr int kReplays = 15;
  mla_graph *graph = nullptr;
  mla_event *events[2] = {};
  require_ok(problem.call());  // what it allocates at first
  require_ok(mla_graph_begin(lab.context));
  for (int i = 0; i < kCalls; i++) {
    require_ok(problem.call());
  }
  require_ok(mla_graph_end(lab.context, &graph));
  for (mla_event *&event : events) {
    require_ok(mla_event_create(lab.context, &event));
  }
  std::vector<double> seconds;
  for (int i = 0; i < kReplays + 2; i++) {
    float milliseconds = 0;
    require_ok(mla_event_record(lab.context, events[0]));
    require_ok(mla_graph_launch(lab.context, graph));
    require_ok(mla_event_record(lab.context, events[1]));
    require_ok(mla_event_elapsed(lab.context, events[0], events[1], &milliseconds));
    if (i >= 2) {
      seconds.push_back(milliseconds * 1e-3 / kCalls);
    }
  }
  mla_event_destroy(events[0]);
  mla_event_destroy(events[1]);
  mla_graph_destroy(graph);
  std::sort(seconds.begin(), seconds.end());
  return {seconds[0], seconds[seconds.size() / 2]};
}

void bench(Lab &lab, const std::vector<Case> &cases, Score &score) {
  printf("%s\n%-56s %10s %10s %9s %8s\n", lab.name.c_str(), "case", "best us", "median us", "GFLOP/s", "GB/s");
  for (const Case &one : cases) {
    try {
      Random random(one.name);
      const Problem problem = one.prepare(lab, random);
      const Timing time = lab.cuda && !problem.by_wall_clock ? time_in_graph(lab, problem) : time_of_calls(lab, problem);
      printf("%-56s %10.2f %10.2f %9.1f %8.1f\n", one.name.c_str(), time.best * 1e6, time.median * 1e6,
             problem.flops / time.best * 1e-9, problem.bytes / time.best * 1e-9);
      fflush(stdout);
      score.passed++;
    } catch (const Unsupported &unsupported) {
      score.skip(lab, one, unsupported.words);
    } catch (const Failure &failure) {
      score.failed++;
      printf("FAILED %s: %s\n", one.name.c_str(), failure.words.c_str());
    }
  }
}

// The instruction sets to test, the best one last; one empty name where there is no choice.
std::vector<std::string> instruction_sets(const Options &options) {
  if (options.device != "cpu" || options.bench || getenv("MLA_CPU_ISA") != nullptr) {
    return {""};
  }
  std::vector<std::string> sets = {"baseline"};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    sets.push_back("avx2");
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    sets.push_back("avx512");
  }
  return sets;
}

}  // namespace

int main(int argc, char **argv) {
  const Options options = parse(argc, argv);
  const std::vector<Case> cases = all_cases(options);
  if (options.list) {
    for (const Case &one : cases) {
      printf("%s\n", one.name.c_str());
    }
    return 0;
  }
  Score score;
  const std::vector<std::string> sets = instruction_sets(options);
  for (const std::string &set : sets) {
    if (!set.empty()) {
      setenv("MLA_CPU_ISA", set.c_str(), 1);
    }
    try {
      Lab lab(options.device, options.library, options.threads);
      if (options.bench) {
        bench(lab, cases, score);
      } else {
        test(lab, cases, set == sets.back(), score);
      }
    } catch (const Failure &failure) {
      score.failed++;
      printf("FAILED to open %s: %s\n", options.device.c_str(), failure.words.c_str());
    }
  }
  for (const auto &[operation, reason] : score.unsupported) {
    printf("not supported, %d cases, as: %s\n", reason.cases, reason.example.c_str());
  }
  printf("%d passed, %d failed\n", score.passed, score.failed);
  return score.failed == 0 && score.passed > 0 ? 0 : 1;
}
