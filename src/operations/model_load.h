#pragma once

// A model load is a transaction (§3.1, §3.2): the device reservation, the cache pin, the VRAM allocation and the
// worker's promise are one two-phase commit; the copy is the last step, and its failure is compensated in reverse
// order. The pin is the residency row itself: a segment is not evicted while its model is being
// loaded anywhere, nor while a cpu worker maps it.

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "events/link_messages.h"
#include "events/model_events.h"
#include "operations/tables.h"
#include "transactions/saga.h"
#include "transactions/two_phase_commit.h"

namespace lockstep {

/// The saga of a load (§3.6). The first three steps are one commit record, the decision; the copy is the last.
inline constexpr StepDefinition model_loading_steps[] = {
    {"device_service", "reserve_device", "release_device_reservation"},
    {"memory_service", "allocate_vram", "deallocate_vram"},
    {"model_service", "cache_model_to_ram", "remove_model_from_cache"},
    {"python_model_worker", "load_model_to_vram", "unload_model_from_vram"}};
inline constexpr SagaDefinition model_loading{"cross_domain_model_loading", 1, model_loading_steps};
static_assert(well_formed(model_loading));

/// What one of the coordinator's own services votes on a load (§3.5 phase 1); of a no, why.
struct ServiceVote {
  std::string_view service;
  Status vote;
};
using ServiceVotes = std::vector<ServiceVote>;

/// A load that prepares: what the coordinator asked the worker to promise. In memory only (presumed abort).
struct LoadIntent {
  TransactionId transaction_id;
  TransactionState state = TransactionState::preparing;
  WorkerId worker_id;
  Incarnation incarnation;
  DeviceId device_id;
  LoadPlan plan;
  JobId wanted_by;
  ServiceVotes votes;  // of device, memory and model
};
using LoadIntents = std::map<TransactionId, LoadIntent>;

/// Of any transaction: what is neither an intent nor a decision was aborted (presumed), or is over and was told so.
TransactionState state_of(const Tables& tables, const LoadIntents& intents, const TransactionId& transaction);

/// The ledger's row of a load.
AllocationId allocation_of_load(const TransactionId& transaction);

/// What the device may still hold of loads that failed: their bytes count until its worker's own allocator, or the
/// worker's end, has proven that they are free.
Bytes unproven_on(const Tables& tables, const DeviceId& device);
/// The same, while it is being measured; afterwards they are proven free, or a person decides.
bool is_being_measured(const Tables& tables, const DeviceId& device);

/// Bytes that preparing loads have been promised on the device.
Bytes promised_on(const LoadIntents& intents, const DeviceId& device);

/// The services' votes: device, memory and model, as they are in the saga. Nobody is waited for, and nothing is held
/// before all of them and the worker have said yes.
/// unavailable or resource_exhausted: try later; not_found or data_loss: never.
ServiceVotes votes_on_load(const Tables& tables, const LoadIntents& intents, const WorkerRecord& worker,
                           const ModelId& model);
/// The first no; votes.end() when all say yes.
ServiceVotes::const_iterator first_no(const ServiceVotes& votes);
/// What the worker is asked to promise; the first no, where the services have not all said yes.
Result<LoadIntent> prepare_load(const Tables& tables, const WorkerRecord& worker, const ModelId& model,
                                const JobId& wanted_by, const TransactionId& transaction, ServiceVotes votes);

/// The decision, on the participant's yes: everything the load holds, in one commit with the commit record itself.
void decide_load(const Tables& tables, const LoadIntent& intent, Change& change);

/// The participant knows the decision, or is lost: it may be forgotten. Nothing for one that was forgotten before.
/// event: acknowledged, participant_lost
void end_transaction(const Tables& tables, const TransactionId& transaction, TransactionEvent event, Change& change);

/// The copy is complete: the device is free for the next load, the memory is in use, the model is loaded.
void finish_load(const Tables& tables, const model::Residency& residency, WallTime now, Change& change);

/// The copy failed, and its worker lives: whether the bytes are free again is its allocator's to say. Goes ahead of
/// undo_load, in the same commit.
void await_unload(const Tables& tables, const model::Residency& residency, const std::string& why, WallTime now,
                  Change& change);
/// The end of a worker proves that what it was to unload is gone.
void unloads_end_with(const Tables& tables, const WorkerRecord& worker, Change& change);

/// The rows that the first three steps of the saga wrote go in reverse order, in one commit: the pin, then the memory,
/// then the device. The fourth is the worker's to undo: await_unload, or its end. how: its part in the transaction
/// ended, if it had not before.
void undo_load(const Tables& tables, const model::Residency& residency, TransactionEvent how, const std::string& why,
               Change& change);

/// Eviction in two steps: told to release (bytes still count), then gone.
void begin_release(const Tables& tables, const model::Residency& residency, Change& change);
void finish_release(const Tables& tables, const model::Residency& residency, Change& change);

/// What the orchestrator tells the worker once the decision is durable.
ModelLoadRequest load_message(const LoadIntent& intent, AllocationPriority priority);

}  // namespace lockstep
