#include "propagation/urgency_table.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/text.h"
#include "events/json_write.h"

namespace lockstep {

namespace {

using enum FrameType;
using enum Urgency;
constexpr Domain dev = Domain::device;
constexpr Domain mem = Domain::memory;
constexpr Domain mod = Domain::model;
constexpr Domain pro = Domain::processing;
constexpr Domain inf = Domain::inference;
constexpr Domain post = Domain::postprocessing;
constexpr Domains link{};
constexpr bool sample = true;
constexpr Condition always = Condition::always;

// Joining comes first: nothing may overtake a welcome. A cancel is as urgent as a person who waits for it. What frees
// or decides is high, work is normal, and what only tells how something goes is low.
constexpr std::array rows{
    UrgencyRow{hello, always, p1_high, link},
    UrgencyRow{welcome, always, p0_critical, link},
    UrgencyRow{refused, always, p0_critical, link},
    UrgencyRow{ready, always, p2_normal, domains_of(dev, pro)},
    UrgencyRow{heartbeat, always, p1_high, link},
    UrgencyRow{heartbeat_ack, always, p1_high, link},
    UrgencyRow{transaction_prepare, always, p1_high, domains_of(mem, mod)},
    UrgencyRow{transaction_vote, always, p1_high, domains_of(mem, mod)},
    UrgencyRow{transaction_commit, always, p1_high, domains_of(mem, mod)},
    UrgencyRow{transaction_abort, always, p1_high, domains_of(mem, mod)},
    UrgencyRow{transaction_ack, always, p2_normal, domains_of(mem, mod)},
    UrgencyRow{request_answer, always, p1_high, domains_of(mem, pro)},
    UrgencyRow{state_changes, always, p1_high, all_domains},  // of its most urgent event, when it is sent
    UrgencyRow{state_applied, always, p1_high, all_domains},
    UrgencyRow{reservation_update, always, p1_high, domains_of(mem)},
    UrgencyRow{task_cancel, always, p0_critical, domains_of(pro, inf, post)},
    UrgencyRow{task_failed, always, p2_normal, domains_of(mod, pro, inf, post)},
    UrgencyRow{model_release, always, p2_normal, domains_of(mem, mod)},
    UrgencyRow{model_released, always, p2_normal, domains_of(mem, mod)},
    UrgencyRow{device_calibrate, always, p2_normal, domains_of(dev)},
    // §2.1
    UrgencyRow{device_config_update, always, p1_high, domains_of(dev)},
    UrgencyRow{device_routing_update, always, p1_high, domains_of(dev, pro, inf, post)},
    UrgencyRow{device_health_update, Condition::health_critical, p0_critical, all_domains, false,
               "Device Health Critical | Immediate | All Domains | P0 - Critical"},
    UrgencyRow{device_health_update, always, p3_low, domains_of(dev), sample},
    UrgencyRow{device_capability_discovered, always, p2_normal, domains_of(dev, mod, inf)},
    // §2.2
    UrgencyRow{system_memory_allocated, always, p2_normal, domains_of(mem, mod)},
    UrgencyRow{memory_policy_update, always, p1_high, domains_of(mem, mod)},
    UrgencyRow{vram_usage_update, Condition::pressure_high, p1_high, domains_of(mod, inf, pro), false,
               "Memory Pressure High | Immediate | Model, Inference, Processing | P1 - High"},
    UrgencyRow{vram_usage_update, always, p3_low, domains_of(mem), sample},
    UrgencyRow{memory_allocation_request, always, p1_high, domains_of(mem)},
    // §2.3
    UrgencyRow{model_load_request, always, p1_high, domains_of(mem, mod)},
    UrgencyRow{model_cache_update, always, p2_normal, domains_of(mod, inf)},
    UrgencyRow{model_loading_progress, Condition::loading_complete, p2_normal, domains_of(pro, inf), false,
               "Model Loading Complete | High | Processing, Inference | P2 - Normal"},
    UrgencyRow{model_loading_progress, always, p3_low, domains_of(mod), sample},
    UrgencyRow{model_runtime_update, always, p3_low, domains_of(mod, inf), sample},
    // §2.4
    UrgencyRow{processing_session_created, always, p2_normal, domains_of(pro, inf, post)},
    UrgencyRow{session_control_command, always, p1_high, domains_of(pro, inf, post)},
    UrgencyRow{session_progress_update, always, p3_low, domains_of(mem, pro), sample,
               "Processing Session Progress | Normal | Resource Planning | P3 - Low"},
    UrgencyRow{cross_domain_coordination, always, p1_high, domains_of(mem, mod, pro)},
    // §2.5
    UrgencyRow{inference_request, always, p2_normal, domains_of(inf)},
    UrgencyRow{inference_orchestration, always, p2_normal, domains_of(inf)},
    UrgencyRow{inference_progress, always, p3_low, domains_of(post), sample,
               "Inference Progress Update | Normal | Postprocessing Preparation | P3 - Low"},
    UrgencyRow{inference_completed, always, p2_normal, domains_of(pro, post)},
    // §2.6
    UrgencyRow{postprocessing_request, always, p2_normal, domains_of(post)},
    UrgencyRow{safety_policy_update, always, p1_high, domains_of(post)},
    UrgencyRow{postprocessing_progress, always, p3_low, domains_of(pro), sample},
    UrgencyRow{postprocessing_completed, always, p3_low, domains_of(pro, post), false,
               "Postprocessing Quality Results | Normal | Output Management | P3 - Low"},
};

std::string names_of(Domains domains) {
  if (domains == all_domains) return "all";
  std::string names;
  boost::mp11::mp_for_each<boost::describe::describe_enumerators<Domain>>([&](auto each) {
    if (domains.has(each.value)) names += cat(names.empty() ? "" : ", ", each.name);
  });
  return names.empty() ? "the link" : names;
}

}  // namespace

std::span<const UrgencyRow> urgency_table() { return rows; }

const UrgencyRow& urgency_row(FrameType type, Condition condition) {
  const UrgencyRow* general = nullptr;
  for (const UrgencyRow& each : rows) {
    if (each.type != type) continue;
    if (each.condition == condition) return each;
    if (each.condition == always) general = &each;
  }
  LOCKSTEP_CHECK(general != nullptr);
  return *general;
}

std::string urgency_document() {
  std::string out = "| message | condition | lane | domains | newest wins | §2.7 |\n|---|---|---|---|---|---|\n";
  for (const UrgencyRow& each : rows) {
    const std::string_view matrix = each.matrix.substr(0, each.matrix.find(" |"));
    const std::string condition = each.condition == always ? "" : json::enum_name(each.condition);
    out += cat("| `", json::enum_name(each.type), "` | ", condition, " | P", static_cast<int>(each.lane), " | ",
               names_of(each.receivers), " | ", each.sample ? "yes" : "", " | ", matrix, " |\n");
  }
  return out;
}

}  // namespace lockstep
