#pragma once

// Calibration of a device (§1.1, hardware-specific maintenance and calibration): a person asks, its worker measures it
// again as soon as it is idle, since a measurement beside a running task would be wrong, and does nothing else
// meanwhile. One that waits ends with its worker, and with this process.

#include <optional>
#include <string>

#include "domains/device/types.h"
#include "orchestrator/turn.h"

namespace lockstep {

/// Whether the worker is busy with the calibration of its device, and `op_id` is that.
bool is_calibrating(const Turn& turn, const WorkerRecord& worker, const std::string& op_id);
/// The worker has measured. before: what was known, nullptr for nothing.
void calibration_done(Turn& turn, const WorkerRecord& worker, const device::Capabilities* before,
                      const device::Capabilities& after);
/// It could not measure.
void calibration_failed(Turn& turn, const WorkerRecord& worker, const Error& why);
/// The worker is gone, and what was asked of it with it.
void calibration_lost(Turn& turn, const WorkerRecord& worker, const std::string& how);
/// The worker is back with what it does: an order that was lost with its link is given again.
void calibration_resumed(Turn& turn, const WorkerRecord& worker);

/// "running", or "waiting: " and for what; nothing when none was asked for.
std::optional<std::string> calibration_state(const Turn& turn, const device::Device& device);

}  // namespace lockstep
