#include "env/real/nvml.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/text.h"

namespace lockstep::real {

namespace {

// The parts of NVML's interface that are used here; its names and numbers are the driver's.
using Return = int;
constexpr Return success = 0;
constexpr Return invalid_argument = 2;
constexpr Return no_permission = 4;
constexpr Return insufficient_size = 7;

struct Memory {
  unsigned long long total, free, used;
};
struct Utilization {
  unsigned gpu, memory;
};
struct Process {
  unsigned pid;
  unsigned long long used_memory;
  unsigned gpu_instance, compute_instance;
};

constexpr unsigned temperature_of_the_gpu = 0;
constexpr int multiprocessor_clock = 1;
constexpr int memory_clock = 2;
constexpr int h264_encoder = 0;
constexpr int uncorrected_errors = 1;
constexpr int since_driver_load = 0;
constexpr unsigned long long not_available = ~0ULL;

// Bits of the clocks' event reasons that mean "held down"; idle and an application's own setting are none.
constexpr std::array<std::pair<unsigned long long, std::string_view>, 5> throttles{{
    {0x4, "power_cap"},
    {0x8, "hardware_slowdown"},
    {0x20, "software_thermal"},
    {0x40, "hardware_thermal"},
    {0x80, "power_brake"},
}};

std::optional<double> watts(Return (*ask)(void*, unsigned*), void* device) {
  unsigned milliwatts = 0;
  if (ask == nullptr || ask(device, &milliwatts) != success) return std::nullopt;
  return milliwatts / 1000.0;
}

}  // namespace

struct NvmlGpu::Library {
  void* handle = nullptr;
  bool started = false;
  Return (*init)() = nullptr;
  Return (*shutdown)() = nullptr;
  const char* (*error_string)(Return) = nullptr;
  Return (*driver_version)(char*, unsigned) = nullptr;
  Return (*by_index)(unsigned, void**) = nullptr;
  Return (*by_uuid)(const char*, void**) = nullptr;
  Return (*name)(void*, char*, unsigned) = nullptr;
  Return (*temperature)(void*, unsigned, unsigned*) = nullptr;
  Return (*power)(void*, unsigned*) = nullptr;
  Return (*power_limit)(void*, unsigned*) = nullptr;
  Return (*set_power_limit)(void*, unsigned) = nullptr;
  Return (*default_power_limit)(void*, unsigned*) = nullptr;
  Return (*utilization)(void*, Utilization*) = nullptr;
  Return (*memory)(void*, Memory*) = nullptr;
  Return (*processes)(void*, unsigned*, Process*) = nullptr;
  Return (*throttle_reasons)(void*, unsigned long long*) = nullptr;
  Return (*ecc_errors)(void*, int, int, unsigned long long*) = nullptr;
  Return (*compute_capability)(void*, int*, int*) = nullptr;
  Return (*cores)(void*, unsigned*) = nullptr;
  Return (*clock_max)(void*, int, unsigned*) = nullptr;
  Return (*memory_bus_width)(void*, unsigned*) = nullptr;
  Return (*encoder_capacity)(void*, int, unsigned*) = nullptr;

  ~Library() {
    if (started) shutdown();
    if (handle != nullptr) ::dlclose(handle);
  }

  template <class Function>
  void find(Function& function, const char* symbol) {
    function = reinterpret_cast<Function>(::dlsym(handle, symbol));
  }
  std::string sentence(Return code) const { return error_string == nullptr ? cat("error ", code) : error_string(code); }

  std::optional<Bytes> memory_of(void* device, std::int64_t pid) const {
    unsigned count = 0;
    const Return asked = processes(device, &count, nullptr);
    if (asked != success && asked != insufficient_size) return std::nullopt;
    std::vector<Process> found(count + 8);  // some may start in between
    count = static_cast<unsigned>(found.size());
    if (processes(device, &count, found.data()) != success) return std::nullopt;
    Bytes sum;
    for (unsigned i = 0; i < std::min<std::size_t>(count, found.size()); ++i) {
      if (static_cast<std::int64_t>(found[i].pid) != pid) continue;
      if (found[i].used_memory == not_available) return std::nullopt;
      sum += Bytes{found[i].used_memory};
    }
    return sum;
  }
};

NvmlGpu::NvmlGpu(std::unique_ptr<Library> library) : library_(std::move(library)) {}
NvmlGpu::~NvmlGpu() = default;

Result<std::unique_ptr<NvmlGpu>> NvmlGpu::open(const std::string& which, const std::string& library) {
  auto nvml = std::make_unique<Library>();
  nvml->handle = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (nvml->handle == nullptr) return fail(ErrorCode::unavailable, cat("no NVIDIA driver: ", ::dlerror()));
  nvml->find(nvml->init, "nvmlInit_v2");
  nvml->find(nvml->shutdown, "nvmlShutdown");
  nvml->find(nvml->error_string, "nvmlErrorString");
  nvml->find(nvml->driver_version, "nvmlSystemGetDriverVersion");
  nvml->find(nvml->by_index, "nvmlDeviceGetHandleByIndex_v2");
  nvml->find(nvml->by_uuid, "nvmlDeviceGetHandleByUUID");
  nvml->find(nvml->name, "nvmlDeviceGetName");
  nvml->find(nvml->temperature, "nvmlDeviceGetTemperature");
  nvml->find(nvml->power, "nvmlDeviceGetPowerUsage");
  nvml->find(nvml->power_limit, "nvmlDeviceGetEnforcedPowerLimit");
  nvml->find(nvml->set_power_limit, "nvmlDeviceSetPowerManagementLimit");
  nvml->find(nvml->default_power_limit, "nvmlDeviceGetPowerManagementDefaultLimit");
  nvml->find(nvml->utilization, "nvmlDeviceGetUtilizationRates");
  nvml->find(nvml->memory, "nvmlDeviceGetMemoryInfo");
  nvml->find(nvml->processes, "nvmlDeviceGetComputeRunningProcesses_v3");
  nvml->find(nvml->throttle_reasons, "nvmlDeviceGetCurrentClocksThrottleReasons");
  nvml->find(nvml->ecc_errors, "nvmlDeviceGetTotalEccErrors");
  nvml->find(nvml->compute_capability, "nvmlDeviceGetCudaComputeCapability");
  nvml->find(nvml->cores, "nvmlDeviceGetNumGpuCores");
  nvml->find(nvml->clock_max, "nvmlDeviceGetMaxClockInfo");
  nvml->find(nvml->memory_bus_width, "nvmlDeviceGetMemoryBusWidth");
  nvml->find(nvml->encoder_capacity, "nvmlDeviceGetEncoderCapacity");
  if (nvml->init == nullptr || nvml->shutdown == nullptr || nvml->by_index == nullptr || nvml->by_uuid == nullptr) {
    return fail(ErrorCode::unavailable, cat(library, " is not the NVIDIA management library"));
  }
  if (const Return code = nvml->init(); code != success) {
    return fail(ErrorCode::unavailable, cat("the NVIDIA driver does not answer: ", nvml->sentence(code)));
  }
  nvml->started = true;
  std::unique_ptr<NvmlGpu> gpu(new NvmlGpu(std::move(nvml)));
  const Library& driver = *gpu->library_;
  const bool number = !which.empty() && std::ranges::all_of(which, [](char c) { return c >= '0' && c <= '9'; });
  const Return found = number && which.size() <= 4
                           ? driver.by_index(static_cast<unsigned>(std::stoul(which)), &gpu->device_)
                           : driver.by_uuid(which.c_str(), &gpu->device_);
  if (found != success) {
    return fail(ErrorCode::unavailable,
                cat("the driver knows no GPU ", shortened(which), ": ", driver.sentence(found)));
  }
  std::array<char, 128> text{};
  if (driver.name != nullptr && driver.name(gpu->device_, text.data(), text.size() - 1) == success) {
    gpu->name_ = text.data();
  }
  if (driver.driver_version != nullptr && driver.driver_version(text.data(), text.size() - 1) == success) {
    gpu->driver_version_ = text.data();
  }
  return gpu;
}

GpuReading NvmlGpu::read(std::int64_t pid) const {
  const Library& driver = *library_;
  GpuReading out;
  unsigned value = 0;
  if (driver.temperature != nullptr && driver.temperature(device_, temperature_of_the_gpu, &value) == success) {
    out.temperature = value;
  }
  out.power_draw = watts(driver.power, device_);
  out.power_limit = watts(driver.power_limit, device_);
  if (Utilization rates{}; driver.utilization != nullptr && driver.utilization(device_, &rates) == success) {
    out.utilization = Percent{static_cast<double>(std::min(rates.gpu, 100u))};
  }
  if (Memory memory{}; driver.memory != nullptr && driver.memory(device_, &memory) == success) {
    out.memory_total = Bytes{memory.total};
    out.memory_used = Bytes{memory.used};
  }
  if (driver.processes != nullptr) out.process_memory = driver.memory_of(device_, pid);
  unsigned long long number = 0;
  if (driver.ecc_errors != nullptr &&
      driver.ecc_errors(device_, uncorrected_errors, since_driver_load, &number) == success) {
    out.memory_errors = number;
  }
  if (driver.throttle_reasons != nullptr && driver.throttle_reasons(device_, &number) == success) {
    out.throttle_reasons.emplace();
    for (const auto& [bit, word] : throttles) {
      if ((number & bit) != 0) out.throttle_reasons->emplace_back(word);
    }
  }
  return out;
}

GpuFacts NvmlGpu::facts() const {
  const Library& driver = *library_;
  GpuFacts out;
  ComputeCapability found;
  if (driver.compute_capability != nullptr &&
      driver.compute_capability(device_, &found.major, &found.minor) == success) {
    out.compute_capability = found;
  }
  const auto number = [&](auto ask, auto... which) -> std::optional<unsigned> {
    unsigned value = 0;
    if (ask == nullptr || ask(device_, which..., &value) != success) return std::nullopt;
    return value;
  };
  out.cores = number(driver.cores);
  out.clock_max = number(driver.clock_max, multiprocessor_clock);
  out.memory_clock_max = number(driver.clock_max, memory_clock);
  out.memory_bus_width = number(driver.memory_bus_width);
  if (const auto capacity = number(driver.encoder_capacity, h264_encoder)) out.encodes_h264 = *capacity > 0;
  return out;
}

Status NvmlGpu::set_power_limit(double limit) {
  if (library_->set_power_limit == nullptr) return fail(ErrorCode::unavailable, "this driver cannot limit power");
  if (!(limit >= 1 && limit <= 10'000)) {
    return fail(ErrorCode::invalid_argument, cat("power_limit is ", limit, " W; it must be 1 to 10000"));
  }
  const Return code = library_->set_power_limit(device_, static_cast<unsigned>(std::lround(limit * 1000)));
  if (code == success) return {};
  const ErrorCode what = code == no_permission      ? ErrorCode::not_owner
                         : code == invalid_argument ? ErrorCode::invalid_argument
                                                    : ErrorCode::unavailable;
  return fail(what, cat("the driver refuses a power limit of ", limit, " W: ", library_->sentence(code)));
}

Status NvmlGpu::reset_power_limit() {
  const auto usual = watts(library_->default_power_limit, device_);
  if (!usual) return fail(ErrorCode::unavailable, "this driver does not tell its default power limit");
  return set_power_limit(*usual);
}

}  // namespace lockstep::real
