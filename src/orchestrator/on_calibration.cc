#include "orchestrator/on_calibration.h"

#include <algorithm>
#include <utility>

#include "base/text.h"

namespace lockstep {

namespace {

struct CalibrationAccepted {
  DeviceId device_id;
  std::string state;
};
BOOST_DESCRIBE_STRUCT(CalibrationAccepted, (), (device_id, state))

struct CalibrationFailed {
  DeviceId device_id;
  std::string reason;
};
BOOST_DESCRIBE_STRUCT(CalibrationFailed, (), (device_id, reason))

const WorkerRecord* worker_of(const Turn& turn, const device::Device& device) {
  const WorkerRecord* worker = turn.tables.liveness.workers.find(device.worker_id.str());
  return worker != nullptr && worker->device_id == device.device_id ? worker : nullptr;
}

/// Why nothing can be measured on it now, however long it is waited; empty when it can.
std::string unfit_because(const Turn& turn, const device::Device& device) {
  const WorkerRecord* worker = worker_of(turn, device);
  if (worker == nullptr || worker->state != WorkerState::ready) {
    return cat("device ", device.device_id.str(), " is not online",
               device.reason.empty() ? "" : cat(": ", device.reason));
  }
  if (device.availability != device::Availability::error) return "";
  return cat("device ", device.device_id.str(), " is in error, and a measurement now would be wrong: ", device.reason);
}

std::vector<std::string> without(const std::vector<std::string>& all, const std::vector<std::string>& these) {
  std::vector<std::string> out;
  std::ranges::copy_if(all, std::back_inserter(out),
                       [&](const std::string& each) { return std::ranges::find(these, each) == these.end(); });
  return out;
}

/// Whoever waits is told, and it is over.
void end_with(Turn& turn, const DeviceId& id, const Error& why) {
  const auto place = turn.live.calibrations.find(id);
  if (place == turn.live.calibrations.end()) return;
  turn.warn(cat(id.str(), " was not calibrated: ", why.message));
  turn.publish("device_calibration_failed", id.str(), CalibrationFailed{id, why.message});
  for (const ReplyId reply : place->second.replies) reply_error(turn, reply, why);
  turn.live.calibrations.erase(place);
}

}  // namespace

bool is_calibrating(const Turn& turn, const WorkerRecord& worker, const std::string& op_id) {
  const auto live = turn.live.workers.find(worker.worker_id);
  return live != turn.live.workers.end() && live->second.task == op_id &&
         op_id == calibrate_operation(worker.device_id).op_id;
}

void on_calibrate_device(Turn& turn, const in::CalibrateDevice& input) {
  const DeviceId& id = input.device_id;
  const device::Device* device = turn.tables.device.devices.find(id.str());
  if (device == nullptr) {
    return reply_error(turn, input.reply, fail(ErrorCode::not_found, cat("there is no device ", shortened(id.str()))));
  }
  if (turn.live.stopping) {
    return reply_error(turn, input.reply, fail(ErrorCode::unavailable, "the server is stopping"));
  }
  if (const std::string unfit = unfit_because(turn, *device); !unfit.empty()) {
    return reply_error(turn, input.reply, fail(ErrorCode::unavailable, unfit));
  }
  turn.log(cat("a person asked for a calibration of ", id.str()));
  Calibration& calibration = turn.live.calibrations[id];  // one that is asked for again is the same
  if (input.wait) {
    calibration.replies.push_back(input.reply);
  } else {
    turn.effect(out::Reply{input.reply, 202, json::to_text(CalibrationAccepted{id, "accepted"})});
  }
}

bool settle_calibrations(Turn& turn) {
  for (auto& [id, calibration] : turn.live.calibrations) {
    if (turn.live.stopping) {
      end_with(turn, DeviceId(id), fail(ErrorCode::unavailable, "the server is stopping"));
      return true;
    }
    if (calibration.begun) continue;
    const device::Device& device = turn.tables.device.devices.at(id.str());
    const WorkerRecord* worker = worker_of(turn, device);
    if (worker == nullptr || !is_idle(turn, *worker) || !unfit_because(turn, device).empty()) continue;
    const Operation operation = calibrate_operation(id);
    calibration.begun = true;
    give_task(turn, *worker, operation.op_id, {});
    send(turn, *worker, FrameType::device_calibrate, DeviceCalibrate{id}, operation);
    expect_progress(turn, worker->worker_id);
    return true;
  }
  return false;
}

void calibration_done(Turn& turn, const WorkerRecord& worker, const device::Capabilities* before,
                      const device::Capabilities& after) {
  const device::Capabilities known = before == nullptr ? device::Capabilities{} : *before;
  const CalibrationView view{worker.device_id,
                             to_rfc3339(turn.wall),
                             known.scores,
                             after.scores,
                             without(after.capabilities, known.capabilities),
                             without(known.capabilities, after.capabilities)};
  task_over(turn, worker.worker_id);
  turn.log(cat(worker.device_id.str(), " is calibrated"));
  turn.change.event("device_calibrated", worker.device_id.str(), view);
  const auto place = turn.live.calibrations.find(worker.device_id);
  if (place == turn.live.calibrations.end()) return;  // asked for in an earlier life
  for (const ReplyId reply : place->second.replies) turn.effect(out::Reply{reply, 200, json::to_text(view)});
  turn.live.calibrations.erase(place);
}

void calibration_failed(Turn& turn, const WorkerRecord& worker, const Error& why) {
  task_over(turn, worker.worker_id);
  end_with(turn, worker.device_id, why);
}

void calibration_lost(Turn& turn, const WorkerRecord& worker, const std::string& how) {
  end_with(turn, worker.device_id,
           fail(ErrorCode::unavailable, cat("its worker ", worker.worker_id.str(), " is gone: ", how)));
}

void calibration_resumed(Turn& turn, const WorkerRecord& worker) {
  const auto place = turn.live.calibrations.find(worker.device_id);
  if (place == turn.live.calibrations.end()) return;
  place->second.begun = is_calibrating(turn, worker, calibrate_operation(worker.device_id).op_id);
}

std::optional<std::string> calibration_state(const Turn& turn, const device::Device& device) {
  const auto place = turn.live.calibrations.find(device.device_id);
  if (place == turn.live.calibrations.end()) return std::nullopt;
  if (place->second.begun) return "running";
  if (const std::string unfit = unfit_because(turn, device); !unfit.empty()) return cat("waiting: ", unfit);
  const std::string& task = turn.live.workers.at(device.worker_id).task;
  return cat("waiting: ", device.worker_id.str(), task.empty() ? " is away" : cat(" works on ", task));
}

}  // namespace lockstep
