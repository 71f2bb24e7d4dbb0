#include "orchestrator/costs.h"

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "domains/memory/rules.h"

namespace lockstep {

namespace {

// Sizes are the clients' choice: what is remembered of them has a bound. The first ones stay.
constexpr std::size_t costs_max = 1024;

std::string size_of(const InferenceParameters& p, std::uint32_t images) {
  const std::string one = cat(p.width, "x", p.height);
  return images == 1 ? one : cat(images, " of ", one);
}

OperationCost* cost_of(Turn& turn, const ModelId& model, const std::string& operation, const std::string& size) {
  auto& costs = turn.live.operation_costs;
  const OperationKey key{model, operation, size};
  if (!costs.contains(key) && costs.size() >= costs_max) return nullptr;
  return &costs[key];
}

void took(OperationCost& cost, double seconds, Bytes peak) {
  ++cost.runs;
  cost.seconds_last = std::isfinite(seconds) ? std::max(0.0, seconds) : 0;
  cost.seconds += cost.seconds_last;
  cost.peak_max = std::max(cost.peak_max, peak);
}

bool has_own_memory(const Turn& turn, const DeviceId& device) {
  return turn.tables.device.devices.at(device.str()).kind == device::Kind::cuda;
}

}  // namespace

void inference_took(Turn& turn, const WorkerRecord& worker, const InferenceRequest& request,
                    const ResultMetadata& result, std::uint32_t images) {
  OperationCost* cost =
      cost_of(turn, request.model_configuration.base_model, "inference", size_of(request.inference_parameters, images));
  if (cost == nullptr) return;
  const Bytes peak = result.final_vram_usage.bytes().value_or(Bytes{});
  took(*cost, result.execution_time, peak);
  if (!has_own_memory(turn, worker.device_id)) return;
  const Bytes granted = memory::allocated_on(turn.tables.memory, worker.device_id);
  if (peak > granted) cost->beyond_max = std::max(cost->beyond_max, peak - granted);
}

void pipeline_took(Turn& turn, const PostprocessingCompleted& completed) {
  if (!completed.usage) return;
  for (const OperationUsage& each : *completed.usage) {
    OperationCost* cost = cost_of(turn, each.model, each.operation, "");
    if (cost != nullptr) took(*cost, each.seconds, each.peak);
  }
}

Bytes predicted_beyond(const Turn& turn, const InferenceRequest& request, const DeviceId& device,
                       std::uint32_t images) {
  if (!has_own_memory(turn, device)) return {};
  const auto of = [&](std::uint32_t count) {
    const auto known = turn.live.operation_costs.find(
        {request.model_configuration.base_model, "inference", size_of(request.inference_parameters, count)});
    return known == turn.live.operation_costs.end() ? std::optional<Bytes>() : known->second.beyond_max;
  };
  if (const auto known = of(images)) return *known;
  return Bytes{images * of(1).value_or(Bytes{}).value};
}

std::vector<OperationCostView> costs_of(const Live& live, const ModelId& model) {
  std::vector<OperationCostView> out;
  for (auto at = live.operation_costs.lower_bound({model, "", ""});
       at != live.operation_costs.end() && std::get<0>(at->first) == model; ++at) {
    const OperationCost& cost = at->second;
    out.push_back({std::get<1>(at->first), std::get<2>(at->first), cost.runs,
                   cost.seconds / static_cast<double>(std::max<std::uint64_t>(cost.runs, 1)), cost.seconds_last,
                   cost.peak_max, cost.beyond_max});
  }
  return out;
}

}  // namespace lockstep
