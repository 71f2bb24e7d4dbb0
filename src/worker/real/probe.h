#pragma once

// What a device can do, found at the start of a worker and at each calibration (§1.1 capability detection). Of a
// processor: its name, the kernel's release, the instruction sets that inference profits from, and one short measured
// score. Of a GPU: what its driver says.

#include <string_view>

#include "env/real/nvml.h"
#include "events/device_events.h"

namespace lockstep::worker {

/// Takes about 20 ms: it copies memory. device_id stays empty.
DeviceCapabilityDiscovered probe_processor();

/// From the text of /proc/cpuinfo: name and capabilities.
DeviceCapabilityDiscovered processor_of(std::string_view cpuinfo);

/// 0 to 10 for a rate of copying: 10 is 100 GB/s, what a server's memory gives to one thread at most.
double copy_score(double bytes_per_second);

/// Name, driver and capabilities of a GPU. What its driver does not say is left out.
DeviceCapabilityDiscovered probe_gpu(const real::NvmlGpu& gpu);

/// The kinds of arithmetic by compute capability: fp16_inference from 5.3, tensor_core_acceleration from 7.0,
/// bf16_inference from 8.0, fp8_inference from 8.9; nvenc_encoding where its encoder takes H.264: not on 8.0, 9.0
/// and 10.0, which have none.
///
/// The scores are the device's rated figures, nothing is measured:
/// compute           cores x highest clock x 2 (a multiply and an add), of fp32; 10 is 100 TFLOPS
/// memory_bandwidth  highest memory clock x 2 (double data rate) x bus width; 10 is 5 TB/s
DeviceCapabilityDiscovered gpu_of(const real::GpuFacts& facts);

}  // namespace lockstep::worker
