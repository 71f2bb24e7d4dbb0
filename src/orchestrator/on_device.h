#pragma once

// The device domain at the orchestrator (§1.1, §2.1): what workers report of their devices, what people set, and which
// device an image may go to. Each function is called from one line of the file that owns the input.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "operations/views.h"
#include "orchestrator/turn.h"

namespace lockstep {

/// A sample of a device's health; only a change of its level becomes a fact, and is told to others (§2.7).
/// first: of this life of its worker.
void health_sampled(Turn& turn, const WorkerRecord& worker, const DeviceHealthUpdate& update, bool first);
/// What a device can do, kept when it differs from what is known. not_owner for a device of another worker.
/// op_id: of the calibration that it answers, if it does.
Status capabilities_reported(Turn& turn, const WorkerRecord& worker, const DeviceCapabilityDiscovered& report,
                             const std::string& op_id);
/// The worker is ready: it is told what is set for its device, and the routes.
void tell_device_facts(Turn& turn, const WorkerRecord& worker);
/// Its worker is gone: nothing is confirmed any more, and nobody knows how well the device is.
void device_lost(Turn& turn, const WorkerRecord& worker);
/// A worker's answer to the newest configuration or routes; nothing for an answer about something else.
void device_change_confirmed(Turn& turn, const WorkerRecord& worker, const AppliedResult& answer);

/// Workers of whom the device matters: those that may be given the same work (§2.1 targeted propagation).
bool is_concerned(const Turn& turn, const WorkerRecord& worker, const DeviceId& device);

/// "devices/<id>/config" and "routing". False when the path is not of this domain.
bool set_device(Turn& turn, const in::Set& input);
std::optional<std::string> device_view_text(const Turn& turn, const std::string& path);

/// An inference reports its speed; what the device will be busy for follows from it.
void step_measured(Turn& turn, const WorkerRecord& worker, const ExecutionMetrics& steps);

/// Seconds that earlier images of this pass will keep a device busy which they decided to wait for.
using WaitSeconds = std::map<DeviceId, double>;
/// Leaves the workers that the image may go to now: access, health, and the routes. An image that waits for its
/// primary, though another device is idle, is noted in `waiting`.
void keep_allowed(const Turn& turn, const processing::Request& request, const processing::Job& job,
                  const std::vector<ModelId>& needed, WaitSeconds& waiting, std::vector<WorkerRecord>& workers);
/// Why no device may do this image now; empty when one may.
std::string no_device_because(const Turn& turn, const processing::Request& request, const processing::Job& job);

}  // namespace lockstep
