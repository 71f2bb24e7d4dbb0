// A stand-in for the NVIDIA management library with one GPU, hot, throttled and shared, for machines without one.
// With FAKE_NVML=broken in the environment it fails at the start, with FAKE_NVML=mute it does not tell what the GPU can
// do, and with FAKE_NVML=cool nothing slows it down. The names are the driver's.

#include <cstdlib>
#include <cstring>

namespace {

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

int device = 0;

bool is(const char* state) {
  const char* how = std::getenv("FAKE_NVML");
  return how != nullptr && std::strcmp(how, state) == 0;
}

/// 3: not supported
int tell(unsigned* out, unsigned value) {
  *out = value;
  return is("mute") ? 3 : 0;
}

}  // namespace

extern "C" {

int nvmlInit_v2(void) { return is("broken") ? 9 : 0; }
int nvmlShutdown(void) { return 0; }
const char* nvmlErrorString(int code) {
  return code == 9 ? "Driver Not Loaded" : code == 4 ? "Insufficient Permissions" : "Not Found";
}
int nvmlSystemGetDriverVersion(char* text, unsigned size) {
  std::strncpy(text, "570.10", size);
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** out) {
  *out = &device;
  return index == 0 ? 0 : 6;
}
int nvmlDeviceGetHandleByUUID(const char* uuid, void** out) {
  *out = &device;
  return std::strcmp(uuid, "GPU-1234") == 0 ? 0 : 6;
}
int nvmlDeviceGetName(void*, char* text, unsigned size) {
  std::strncpy(text, "Fake GPU", size);
  return 0;
}
int nvmlDeviceGetTemperature(void*, unsigned sensor, unsigned* out) {
  *out = 72;
  return sensor == 0 ? 0 : 3;
}
int nvmlDeviceGetPowerUsage(void*, unsigned* out) {
  *out = 345600;
  return 0;
}
// nvmlDeviceGetEnforcedPowerLimit is missing, as from an older driver.
int nvmlDeviceSetPowerManagementLimit(void*, unsigned milliwatts) {
  return milliwatts < 100000 ? 2 : milliwatts == 200000 ? 0 : 4;  // 200 W was allowed to everybody
}
int nvmlDeviceGetPowerManagementDefaultLimit(void*, unsigned* milliwatts) {
  *milliwatts = 400000;
  return 0;
}
int nvmlDeviceGetUtilizationRates(void*, Utilization* out) {
  out->gpu = 85;
  out->memory = 40;
  return 0;
}
int nvmlDeviceGetMemoryInfo(void*, Memory* out) {
  out->total = 16106127360ULL;
  out->used = 12884901888ULL;
  out->free = out->total - out->used;
  return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void*, unsigned* count, Process* out) {
  if (out == nullptr || *count < 2) {
    *count = 2;
    return 7;
  }
  *count = 2;
  out[0].pid = 4711;
  out[0].used_memory = 1ULL << 30;
  out[1].pid = 4712;
  out[1].used_memory = ~0ULL;
  return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void*, unsigned long long* out) {
  *out = is("cool") ? 0x1 : 0x1 | 0x4 | 0x40;
  return 0;
}
int nvmlDeviceGetTotalEccErrors(void*, int kind, int counter, unsigned long long* out) {
  *out = 3;
  return kind == 1 && counter == 0 ? 0 : 3;
}
int nvmlDeviceGetCudaComputeCapability(void*, int* major, int* minor) {
  *major = 8;
  *minor = 9;
  return is("mute") ? 3 : 0;
}
int nvmlDeviceGetNumGpuCores(void*, unsigned* out) { return tell(out, 10000); }
int nvmlDeviceGetMaxClockInfo(void*, int clock, unsigned* out) {
  return clock == 1 ? tell(out, 2500) : clock == 2 ? tell(out, 10000) : 2;
}
int nvmlDeviceGetMemoryBusWidth(void*, unsigned* out) { return tell(out, 400); }
int nvmlDeviceGetEncoderCapacity(void*, int encoder, unsigned* out) { return encoder == 0 ? tell(out, 100) : 2; }
}
