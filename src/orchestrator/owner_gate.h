#pragma once

// Step 2 of the path (design §2): may this worker tell of this? The kind of fact is asked of the ownership table; the
// thing it is about (a device, a run, a transaction, a model being loaded) must be the worker's own. A refusal changes
// nothing, is counted for (worker, fact), and is shown; it does not end the worker, which is wrong but not broken.

#include <string_view>
#include <type_traits>

#include "base/ids.h"
#include "events/described.h"
#include "events/envelope.h"
#include "orchestrator/turn.h"
#include "ownership/table.h"

namespace lockstep {

namespace detail {

constexpr bool names_a_thing(std::string_view key) {
  return key == "device_id" || key == "transaction_id" || key == "request_id" || key == "model_id";
}

/// not_owner with the pointer of the name.
Status thing_is_its_own(const Turn& turn, const WorkerRecord& worker, const Envelope& envelope, std::string_view key,
                        std::string_view name);

inline std::string_view text_of(const std::string& name) { return name; }
template <class Tag>
std::string_view text_of(const Id<Tag>& name) {
  return name.str();
}

}  // namespace detail

/// not_owner for a fact of the orchestrator's; invalid_argument for a type that no protocol knows. §1
Status owner_gate(FrameType type);

/// The second half of the gate, for whoever has read the message: not_owner with the pointer of the first name of a
/// thing that is another's. A thing that is nobody's passes: it is late. Before anything is done with the message. §1
template <class Body>
Status things_are_its_own(const Turn& turn, const WorkerRecord& worker, const Envelope& envelope, const Body& body) {
  Status status;
  boost::mp11::mp_for_each<json::Members<Body>>([&]<class Member>(Member) {
    constexpr std::string_view key(Member::name);
    if constexpr (detail::names_a_thing(key)) {
      if (!status) return;
      const auto& name = body.*Member::pointer;
      if constexpr (json::is_optional<std::remove_cvref_t<decltype(name)>>) {
        if (name) status = detail::thing_is_its_own(turn, worker, envelope, key, detail::text_of(*name));
      } else {
        status = detail::thing_is_its_own(turn, worker, envelope, key, detail::text_of(name));
      }
    }
  });
  return status;
}

/// not_owner or not_yet: counted in Counters, logged and published as "write_refused" the 1st, 2nd, 4th, 8th ... time.
void refuse_write(Turn& turn, const WorkerRecord& worker, FrameType type, const Error& why);

}  // namespace lockstep
