#include "worker/real/sensors.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/text.h"
#include "env/real/host_sensors.h"
#include "env/real/nvml.h"
#include "env/real/reactor.h"
#include "worker/real/probe.h"

namespace lockstep::worker {

namespace {

/// Bytes of cache segments in this process's address space, from the kernel.
Bytes mapped_segments() {
  std::ifstream maps("/proc/self/maps");
  std::string line;
  Bytes sum;
  while (std::getline(maps, line)) {
    if (line.find("/memfd:lockstep:") == std::string::npos) continue;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    const char* const stop = line.data() + line.size();
    const auto first = std::from_chars(line.data(), stop, begin, 16);
    if (first.ec != std::errc{} || first.ptr == stop) continue;
    std::from_chars(first.ptr + 1, stop, end, 16);
    if (end > begin) sum += Bytes{end - begin};
  }
  return sum;
}

double cpu_seconds() {
  rusage use{};
  ::getrusage(RUSAGE_SELF, &use);
  const auto of = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return of(use.ru_utime) + of(use.ru_stime);
}

}  // namespace

struct Sensors::State {
  struct PowerOrder {
    std::optional<std::uint32_t> watts;
    std::function<void(std::string)> done;
  };

  std::string device;
  std::function<void(in::Telemetry)> sampled;
  std::string library;
  real::HostSensors host;
  std::unique_ptr<real::NvmlGpu> gpu;
  double last_cpu = 0;
  Nanos last_sample = 0;
  std::optional<std::uint64_t> last_throttled;

  std::mutex mutex;  // guards what follows
  std::condition_variable changed;
  bool wanted = false;
  std::optional<PowerOrder> power_order;
  std::vector<std::function<void(Result<DeviceCapabilityDiscovered>)>> probes;
  bool over = false;
  std::optional<AllocatorStatistics> told;

  std::thread thread;

  Status open() {
    const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
    gpu = LOCKSTEP_TRY(real::NvmlGpu::open(driver_index(device, visible == nullptr ? "" : visible), library));
    return {};
  }

  Result<DeviceCapabilityDiscovered> probe() {
    if (!device.starts_with("cuda")) return probe_processor();
    if (!gpu) LOCKSTEP_TRY_STATUS(open());  // it may be there by now
    return probe_gpu(*gpu);
  }

  in::Telemetry read_processor() {
    in::Telemetry out;
    const Nanos now = real::Reactor::now();
    const double cpu = cpu_seconds();
    const double cores = std::max(1u, std::thread::hardware_concurrency());
    if (last_sample != 0) {
      const double elapsed = static_cast<double>(now - last_sample) / 1e9;
      out.health.utilization.value = std::clamp((cpu - last_cpu) / elapsed / cores * 100, 0.0, 100.0);
    }
    last_sample = now;
    last_cpu = cpu;
    const real::HostReading reading = host.read();
    out.health.temperature = reading.temperature;
    out.health.error_count = reading.memory_errors.value_or(0);
    DeviceDiagnostics& more = out.diagnostics;
    if (std::string name = host.name(); !name.empty()) more.name = std::move(name);
    more.power_draw = reading.power_draw;
    more.memory_errors = reading.memory_errors;
    more.memory_total = reading.memory_total;
    more.memory_used = reading.memory_used;
    more.process_memory = reading.process_memory;
    if (reading.throttled) {
      more.throttle_reasons.emplace();
      if (last_throttled && *reading.throttled > *last_throttled) more.throttle_reasons->push_back("processor_hot");
    }
    last_throttled = reading.throttled;
    return out;
  }

  in::Telemetry read_gpu() const {
    const real::GpuReading reading = gpu->read(::getpid());
    in::Telemetry out;
    out.health.temperature = reading.temperature;
    out.health.utilization = reading.utilization.value_or(Percent{0});
    out.health.error_count = reading.memory_errors.value_or(0);
    DeviceDiagnostics& more = out.diagnostics;
    more.name = gpu->name();
    more.driver_version = gpu->driver_version();
    more.power_draw = reading.power_draw;
    more.power_limit = reading.power_limit;
    more.throttle_reasons = reading.throttle_reasons;
    more.memory_errors = reading.memory_errors;
    more.memory_total = reading.memory_total;
    more.memory_used = reading.memory_used;
    more.process_memory = reading.process_memory;
    return out;
  }

  in::Telemetry read() {
    // A GPU whose driver does not answer has no readings; the processor's are not its own.
    in::Telemetry out = gpu ? read_gpu() : device.starts_with("cuda") ? in::Telemetry{} : read_processor();
    const std::scoped_lock lock(mutex);
    out.diagnostics.allocator = told;
    out.used = told ? told->allocated : mapped_segments();
    if (told && told->reserved.value > 0) {
      out.fragmentation.value = std::clamp(
          static_cast<double>(told->inactive_split.value) / static_cast<double>(told->reserved.value), 0.0, 1.0);
    }
    return out;
  }

  std::string set_power_limit(std::optional<std::uint32_t> watts) {
    if (!device.starts_with("cuda")) return cat("a device \"", device, "\" has no power limit that a worker can set");
    if (!gpu) return "there is no NVIDIA driver that this worker can ask";
    const Status set = watts ? gpu->set_power_limit(*watts) : gpu->reset_power_limit();
    return set ? "" : set.error().message;
  }

  void run() {
    if (device.starts_with("cuda")) {
      if (const Status opened = open(); !opened) {
        std::fprintf(stderr, "lockstep worker: no readings of %s: %s\n", device.c_str(),
                     opened.error().message.c_str());
      }
    }
    for (;;) {
      std::optional<PowerOrder> order;
      std::vector<std::function<void(Result<DeviceCapabilityDiscovered>)>> asked;
      bool reads = false;
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [this] { return wanted || power_order || !probes.empty() || over; });
        if (over) return;
        order = std::exchange(power_order, std::nullopt);
        asked = std::exchange(probes, {});
        reads = std::exchange(wanted, false);  // who asks during the reading wants a later one
      }
      if (order) order->done(set_power_limit(order->watts));
      for (const auto& done : asked) done(probe());
      if (!reads) continue;
      sampled(read());
    }
  }
};

Sensors::Sensors(std::string device, std::function<void(in::Telemetry)> sampled, std::string library)
    : state_(std::make_unique<State>()) {
  state_->device = std::move(device);
  state_->library = std::move(library);
  state_->sampled = std::move(sampled);
  state_->thread = std::thread([state = state_.get()] { state->run(); });
}

Sensors::~Sensors() {
  {
    const std::scoped_lock lock(state_->mutex);
    state_->over = true;
  }
  state_->changed.notify_one();
  state_->thread.join();
}

void Sensors::sample() {
  {
    const std::scoped_lock lock(state_->mutex);
    state_->wanted = true;
  }
  state_->changed.notify_one();
}

void Sensors::set_power_limit(std::optional<std::uint32_t> watts, std::function<void(std::string)> done) {
  {
    const std::scoped_lock lock(state_->mutex);
    state_->power_order = State::PowerOrder{watts, std::move(done)};
  }
  state_->changed.notify_one();
}

void Sensors::probe(std::function<void(Result<DeviceCapabilityDiscovered>)> done) {
  {
    const std::scoped_lock lock(state_->mutex);
    state_->probes.push_back(std::move(done));
  }
  state_->changed.notify_one();
}

void Sensors::tell(AllocatorStatistics statistics) {
  const std::scoped_lock lock(state_->mutex);
  state_->told = statistics;
}

std::string driver_index(const std::string& device, const std::string& visible) {
  const std::size_t colon = device.find(':');
  std::size_t index = 0;
  if (colon != std::string::npos) {
    std::from_chars(device.data() + colon + 1, device.data() + device.size(), index);
  }
  if (visible.empty()) return cat(index);
  std::size_t begin = 0;
  for (std::size_t at = 0;; ++at) {
    const std::size_t end = std::min(visible.find(',', begin), visible.size());
    if (at == index) return visible.substr(begin, end - begin);
    if (end == visible.size()) return cat(index);  // it names fewer: the framework will refuse the device anyway
    begin = end + 1;
  }
}

}  // namespace lockstep::worker
