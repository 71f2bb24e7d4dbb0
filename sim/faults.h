#pragma once

// What the simulator must have done to the system, by name: faults, and what only faults lead to. docs/simulator.md has
// a line for each. Over enough seeds none may stay at zero, or the report praises a test that was not made.

#include <array>
#include <string_view>
#include <utility>

namespace lockstep::sim {

inline constexpr std::array<std::string_view, 77> fault_names{
    // the orchestrator and its disk
    "orchestrator_crash", "start_failed", "disk_kept_unacknowledged", "disk_lost_unacknowledged", "disk_kept_unsynced",
    "disk_lost_unsynced", "disk_torn_write", "disk_io_error", "disk_sync_dropped", "disk_sync_kept", "disk_full",
    "disk_lying_sync", "disk_lying_checkpoint", "disk_lies_refused", "disk_bit_rot", "disk_log_rot", "disk_truncated",
    "disk_stall", "disk_stall_long", "output_disk_full", "output_disk_refuses", "saga_parked", "disk_space_low",
    "fill_failed",
    // clocks, and nodes that stand still
    "clock_skew", "wall_jump", "worker_paused", "worker_suspended", "orchestrator_paused",
    // worker processes
    "worker_crash", "worker_killed", "spawn_failed", "device_hot", "driver_slow", "probe_slow", "probe_hangs",
    // handlers
    "handler_hangs", "handler_failed", "load_failed", "handler_slow", "handler_too_slow", "handler_answers_twice",
    "handler_answers_badly", "handler_floods", "interpreter_held", "release_lies", "unload_lies",
    "ended_without_progress",
    // links
    "network_delay", "link_cut", "link_half_open", "link_doubled", "link_slow", "link_one_way", "partition_one",
    "partition_all", "cut_in_frame", "one_byte_reads", "urgent_first", "late_bytes", "late_hello",
    // what is not its own; what is told and not answered
    "not_its_own", "earlier_epoch", "answer_withheld", "asked_again", "prepared_again", "told_again",
    "output_rolled_back", "overruled",
    // ways in
    "guest_joined", "guest_worked", "guest_left", "guest_returned", "stranger_wrong_secret", "stranger_configured_name",
    "stranger_taken_name", "stranger_forged_return"};

/// What only another fault leads to: a run that asks for the first alone meets the second too.
inline constexpr std::array<std::pair<std::string_view, std::string_view>, 21> fault_causes{{
    {"disk_kept_unacknowledged", "orchestrator_crash"},
    {"disk_lost_unacknowledged", "orchestrator_crash"},
    {"disk_kept_unsynced", "orchestrator_crash"},
    {"disk_lost_unsynced", "orchestrator_crash"},
    {"disk_torn_write", "orchestrator_crash"},
    {"start_failed", "orchestrator_crash"},
    {"disk_bit_rot", "orchestrator_crash"},
    {"disk_log_rot", "orchestrator_crash"},
    {"disk_truncated", "orchestrator_crash"},
    {"earlier_epoch", "orchestrator_crash"},
    {"disk_lying_checkpoint", "disk_lying_sync"},
    {"disk_lies_refused", "disk_lying_sync"},
    {"saga_parked", "output_disk_refuses"},
    {"unload_lies", "load_failed"},
    {"ended_without_progress", "handler_hangs"},
    {"urgent_first", "link_slow"},
    {"late_bytes", "link_doubled"},
    {"late_hello", "link_doubled"},
    {"cut_in_frame", "link_cut"},
    {"told_again", "answer_withheld"},
    {"guest_returned", "guest_left"},
}};

/// Fewer seeds may miss a rare one by chance.
inline constexpr int seeds_for_every_fault = 200;

}  // namespace lockstep::sim
