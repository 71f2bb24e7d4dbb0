#pragma once

// Every document of the specification that lockstep reads, as one table: its name, how it is recognised, how it is
// checked, how it is described. The 24 events of §2.1-2.6 name themselves in "event_type"; the documents of §3 are told
// by another key and the word under it. A new one is a line in message_types.cc.

#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "events/json_read.h"
#include "events/json_schema.h"

namespace lockstep {

struct CheckedMessage {
  std::string canonical;  // compact JSON, keys in the specification's order
  json::ReadNotes notes;
};

struct MessageType {
  std::string_view name;           // "device_config_update"
  std::string_view section;        // "§2.1"
  std::string_view recognised_by;  // the top-level key that tells it apart
  std::string_view says;           // the word under that key
  Result<CheckedMessage> (*check)(std::string_view text);
  void (*describe)(json::Schema& schema, std::string_view section);
};

/// The events of §2.1-2.6, in the order of the specification.
std::span<const MessageType> message_types();
/// The documents of transactions, sagas and their validation, §3.1-3.6 and §3.8 (events/transaction_documents.h).
std::span<const MessageType> transaction_documents();
/// Both, in the order of the specification.
std::span<const MessageType> all_documents();

/// not_found lists the names.
Result<const MessageType*> message_type_named(std::string_view name);

/// What `text` claims to be. invalid_argument with pointer when it is no JSON object or is none of them.
Result<const MessageType*> recognise_message(std::string_view text);

}  // namespace lockstep
